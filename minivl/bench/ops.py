"""`bench ops`: each rung's naive form, its fast form, and transformers' gated delta rule where it is installed.

All in one run, with the error of each against the float64 recurrence beside its time: a fast form that is wrong is no
fast form. transformers is no requirement of MiniVL; without it the comparison says "not compared".
"""

import argparse
import functools
import importlib.metadata
import json
import statistics
import sys
from pathlib import Path

import torch

from . import growth
from .files import make_ready
from .ladder import LADDER, Form, Inputs, relative_error
from .measure import describe, interleaved, machine

SHAPE = {"B": 1, "T": 2048, "H": 16, "K": 128, "V": 256, "window": 256}
QUICK_SHAPE = {"B": 1, "T": 200, "H": 2, "K": 32, "V": 64, "window": 64}
LENGTHS = [256, 512, 1024, 2048, 4096, 8192, 16384]
QUICK_LENGTHS = [64, 128, 256]
BAR, GOAL = 1.5, 2.0  # how many times as long transformers' should take as ours, at SHAPE on two cores

GATED = "gated delta rule"
PEER = "torch_chunk_gated_delta_rule"
PEER_MODULE = "transformers.models.qwen3_next.modeling_qwen3_next"


def lengths(text: str) -> list[int]:
    """ "256,512" → [256, 512] (argparse names this function in its error)."""
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise ValueError
    return sorted(set(numbers))


def rounds(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="small shapes and few rounds: a check, not a measurement")
    parser.add_argument("--rounds", type=rounds, metavar="N", help="rounds to time (default: 15; 3 with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw time and memory against T into FILE.png")
    parser.add_argument(
        "--tokens",
        type=lengths,
        metavar="T,T,…",
        help=f"lengths T to measure time and memory at (default: {','.join(map(str, LENGTHS))})",
    )


def peer() -> tuple[Form | None, str]:
    """transformers' function as a form, and its version; or None, and why there is none."""
    try:
        module = importlib.import_module(PEER_MODULE)
        function = getattr(module, PEER)
    except (ImportError, AttributeError) as error:
        return None, f"transformers with {PEER_MODULE.split('.')[2]} is not installed ({error})"

    def form(x: Inputs):
        return function(  # it scales by K^-0.5 itself, as x.scale does
            x.q, x.k, x.v, x.log_decay, x.beta, output_final_state=True, use_qk_l2norm_in_kernel=True
        )

    return form, importlib.metadata.version("transformers")


def forms(peer_form: Form | None) -> dict[tuple[str, str], Form]:
    """All that is measured, by rung and form."""
    found = {}
    for name, rung in LADDER.items():
        found |= {(name, rung.naive_name): rung.naive, (name, rung.fast_name): rung.fast}
    return found | ({(GATED, PEER): peer_form} if peer_form else {})


def measure(shape: dict, *, rounds: int, peer_form: Form | None) -> list[dict]:
    """One record for each form of each rung: its times, its ratio to the rung's naive form, its errors."""
    x = Inputs.random(**shape)
    runs = {key: functools.partial(form, x) for key, form in forms(peer_form).items()}
    say(f"timing {rounds} rounds of {len(runs)} forms")
    seconds = interleaved(runs, rounds=rounds, label="timing")
    rows = []
    for name, rung in LADDER.items():
        say(f"checking {name} against its float64 oracle")
        with torch.no_grad():
            oracle = rung.naive(x.double())
            answers = {key: run() for key, run in runs.items() if key[0] == name}
        naive = statistics.median(seconds[name, rung.naive_name])
        for key, (out, state) in answers.items():
            rows.append(
                {
                    "rung": name,
                    "form": key[1],
                    "milliseconds": 1e3 * statistics.median(seconds[key]),
                    "fastest_milliseconds": 1e3 * min(seconds[key]),
                    "times_faster_than_naive": naive / statistics.median(seconds[key]),
                    "error_out": relative_error(out, oracle[0]),
                    "error_state": relative_error(state, oracle[1]),
                }
            )
    return rows


def compare(rows: list[dict], peer_said: str) -> dict:
    """How many times as long transformers' takes as our chunked form, by medians and by fastest rounds."""
    own, *others = (row for form in ("chunked", PEER) for row in rows if row["rung"] == GATED and row["form"] == form)
    if not others:
        return {"status": "not compared", "reason": peer_said}
    return {
        "status": "compared",
        "version": peer_said,
        "ratio": others[0]["milliseconds"] / own["milliseconds"],
        "ratio_of_fastest": others[0]["fastest_milliseconds"] / own["fastest_milliseconds"],
    }


def table(rows: list[dict]) -> str:
    head = f"{'':18}{'':30}{'median, ms':>12}{'fastest, ms':>13}{'× naive':>9}{'error, out':>12}{'error, state':>14}"
    lines = [head]
    for row in rows:
        state = "–" if row["error_state"] is None else f"{row['error_state']:.1e}"
        lines.append(
            f"{row['rung']:18}{row['form']:30}{row['milliseconds']:12.2f}{row['fastest_milliseconds']:13.2f}"
            f"{row['times_faster_than_naive']:9.1f}{row['error_out']:12.1e}{state:>14}"
        )
    return "\n".join(lines)


def verdict(comparison: dict, quick: bool) -> str:
    if comparison["status"] == "not compared":
        return f"transformers: not compared: {comparison['reason']}"
    bar = "shapes of --quick, so no bar" if quick else f"bar {BAR}, goal {GOAL}"
    return (
        f"transformers {comparison['version']}: its {PEER} takes {comparison['ratio']:.2f} times as long as chunked "
        f"by medians, {comparison['ratio_of_fastest']:.2f} by fastest rounds ({bar})"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> None:
    if args.json:
        make_ready(args.json)
    if args.plot:
        make_ready(args.plot, ".png", ".svg", ".pdf")
        importlib.import_module("matplotlib")  # a missing one is told now, not after the measuring
    shape = QUICK_SHAPE if args.quick else SHAPE
    rounds = args.rounds or (3 if args.quick else 15)
    on = machine()
    letters = ", ".join(f"{letter} {size:,}" for letter, size in shape.items())
    print(f"{describe(on)}\n{letters}, float32, forward only, {rounds} rounds; errors against float64\n", flush=True)
    say("looking for transformers")
    peer_form, peer_said = peer()
    rows = measure(shape, rounds=rounds, peer_form=peer_form)
    comparison = compare(rows, peer_said)
    print(f"{table(rows)}\n\n{verdict(comparison, args.quick)}", flush=True)

    record = {"machine": on, "shape": shape, "dtype": "float32", "rounds": rounds, "rows": rows, "peer": comparison}
    if args.plot or args.tokens:
        say("timing, and tracing memory, against T")
        points = growth.measure(args.tokens or (QUICK_LENGTHS if args.quick else LENGTHS), rounds=min(rounds, 5))
        record["growth"] = {"shape": growth.SHAPE, "definitions": growth.PANELS, "points": points}
        print(f"\n{growth.table(points)}", flush=True)
    if args.plot:
        growth.plot(points, args.plot, describe(on))
        print(f"\nplot: {args.plot}")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")
        print(f"figures: {args.json}")
