"""`python -m minivl train WHAT`: a stage on data of your own, the tiny model and its scores, the paper's claims.

Each stage is a command, so that the same line runs alone and under torchrun. What the 4B model's training needs in
memory and time can be asked for before anything is trained.
"""

import argparse
import importlib

from . import train_stage

TRAININGS = {
    "tiny": ("minivl.commands.train_tiny", "make the tiny model from nothing, through all stages, and score it"),
    "scores": ("minivl.commands.train_scores", "score a checkpoint of the tiny model's kind on held-out data"),
    "claims": ("minivl.train.claims", "train many tiny models side by side, and hold the paper's claims against them"),
    "estimate": ("minivl.train.estimate", "compute what each stage of the 4B model needs in memory and time"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    trainings = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, (module_name, summary) in TRAININGS.items():
        module = importlib.import_module(module_name)
        training = trainings.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        module.add_arguments(training)
        training.set_defaults(train=module.run)
    for name, summary in train_stage.STAGES.items():
        training = trainings.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        train_stage.add_arguments(training, name)
        training.set_defaults(train=train_stage.run)


def run(args: argparse.Namespace) -> int | None:
    return args.train(args)
