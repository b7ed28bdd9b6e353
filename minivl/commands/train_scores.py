"""`python -m minivl train scores`: what a checkpoint of the tiny model's kind reaches on data that no training has.

Both held-out splits, all kinds of questions, and facts of streams from up to 64 windows back: the table of
`train tiny`, for any checkpoint that sees the tiny world's pictures as it does.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from ..bench.files import make_ready
from ..bench.measure import machine
from ..checkpoint import load, usable_device
from ..source import checkpoint_folder
from ..train.handing_over import digest
from ..train.splits import HELD_OUT, HELD_OUT_FONTS
from ..train.tiny_scores import as_dict, scores, table
from .options import whole

QUESTIONS = {"cpu": 50, "gpu": 200}
SECONDS = 5  # that a question of each kind took on two CPU cores, in both splits together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", metavar="DIR", help="a checkpoint's folder (default: tiny)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write all scores to FILE.json")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that `train tiny` has, too."""
    parser.add_argument("--device", metavar="NAME", help="default: cuda where there is a GPU, else cpu")
    parser.add_argument(
        "--questions",
        type=whole,
        metavar="N",
        help=f"that each score is of (default: {QUESTIONS['gpu']} on a GPU, {QUESTIONS['cpu']} on a CPU)",
    )


def run(args: argparse.Namespace) -> None:
    if args.out:
        make_ready(args.out)
    found = scored(checkpoint_folder(args.model), device=args.device, number=args.questions)
    if args.out:
        write(args.out, found)


def scored(folder: Path, *, device: str | None = None, number: int | None = None) -> dict:
    """The scores of a checkpoint, computed in float32 and printed as a table; and all that tells where they are of."""
    gpu = usable_device(device).type == "cuda"
    number = number or QUESTIONS["gpu" if gpu else "cpu"]
    on = machine() | {"gpu": torch.cuda.get_device_name() if gpu else None}
    model, processor = load(folder, device=device, dtype=torch.float32)
    asked = f"{number} question{'' if number == 1 else 's'} of each kind"
    wait = "" if gpu else f", {math.ceil(number * SECONDS / 60)} min or so on two cores"
    print(f"scoring {folder}, {asked}{wait} …", flush=True)
    several = []
    for split in (HELD_OUT, HELD_OUT_FONTS):
        several.append(scores(model, processor, split, number=number))
        print(f"{split}: done", flush=True)
    print(table(several))
    return {
        "weights": digest(folder),
        "megabytes": round(megabytes(folder), 2),
        "on": on,
        "questions": number,
        "scores": as_dict(several),
    }


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6


def write(path: Path, found: dict) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"scores: {path}")
