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

from ..checkpoint import load_model, save_model, usable_device
from ..train import progress, tiny
from ..train.trainer import LOG
from .train_scores import add_options, megabytes, scored, write

COPY, SCORES = "tiny", "scores.json"
BUDGETS = {"cpu": tiny.CPU, "gpu": tiny.GPU}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out/tiny"), metavar="DIR", help="default: out/tiny")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and data (default: 0)")
    add_options(parser)
    parser.add_argument(
        "--budget",
        choices=BUDGETS,
        help="steps and batches: those for two CPU cores, or those for a GPU (default: the device's)",
    )


def run(args: argparse.Namespace) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("train tiny runs in one process; start it without torchrun")
    usable_device(args.device)
    budget = budget_of(args.budget, args.device)
    result = tiny.train(args.out, budget, seed=args.seed, device=args.device)
    made = account(args.out)
    print("seconds: " + ", ".join(f"{stage} {time:.0f}" for stage, time in made["seconds"].items()))

    copy = args.out / COPY
    save_model(load_model(result, device="cpu", dtype=torch.bfloat16), copy, processor_from=result)
    print(f"the checkpoint, in bf16: {copy}, {megabytes(copy):.1f} MB")
    write(args.out / SCORES, scored(copy, device=args.device, number=args.questions) | made)


def budget_of(name: str | None, device: str | None) -> tiny.Budget:
    """The device's own budget, or this one with as many workers as the device's has."""
    own = tiny.pick(device)
    return own if name is None else dataclasses.replace(BUDGETS[name], workers=own.workers)


def account(out: Path) -> dict:
    """What a run was given, and each stage's steps and their seconds so far, however often it was broken off."""
    given = Path(out) / "start" / tiny.BUDGET
    if not given.is_file():
        raise FileNotFoundError(f"{out} has no start/{tiny.BUDGET}; it should be what train tiny left")
    budget = json.loads(given.read_text(encoding="utf-8"))
    logs = {stage: rows for stage in tiny.STAGES if (rows := progress.rows(Path(out) / stage / LOG))}
    return {
        "seed": budget.pop("seed"),
        "budget": budget,
        "steps": {stage: len(rows) for stage, rows in logs.items()},
        "seconds": {stage: round(sum(float(row["seconds"]) for row in rows), 1) for stage, rows in logs.items()},
    }
