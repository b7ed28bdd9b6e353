"""The benchmark measures what it says: its figures, its ratios, its peer, its memory."""

import json
import math
import re
import types

import pytest
import torch

from minivl import __main__ as cli
from minivl.bench import growth, measure, ops
from minivl.bench.ladder import LADDER, Inputs, relative_error

ROW = {
    "rung": str,
    "form": str,
    "milliseconds": float,
    "fastest_milliseconds": float,
    "times_faster_than_naive": float,
    "error_out": float,
    "error_state": (float, types.NoneType),
}
POINT = {
    "name": str,
    "T": int,
    "milliseconds": float,
    "fastest_milliseconds": float,
    "peak_bytes": int,
    "carried_bytes": int,
}


def no_peer():
    return None, "transformers is not here"


def slow_copy_of_ours():
    """Stands for transformers' function: the recurrence, which gives the same answer more slowly."""
    return LADDER[ops.GATED].naive, "0.0"


@pytest.fixture
def bench(capsys, monkeypatch, tmp_path):
    """Run a quick benchmark with this peer; return what it printed and its JSON."""

    def run(peer, *words: str):
        monkeypatch.setattr(ops, "peer", peer)
        path = tmp_path / "figures.json"
        assert cli.main(["bench", "ops", "--quick", "--json", str(path), *words]) == 0
        return capsys.readouterr().out, json.loads(path.read_text(encoding="utf-8"))

    return run


def test_every_form_has_its_times_ratio_and_errors(bench):
    out, figures = bench(slow_copy_of_ours)
    assert {"machine", "shape", "dtype", "rounds", "rows", "peer"} == set(figures)
    assert {"cpu", "cores", "threads", "torch", "python"} <= set(figures["machine"])
    assert torch.__version__ in out.splitlines()[0]
    named = {(row["rung"], row["form"]) for row in figures["rows"]}
    assert named == {(name, form) for name, rung in LADDER.items() for form in (rung.naive_name, rung.fast_name)} | {
        (ops.GATED, ops.PEER)
    }
    for row in figures["rows"]:
        assert {key: type(row[key]) for key in row if not isinstance(row[key], ROW[key])} == {}
        assert set(row) == set(ROW)
        assert 0 < row["fastest_milliseconds"] <= row["milliseconds"]
        assert 0 < row["error_out"] < 1e-5
        assert row["form"] in out


def test_ratios_are_quotients_of_the_times_beside_them(bench):
    out, figures = bench(slow_copy_of_ours)
    time = {(row["rung"], row["form"]): row["milliseconds"] for row in figures["rows"]}
    for row in figures["rows"]:
        naive = time[row["rung"], LADDER[row["rung"]].naive_name]
        assert math.isclose(row["times_faster_than_naive"], naive / row["milliseconds"])
    assert figures["peer"]["status"] == "compared"
    assert math.isclose(figures["peer"]["ratio"], time[ops.GATED, ops.PEER] / time[ops.GATED, "chunked"])
    assert f"takes {figures['peer']['ratio']:.2f} times as long" in out


def test_a_missing_peer_is_not_compared(bench):
    out, figures = bench(no_peer)
    assert "transformers: not compared: transformers is not here" in out
    assert figures["peer"] == {"status": "not compared", "reason": "transformers is not here"}
    assert not re.search(r"\bok\b|times as long", out)


def test_a_peer_that_cannot_be_imported_says_why(monkeypatch):
    monkeypatch.setattr(ops, "PEER_MODULE", "transformers.models.no_such_model.modeling")
    form, said = ops.peer()
    assert form is None
    assert "not installed" in said


def test_a_wrong_form_shows_in_its_error(bench):
    def wrong():
        return lambda x: tuple(1.01 * y for y in LADDER[ops.GATED].naive(x)), "0.0"

    _, figures = bench(wrong)
    error = next(row["error_out"] for row in figures["rows"] if row["form"] == ops.PEER)
    assert math.isclose(error, 0.01, rel_tol=1e-3)


def test_growth_is_measured_and_drawn(bench, tmp_path):
    plot = tmp_path / "growth.png"
    out, figures = bench(no_peer, "--tokens", "64,128", "--plot", str(plot))
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert f"plot: {plot}" in out
    points = figures["growth"]["points"]
    assert {(point["name"], point["T"]) for point in points} == {(name, T) for name in growth.STYLES for T in (64, 128)}
    for point in points:
        assert {key: type(point[key]) for key in point if not isinstance(point[key], POINT[key])} == {}
        assert set(point) == set(POINT)


def test_softmax_carries_all_its_past_and_the_rungs_a_constant():
    short, long = (growth.measure([T], rounds=1) for T in (128, 512))
    size = {
        point["name"]: (point["carried_bytes"], later["carried_bytes"])
        for point, later in zip(short, long, strict=True)
    }
    shape = growth.SHAPE
    state = 4 * shape["H"] * shape["K"] * shape["V"]
    for name, (before, after) in size.items():
        assert after == (4 * before if name.startswith("softmax") else before), name
    assert size["gated delta rule"] == (state, state)
    peak = {point["name"]: later["peak_bytes"] / point["peak_bytes"] for point, later in zip(short, long, strict=True)}
    assert peak["softmax, written out"] > 10  # T × T, and T times four
    assert all(3 < ratio < 6 for name, ratio in peak.items() if name in LADDER and name != "sliding window")


def test_peak_bytes_counts_what_is_held_at_once():
    x = torch.randn(1000, 1000)  # 4 MB
    slack = 10_000
    assert 0 <= measure.peak_bytes(lambda: x * 2) - 4_000_000 < slack
    assert 0 <= measure.peak_bytes(lambda: (x * 2).sum()) - 4_000_000 < slack
    assert 0 <= measure.peak_bytes(lambda: ((x * 2) * 2) * 2) - 8_000_000 < slack
    assert 0 <= measure.peak_bytes(lambda: [x * 2, x * 3, x * 4]) - 12_000_000 < slack
    assert measure.peak_bytes(lambda: x.T) < slack


def test_rounds_are_interleaved_and_slow_runs_sit_out(monkeypatch):
    calls, now = [], [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def lasting(name, seconds):
        def run():
            calls.append(name)
            now[0] += seconds

        return run

    seconds = measure.interleaved(
        {"a": lasting("a", 0.1), "b": lasting("b", 0.2), "slow": lasting("slow", 2.0)}, rounds=8, label=""
    )
    assert {name: len(times) for name, times in seconds.items()} == {"a": 8, "b": 8, "slow": 4}
    assert all(math.isclose(t, 0.1) for t in seconds["a"])
    assert (
        "".join(name[0] for name in calls if name != "slow").count("aaaa") <= 6
    )  # never all of one, then all of the other
    assert calls.count("slow") == 5  # warmed once, in the round that found it slow


def test_every_fast_form_gives_its_naive_form_s_answer():
    x = Inputs.random(B=2, T=130, H=2, K=16, V=24, window=50).double()
    for name, rung in LADDER.items():
        for fast, naive in zip(rung.fast(x), rung.naive(x), strict=True):
            error = relative_error(fast, naive)
            assert error is None or error < 1e-10, name
