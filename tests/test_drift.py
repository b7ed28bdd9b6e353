"""`bench drift`: a float32 state stays at the float64 one over many frames, and a state that drifts would be found."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl import __main__ as cli
from minivl.bench import drift, drift_report, page
from minivl.bench.drift_regimes import FRAME, REGIMES, Source, own
from minivl.ops.gated_delta_rule import recurrent

from .tolerances import close

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTHS = {"K": 16, "V": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One run of the command over 20,000 tokens: what it printed, and its files."""
    folder, said = tmp_path_factory.mktemp("drift"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr("builtins.print", lambda text: said.append(text))
        assert cli.main(["bench", "drift", "--json", str(folder / "d.json"), "--plot", str(folder / "d.png")]) == 0
    return said[0], json.loads((folder / "d.json").read_text(encoding="utf-8")), folder


def test_float32_does_not_drift_in_any_regime(made):
    """Far within the bar. What is renewed or forgotten errs no more at the end than after 1,000 tokens; where nothing
    is, roundings add up as a random walk does, like the root of the number of frames, and no faster."""
    _, found, _ = made
    assert found["within"]
    assert found["tokens"] >= 19_000
    for regime in REGIMES:
        rows = [row for row in found["rows"] if (row["way"], row["regime"]) == ("float32", regime)]
        assert rows[-1]["tokens"] == found["tokens"]
        early = max(row["state"] for row in rows if row["tokens"] <= 1024)
        for row in rows:
            walk = (row["tokens"] / 1024) ** 0.5 if regime == "remembered" else 1
            assert row["state"] < min(1e-5, 2 * early * max(1, walk)), regime
            assert row["out"] < 1e-5, regime


def test_a_state_rounded_after_every_frame_is_a_thousand_times_worse(made):
    errors = {(row["way"], row["regime"]): row["largest_state"] for row in made[1]["summary"]}
    for regime in REGIMES:
        assert errors["bfloat16 state", regime] > 1000 * errors["float32", regime]


def test_what_is_printed_and_drawn_is_what_is_written(made):
    out, found, folder = made
    assert out == drift_report.report(found)
    assert all(regime in out for regime in REGIMES)
    assert drift_report.digest(found).encode() in (folder / "d.png").read_bytes()


def test_a_state_that_leaks_is_found(monkeypatch, capsys):
    """One part in 10,000 a frame: within the bar in any one frame, but where nothing is renewed it adds up."""
    ways = drift.ways("cpu")

    def leaking(*args, **arguments):
        out, state = ways["float32"](*args, **arguments)
        return out, (1 + 1e-4) * state

    monkeypatch.setattr(drift, "ways", lambda _: {"float32": leaking})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["bench", "drift", "--tokens", "5120"]) == 1
    assert "LEAVES" in capsys.readouterr().out


def test_a_state_that_is_no_number_is_not_within():
    row = {"tokens": 256, "way": "float32", "regime": "α = 1", "out": 0.0}
    (summary,) = drift.summarised([row | {"state": 1e-7}, row | {"state": float("nan")}, row | {"state": 1e-7}])
    assert not summary["largest_state"] <= drift.BAR


def test_a_wrong_oracle_is_found(monkeypatch):
    """The steps that a GPU would replay are held against the oracle of all tests."""
    monkeypatch.setattr(drift, "unit", lambda k: k)
    with pytest.raises(RuntimeError, match="is not that of"):
        drift.measure(1, **WIDTHS)


@given(frames=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_exact_state_is_the_recurrence_s(frames, seed):
    with torch.no_grad():
        source = Source(4, 3, "cpu", seed)
        exact, state = drift.Exact(Source(4, 3, "cpu").frame(), 3), None
        for _ in range(frames):
            frame = source.frame()
            exact.absorb(frame)
            exact_frame = {name: x.double() for name, x in frame.items()}
            _, state = recurrent(**exact_frame, state=state, normalize_qk=True)
        close(exact.state, state[0], tolerance=1e-12)


@given(seed=st.integers(0, 99))
def test_each_regime_is_what_it_says(seed):
    source = Source(4, 3, "cpu", seed)
    one, other = source.frame(), source.frame()

    def equal(name, regime):
        return torch.equal(one[name][:, :, own(regime)], other[name][:, :, own(regime)])

    for regime in REGIMES:
        still = regime.startswith("still")
        assert [equal(name, regime) for name in ("q", "v")] == [still, still]
        assert equal("k", regime) == (still or regime == "one key")
        alpha, beta = one["log_decay"][:, :, own(regime)].exp(), one["beta"][:, :, own(regime)]
        assert bool((alpha == 1).all()) == (regime in ("still, α = 1", "α = 1", "remembered"))
        if regime in ("still video", "one key"):
            assert 0.9989 < alpha.min() < alpha.max() < 1
        assert 0 <= beta.min() <= beta.max() <= 1
    for frame, regime in ((one, "one key"), (other, "one key"), (other, "remembered"), (source.frame(), "remembered")):
        k = frame["k"][0, :, own(regime)]
        assert torch.equal(k, k[:1].expand_as(k))
    assert one["k"][0, :, own("remembered")].float().std(0).min() > 0
    assert one["log_decay"][:, :, own("after training")].min() < -1
    assert all(one[name].dtype == torch.bfloat16 for name in "qkv")
    assert all(one[name].dtype == torch.float32 for name in ("log_decay", "beta"))
    assert one["q"].shape[1] == FRAME


@given(frames=st.integers(1, 5000))
def test_states_are_compared_from_the_first_frame_to_the_last(frames):
    compared = drift.moments(frames)
    assert {1, frames} <= compared
    assert all(1 <= number <= frames for number in compared)
    assert len(compared) <= drift.POINTS + 13


@pytest.mark.parametrize("words", [["--tokens", "255"], ["--tokens", "few"]], ids=" ".join)
def test_numbers_that_make_no_sense_are_refused(capsys, words):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", "drift", *words])
    assert "--tokens" in capsys.readouterr().err


def test_the_page_shows_the_run_in_docs():
    found = json.loads((DOCS / "drift.json").read_text(encoding="utf-8"))
    text = (DOCS / "streaming-speed.md").read_text(encoding="utf-8")
    assert page.with_figures(text, "drift", drift_report.report(found)) == text
    assert drift_report.digest(found).encode() in (DOCS / "drift.png").read_bytes()
    assert found["tokens"] > 1_000_000
    assert found["within"]


@pytest.mark.gpu
def test_the_kernels_do_not_drift_either():
    found = drift.measure(80, K=128, V=256, device="cuda")
    assert found["within"]
    for row in found["summary"]:
        if row["way"] == "bfloat16 products":  # one key's value is a sum of 64 differences, each of them rounded
            assert row["largest_state"] < (5e-2 if row["regime"] == "one key" else 1e-2)
            assert row["largest_state"] < 2 * row["first_state"]
