"""`python -m minivl train tiny`: the tiny model from nothing, what it reached, and its checkpoint in bf16.

What is scored is the copy in bf16, since that is what others load. A command that was broken off goes on where it was;
one that had finished scores again.
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path

import torch

from ..bench.measure import machine
from ..checkpoint import load, load_model, save_model, usable_device
from ..train import progress, tiny
from ..train.handing_over import digest
from ..train.splits import HELD_OUT, HELD_OUT_FONTS
from ..train.tiny_scores import as_dict, scores, table
from ..train.trainer import LOG
from .options import whole

COPY, SCORES = "tiny", "scores.json"
QUESTIONS = {"cpu": 50, "gpu": 200}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/tiny"), metavar="DIR", help="default: out/tiny")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and data (default: 0)")
    parser.add_argument("--device", metavar="NAME", help="default: cuda where there is a GPU, else cpu")
    parser.add_argument(
        "--budget",
        choices=QUESTIONS,
        help="steps and batches: those for two CPU cores, or those for a GPU (default: the device's)",
    )
    parser.add_argument(
        "--questions",
        type=whole,
        metavar="N",
        help=f"that each score is of (default: {QUESTIONS['gpu']} on a GPU, {QUESTIONS['cpu']} on a CPU)",
    )


def run(args: argparse.Namespace) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("train tiny runs in one process; start it without torchrun")
    device = usable_device(args.device)
    budget = budget_of(args.budget, args.device)
    result = tiny.train(args.out, budget, seed=args.seed, device=args.device)
    seconds = {stage: spent(args.out / stage) for stage in tiny.STAGES}
    print("seconds: " + ", ".join(f"{stage} {time:.0f}" for stage, time in seconds.items()))

    copy = args.out / COPY
    save_model(load_model(result, device="cpu", dtype=torch.bfloat16), copy, processor_from=result)
    size = sum(path.stat().st_size for path in copy.iterdir()) / 1e6
    print(f"the checkpoint, in bf16: {copy}, {size:.1f} MB")

    number = args.questions or QUESTIONS["gpu" if device.type == "cuda" else "cpu"]
    print(f"scoring, {number} questions of each kind …", flush=True)
    model, processor = load(copy, device=args.device, dtype=torch.float32)
    several = [scores(model, processor, split, number=number) for split in (HELD_OUT, HELD_OUT_FONTS)]
    print(table(several))
    found = {
        "weights": digest(copy),
        "megabytes": round(size, 2),
        "seed": args.seed,
        "budget": dataclasses.asdict(budget),
        "seconds": {stage: round(time, 1) for stage, time in seconds.items()},
        "on": machine() | {"gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None},
        "questions": number,
        "scores": as_dict(several),
    }
    (args.out / SCORES).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"scores: {args.out / SCORES}")


def budget_of(name: str | None, device: str | None) -> tiny.Budget:
    """The device's own budget, or this one with as many workers as the device's has."""
    own = tiny.pick(device)
    return own if name is None else dataclasses.replace({"cpu": tiny.CPU, "gpu": tiny.GPU}[name], workers=own.workers)


def spent(out: Path) -> float:
    """The seconds of all steps of a run, however often it was broken off."""
    return sum(float(row["seconds"]) for row in progress.rows(out / LOG))
