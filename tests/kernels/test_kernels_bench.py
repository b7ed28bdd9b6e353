"""The kernels' benchmark says what it measured: peers that are there, that are missing and that refuse, their errors
beside ours, and heads laid out anew that compute the same rule. No GPU: what is timed is replaced."""

import functools
import json
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import bench, bench_errors, bench_peers, bench_report
from kernels.bench_peers import Library
from minivl.ops.gated_delta_rule import recurrent
from tests.regimes import BY_NAME, Shape, wide
from tests.tolerances import relative_error

EXACT = functools.partial(recurrent, scale=bench_peers.SCALE, normalize_qk=True)


def refuse(*_, **__):
    raise RuntimeError("not on\n  this card")


class RefusesBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no gradients here")


def with_backward_refused(**case):
    return tuple(RefusesBackward.apply(x) for x in EXACT(**case))


def as_double(case):
    return {name: x.double() for name, x in case.items()}


def one_percent_off(**case):
    out, state = EXACT(**case)
    return 1.01 * out, state


@pytest.fixture
def small(monkeypatch):
    """Cases of a few tokens, on a machine without a GPU."""
    monkeypatch.setattr(bench_errors, "DEVICE", "cpu")
    monkeypatch.setattr(bench_errors, "LENGTH", 4)

    def inputs(T, *, batch=1, seed=0):
        return bench_errors.wide(bench_errors.Draw(seed), batch, min(T, 4))

    monkeypatch.setattr(bench, "inputs", inputs)


@given(B=st.integers(1, 2), T=st.integers(1, 9), H=st.integers(1, 3), parts=st.integers(1, 3), seed=st.integers(0, 999))
def test_heads_laid_out_anew_compute_the_same_rule_and_gradients(B, T, H, parts, seed):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bench_peers, "WIDEST_OF_FLASH_QLA", 4)
        leaves = {name: x.requires_grad_() for name, x in wide(Shape(B, T, H, 6, 4 * parts), seed).items()}
        fitted = bench_peers.narrow_heads(leaves)
        assert fitted["v"].shape == (B, T, parts * H, 4)
        assert fitted["state"].shape == (B, parts * H, 6, 4)
        grouped = {name: fitted[name].repeat_interleave(parts, 2) for name in "qk"}  # as FlashQLA groups heads
        results = bench_peers.joined_heads(*recurrent(**fitted | grouped), heads=H)
        wanted = recurrent(**leaves)
    seeds = [torch.randn_like(x) for x in wanted]
    found = [*results, *torch.autograd.grad(results, list(leaves.values()), seeds)]
    wanted = [*wanted, *torch.autograd.grad(wanted, list(leaves.values()), seeds)]
    for x, y in zip(found, wanted, strict=True):
        assert x.shape == y.shape
        assert relative_error(x, y) < 1e-12


def test_a_peer_that_is_not_here_says_so(monkeypatch):
    peers = {"FLA": ("no_such_package", refuse), "FlashQLA": ("json", refuse)}
    monkeypatch.setattr(bench_peers, "PEERS", peers)
    found, missing = bench_peers.libraries()
    assert list(found) == ["MiniVL"]
    assert missing == {
        "FLA": "the package no_such_package is not installed",
        "FlashQLA": "RuntimeError: not on this card",
    }


def test_a_peer_may_refuse_and_ours_may_not():
    assert Library(refuse).attempt(refuse) == (None, "RuntimeError: not on this card")
    assert Library(refuse).attempt(lambda: 3) == (3, None)
    with pytest.raises(RuntimeError, match="this card"):
        bench_peers.ours().attempt(refuse)


@pytest.fixture
def fake_fla(monkeypatch):
    """FLA with the check that refuses its backward on a Hopper card."""
    check = ModuleType("fla.ops.common.chunk_o")
    check.IS_NVIDIA_HOPPER, check.TRITON_ABOVE_3_4_0, check.TRITON_ABOVE_3_7_1 = True, True, False
    rules = SimpleNamespace(chunk_gated_delta_rule=refuse, fused_recurrent_gated_delta_rule=refuse)
    modules = {"fla": None, "fla.ops": None, "fla.ops.common": SimpleNamespace(chunk_o=check)}
    for name, module in (modules | {"fla.ops.gated_delta_rule": rules}).items():
        monkeypatch.setitem(sys.modules, name, module or ModuleType(name))
    monkeypatch.setattr(bench_peers, "version", lambda package: "0.0")
    monkeypatch.delenv("FLA_TILELANG", raising=False)
    return check


def test_fla_s_check_is_off_only_while_its_forced_form_runs(fake_fla):
    forced = bench_peers.fla_forced()
    assert forced.backward_only
    assert "check for this card switched off" in forced.note
    seen, _ = forced.attempt(lambda: (fake_fla.TRITON_ABOVE_3_7_1, os.environ["FLA_TILELANG"]))
    assert seen == (True, "0")
    forced.attempt(refuse)
    assert not fake_fla.TRITON_ABOVE_3_7_1
    assert "FLA_TILELANG" not in os.environ


@pytest.mark.parametrize("name", ["IS_NVIDIA_HOPPER", "TRITON_ABOVE_3_4_0", "TRITON_ABOVE_3_7_1"])
def test_nothing_is_forced_where_fla_refuses_nothing(fake_fla, name):
    setattr(fake_fla, name, not getattr(fake_fla, name))
    with pytest.raises(RuntimeError, match="nothing is forced"):
        bench_peers.fla_forced()


def test_peers_get_the_normalisation_the_states_and_the_scale():
    def function(q, k, v, **options):
        asked = {"use_qk_l2norm_in_kernel": True, "output_final_state": True, "scale": bench_peers.SCALE}
        assert options == {"g": 4, "beta": 5, "initial_state": 6} | asked
        return q, k, v

    assert bench_peers.foreign(function)(1, 2, 3, 4, 5, 6) == (1, 2, 3)


@pytest.mark.parametrize("title", bench_errors.REGIMES)
def test_every_regime_of_the_benchmark_is_one_of_the_tests(title, small):
    assert any(name.startswith(title.replace(" ", "_")) for name in BY_NAME)
    case = bench_errors.REGIMES[title](bench_errors.Draw(0), 1, 60)
    assert (case["log_decay"] <= 0).all()
    assert ((case["beta"] > 0) & (case["beta"] < 1)).all()
    k = torch.nn.functional.normalize(case["k"].float(), dim=-1)[0].transpose(0, 1)
    cosine = (k @ k.mT).mean().item()
    lowest, highest = {"correlated": (0.87, 0.93), "static": (0.99, 1.01)}.get(title, (-0.1, 0.5))
    assert lowest < cosine < highest


@pytest.fixture
def wanted(small):
    return bench_errors.exact(bench_errors.wide)


def test_errors_are_those_of_the_library(wanted):
    exact = bench_errors.in_regime(Library(EXACT, fit=as_double), wanted)
    assert set(exact) == {"out", "state", *(f"d_{name}" for name in ("q", "k", "v", "log_decay", "beta", "state"))}
    assert exact["out"] < 1e-12
    assert max(exact.values()) < 4e-3  # of gradients rounded to bfloat16
    off = bench_errors.in_regime(Library(one_percent_off, fit=as_double), wanted)
    assert off["out"] == pytest.approx(0.01)
    assert off["state"] < 1e-12


def test_a_refused_backward_leaves_the_forward_s_errors(wanted):
    found = bench_errors.in_regime(Library(with_backward_refused, fit=as_double), wanted)
    assert found["out"] < 1e-12
    assert {value for name, value in found.items() if name.startswith("d_")} == {None}
    assert set(bench_errors.in_regime(Library(refuse), wanted).values()) == {None}
    only = bench_errors.in_regime(Library(EXACT, fit=as_double, backward_only=True), wanted)
    assert (only["out"], only["state"]) == (None, None)
    assert only["d_q"] < 4e-3


@pytest.fixture
def run(monkeypatch, small):
    """A run's figures with these peers beside an exact rule of ours; every call is made once, and takes 1 ms."""

    def timed(library, run, cases, *, graph):
        _, refused = library.attempt(lambda: run(**cases[0]))
        return {"ms": None, "refused": refused} if refused else {"ms": 1.0}

    def figures(peers: dict, missing: dict) -> dict:
        found = {"MiniVL": Library(EXACT, EXACT, refusals=())} | peers
        monkeypatch.setattr(bench, "timed", timed)
        monkeypatch.setattr(bench.bench_decode, "FORMS", {})
        monkeypatch.setattr(bench.bench_decode, "case", lambda *_: {})
        return {
            "device": "a card", "torch": "2", "triton": "3", "processor": "a processor",
            "rows": bench.rows_of_lengths(found, [256, 2048]) + bench.rows_of_steps(found),
            "host_microseconds_at_256": {"bare launcher": 40.0}, "workspace_gb": 0.1,
            "errors": bench_errors.errors(found), "notes": {}, "missing": missing,
        }  # fmt: skip

    return figures


def test_the_table_of_a_run_with_peers_that_are_here_missing_and_refusing(run):
    peers = {
        "FLA": Library(with_backward_refused, refuse),
        "FLA forced": Library(EXACT, backward_only=True),
    }
    found = run(peers, {"FlashQLA": "the package flash_qla is not installed"})
    text = bench_report.table(found)
    assert json.loads(json.dumps(found)) == found
    assert "FlashQLA: not compared: the package flash_qla is not installed\n" in text
    assert text.count("FLA, forward + backward: not compared: RuntimeError: no gradients here\n") == 1
    assert "FLA, step: not compared: RuntimeError: not on this card\n" in text
    line = {words[0]: words[1] for words in (line.split("  ", 1) for line in text.splitlines()) if len(words) == 2}
    assert line["forward, T 256, graph"].split() == ["1.0000", "1.0000", "—", "1.00", "not", "compared"]
    assert line["forward + backward, T 2048, eager"].split() == ["1.0000", "—", "1.0000", "1.00", "not", "compared"]
    assert line["step, batch 8, eager"].split() == ["1.0000", "—", "—", "not", "compared", "not", "compared"]
    assert not any(word in text.split() for word in ("ok", "OK"))
    assert len([name for name in line if name.startswith("error, ")]) == 8 * len(bench_errors.REGIMES) + 1


def figures(times: dict, errors: dict) -> dict:
    rows = [{"what": "forward", "T": 64, "library": name, "graph": True, "ms": ms} for name, ms in times.items()]
    host = {"bare launcher": 40.0}
    return {
        "device": "a card", "torch": "2", "triton": "3", "rows": rows, "host_microseconds_at_256": host,
        "workspace_gb": 0.1, "errors": {name: {"wide out": error} for name, error in errors.items()},
    }  # fmt: skip


def test_ratios_are_ours_over_the_faster_rival_s():
    times = {"MiniVL": 3.0, "FLA": 6.0, "FLA forced": 4.0, "FlashQLA": 2.0}
    text = bench_report.table(figures(times, dict.fromkeys(times, 1e-3)))
    row = next(line for line in text.splitlines() if line.startswith("forward"))
    assert row.split()[-2:] == ["0.75", "1.50"]


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"FLA": 1e-3, "FlashQLA": 1e-3}, "ours is worse than FLA and FlashQLA"),
        ({"FLA": 3e-3, "FlashQLA": 1e-3}, "ours is worse than FlashQLA"),
        ({"FLA": 1.99e-3, "FlashQLA": float("nan")}, ""),
        ({"FLA": 2.1e-3, "FlashQLA": None}, ""),
        ({"MiniVL": float("nan"), "FLA": 2.1e-3, "FlashQLA": float("nan")}, "ours is worse than FLA"),
    ],
)
def test_the_table_says_where_a_peer_is_more_exact(theirs, said):
    errors = {"MiniVL": 2e-3} | theirs
    text = bench_report.table(figures(dict.fromkeys(errors, 1.0), errors))
    row = next(line for line in text.splitlines() if line.startswith("error"))
    assert row.endswith(said)
    assert ("worse" in row) == bool(said)


def test_one_command_makes_the_page_show_a_run(tmp_path):
    found = figures({"MiniVL": 3.0}, {"MiniVL": 1e-3})
    page, picture = tmp_path / "kernels.md", tmp_path / "kernels.png"
    (tmp_path / "kernels.json").write_text(json.dumps(found))
    page.write_text("before\n```console\nx\n```\n```text\nold\n```\nafter\n", encoding="utf-8")
    bench_report.renew(tmp_path / "kernels.json")
    shown = page.read_text(encoding="utf-8")
    assert shown == f"before\n```console\nx\n```\n```text\n{bench_report.table(found)}```\nafter\n"
    assert bench_report.digest(found).encode() in picture.read_bytes()
    bench_report.renew(tmp_path / "kernels.json")
    assert page.read_text(encoding="utf-8") == shown
    page.write_text("no block\n", encoding="utf-8")
    with pytest.raises(ValueError, match="one text block"):
        bench_report.renew(tmp_path / "kernels.json")


@pytest.mark.parametrize(
    ("ms", "verdict"),
    [(0.2, "goal reached"), (0.21, "bar met"), (0.295, "bar met"), (0.296, "bar missed")],
)
def test_the_table_says_which_bars_hold(ms, verdict):
    found = figures({"MiniVL": ms}, {"MiniVL": 1e-3})
    found["rows"][0]["T"] = 8192
    assert "bar" not in bench_report.table(found).replace("bare launcher", "")  # they are bars of an H200
    lines = bench_report.table(found | {"device": "NVIDIA H200"}).splitlines()
    said = {line[:44].strip(): line[77:].strip() for line in lines}
    assert said["forward, T 8192, graph, ms"] == verdict
    assert said["host time of the bare launcher, µs"] == "bar met"


def test_without_fla_a_ratio_is_no_bar_that_is_met():
    row = {"what": "forward + backward", "T": 2048, "library": "MiniVL", "graph": False, "ms": 1.0}
    found = figures({"MiniVL": 1.0}, {"MiniVL": 1e-3}) | {"device": "NVIDIA H200", "rows": [row]}
    lines = bench_report.table(found).splitlines()
    said = [line for line in lines if line.startswith("forward + backward, T 2048, to FLA")]
    assert [line.split("0.5")[-1].strip() for line in said] == ["not compared"]


def test_each_line_of_the_picture_has_its_own_colour():
    assert len(set(bench_report.FLOORS.values())) == len(bench_report.FLOORS)
