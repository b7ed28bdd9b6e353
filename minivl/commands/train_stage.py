"""`python -m minivl train layers|logits|tuning|long`: one stage on conversations in files, alone or under torchrun.

    python -m minivl train layers --from TEACHER --data rows.json --steps 1000
    python -m torch.distributed.run --nproc-per-node 8 -m minivl train layers …      the same in eight processes

Every field of Settings is an option, with the paper's value for the stage where it gives one. Bad rows are told: those
that a first look finds before training, a broken picture when its turn comes.
"""

import argparse
import dataclasses
import logging
import os
import re
from itertools import islice
from pathlib import Path

from ..checkpoint import usable_device
from ..processor import load_processor
from ..train import stages
from ..train.conversation_files import ConversationFile
from ..train.distributed import WAYS
from ..train.examples import Example
from ..train.freezing import LEARNS
from ..train.handing_over import PLOT, result_of
from ..train.settings import PAPER, Settings
from ..train.sources import Mixed
from .options import positive, whole

STAGES = {
    "layers": "stage 1a: a new student's linear layers learn, each alone, what the teacher's layers in their place do",
    "logits": "stage 1b: the whole student learns what the teacher would say next, at every token",
    "tuning": "stage 2: all mixers learn to say the answers, and the feed-forwards stay frozen",
    "long": "stage 3: adapters learn to answer after long sequences, and are merged into the weights at the end",
}
STARTS = {
    "layers": "the teacher: a checkpoint with full attention in every layer",
    "logits": "what layers has left: its --out",
    "tuning": "what logits has left: its --out",
    "long": "what tuning has left: its --out",
}
LONGEST = {"long": 32_768}  # the paper's
log = logging.getLogger(__name__)


def from_zero(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{number} is not at least 0")
    return number


NUMBERS = {  # of Settings
    "steps": (whole, "steps of the run"),
    "batch": (whole, "examples a step, of all processes together"),
    "at_once": (whole, "examples in one pass of one process"),
    "tokens_at_once": (whole, "instead of --at-once: a pass takes as many examples as fit into so many tokens"),
    "learning_rate": (float, "the highest that the rate climbs to"),
    "warmup": (float, "share of the steps in which it climbs"),
    "weight_decay": (float, "AdamW's, on matrices only"),
    "clip": (float, "a gradient that is longer is made so long"),
    "seed": (from_zero, "of new weights and of the data's order"),
    "workers": (from_zero, "processes that make examples ahead of time"),
    "save_every": (whole, "steps from checkpoint to checkpoint"),
}
SWITCHES = {
    "bf16": "products in bf16",
    "recompute": "run each layer again for its gradient, instead of remembering what is in it",
    "recorded": "replay passes as CUDA graphs, one for each shape: for small models on one GPU",
}
OWN = {  # of one stage
    "layers": {"factor": (positive, 1.0, "of the loss; the released code's is 1000")},
    "logits": {"temperature": (positive, 1.0, "that softens both distributions; the released code's is 2")},
    "tuning": {},
    "long": {"rank": (whole, 16, "of an adapter"), "alpha": (positive, 32.0, "an adapter counts alpha / rank times")},
}


def add_arguments(parser: argparse.ArgumentParser, stage: str) -> None:
    parser.set_defaults(stage=stage)
    # not --start: torchrun takes that for the beginning of an option of its own
    parser.add_argument("--from", dest="start", required=True, metavar="DIR", help=STARTS[stage])
    if stage == "logits":
        parser.add_argument("--teacher", required=True, metavar="DIR", help="the teacher that layers started from")
    parser.add_argument(
        "--data",
        required=True,
        action="append",
        type=shared,
        metavar="FILE",
        help="conversations in the ShareGPT form, .json or .jsonl; several are mixed, by shares such as 0.8:FILE",
    )
    parser.add_argument(
        "--media", type=Path, metavar="DIR", help="where its pictures and videos lie (default: by FILE)"
    )
    parser.add_argument(
        "--longest",
        type=whole,
        default=LONGEST.get(stage),
        metavar="TOKENS",
        help=f"rows that have more are skipped (default: {LONGEST.get(stage, 'any length')})",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out") / stage, metavar="DIR", help=f"default: {Path('out') / stage}"
    )
    parser.add_argument("--device", metavar="NAME", help="default: cuda where there is a GPU, else cpu")
    for name, (kind, default, told) in OWN[stage].items():
        add(parser, name, told, default, type=kind, metavar="N" if kind is whole else "X")
    if stage == "logits":
        add(parser, "per", "what the loss is divided by", "token", choices=("token", "row"))
    if stage != "long":
        parts = LEARNS[stage]
        parser.add_argument(
            "--learns",
            action="append",
            choices=LEARNS["teacher"],
            metavar="PART",
            help=f"of {', '.join(LEARNS['teacher'])}; may be repeated (default: {', '.join(parts)})",
        )
    if stage != "layers":
        parser.add_argument("--any-start", action="store_true", help="start from another checkpoint all the same")
    add_settings(parser, stage)


def add_settings(parser: argparse.ArgumentParser, stage: str) -> None:
    group = parser.add_argument_group("settings")
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)} | PAPER[stage]
    group.add_argument("--steps", required=True, type=whole, metavar="N", help=NUMBERS["steps"][1])
    for name, (kind, told) in list(NUMBERS.items())[1:]:
        add(group, name, told, defaults[name], type=kind, metavar="X" if kind is float else "N")
    add(group, "spread", "over several processes", defaults["spread"], choices=WAYS)
    for name, told in SWITCHES.items():
        default = "on a GPU" if defaults[name] is None else "yes" if defaults[name] else "no"
        group.add_argument(
            option(name),
            action=argparse.BooleanOptionalAction,
            default=defaults[name],
            help=f"{told} (default: {default})",
        )


def add(parser, name: str, told: str, default, **options) -> None:
    """An option that is told with its default."""
    said = told if default is None else f"{told} (default: {default})"
    parser.add_argument(option(name), default=default, help=said, **options)


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def shared(text: str) -> tuple[float, Path]:
    """A file, and the share of examples that come from it."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+):(.+)", text)
    share, path = (float(found[1]), found[2]) if found else (1.0, text)
    if not share > 0:
        raise argparse.ArgumentTypeError(f"{text} has a share that is not above 0")
    return share, Path(path)


def run(args: argparse.Namespace) -> None:
    settings = Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)})
    settings.passes(int(os.environ.get("WORLD_SIZE", "1")))
    if args.device is not None:
        usable_device(args.device)
    processor = load_processor(result_of(args.start))
    files = [Rows(path, processor, media=args.media, longest=args.longest, seed=args.seed) for _, path in args.data]
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes, one speaks
    for file in files if first else ():
        print(f"{file.path}: {file.told()}", flush=True)
    known = [len(file.faults) for file in files]
    mixed = [(share, file) for (share, _), file in zip(args.data, files, strict=True)]
    data = files[0] if len(files) == 1 else Mixed(mixed, seed=args.seed)
    result = stage_of(args)(data, args.out, settings, **own(args), device=args.device)
    if not first:
        return
    for file, before in zip(files, known, strict=True):
        if len(file.faults) > before:
            print(f"{file.path}: {file.told()}")
    steps = f"loss {result.losses[0]:.4g} at first and {result.losses[-1]:.4g} after {len(result.losses)} steps"
    print(f"{steps}: {args.out / PLOT}")
    print(f"result: {result.folder}")


def stage_of(args: argparse.Namespace):
    """The stage as a function of data, a folder and settings."""
    if args.stage == "logits":
        return lambda *arguments, **options: stages.distil_logits(args.start, args.teacher, *arguments, **options)
    function = {"layers": stages.distil_layers, "tuning": stages.tune, "long": stages.tune_long}[args.stage]
    return lambda *arguments, **options: function(args.start, *arguments, **options)


def own(args: argparse.Namespace) -> dict:
    """What this stage takes beside settings."""
    given = {name: getattr(args, name) for name in (*OWN[args.stage], "per", "any_start") if hasattr(args, name)}
    learns = getattr(args, "learns", None)
    return given if learns is None else given | {"learns": tuple(dict.fromkeys(learns))}


class Rows(ConversationFile):
    """Tells of a row that is found bad late as it is found, in whichever process reads it."""

    def __getitem__(self, number: int) -> Example:
        known = len(self.faults)
        example = super().__getitem__(number)
        for row, fault in islice(self.faults.items(), known, None):
            log.warning("%s: row %d is skipped: %s", self.path, row, fault)
        return example
