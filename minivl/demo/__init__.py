"""`python -m minivl demo`: the small trained model looks at pictures and watches a stream, and answers.

With --ladder, what the model is built from: the ladder of ops, and a small block with random weights. Either runs on a
CPU in under a minute, with no network.
"""

import argparse
import importlib
from pathlib import Path

from ..commands.options import whole

SHOWS = {  # each demo's module, and its own options with their defaults
    "watching": {"model": "tiny", "frames": 576, "seed": 0, "report": Path("out/demo.html")},
    "ladder": {"tokens": 65536, "report": Path("out/demo.png")},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR", help="a checkpoint that knows the tiny world (default: tiny, ours)")
    parser.add_argument("--frames", type=whole, metavar="N", help="length of the stream (default: 576)")
    parser.add_argument("--seed", type=int, metavar="N", help="other pictures and another stream (default: 0)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="default: out/demo.html; of --ladder, out/demo.png")
    parser.add_argument("--ladder", action="store_true", help="show the ops and one block with random weights instead")
    parser.add_argument("--tokens", type=int, metavar="N", help="of --ladder: length of its stream (default: 65536)")


def run(args: argparse.Namespace) -> int:
    show, other = ("ladder", "watching") if args.ladder else ("watching", "ladder")
    for name in SHOWS[other].keys() - SHOWS[show].keys():
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} belongs to the demo {'without' if args.ladder else 'with'} --ladder")
    for name, default in SHOWS[show].items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    return importlib.import_module(f"{__name__}.{show}").run(args)
