"""`python -m minivl verify`: is this checkpoint whole and alive, and does every form of its layers give one answer?

Files and numbers first; then a prompt of a picture and words is read, and each layer's own activations go through the
float64 form of its rule and through all fast ones; then the whole model is read both at once and as a stream. The last
line is the verdict, and the exit code 1 where it is FAILED. docs/verify.md says what each check sees and what none can.
"""

import argparse
import json
from pathlib import Path

import torch

from ..checkpoint import checkpoint_folder, load_model
from ..layers.int8 import is_quantised
from ..model import InfiniteVL
from ..processor import Inputs, Processor, load_processor
from ..verify.files import FAULTS, check_files
from ..verify.layers import Probe, check_layers
from ..verify.prompt import prompt, read_text
from ..verify.report import Report, name_of
from ..verify.table import tables
from ..verify.whole import check_fused, check_streaming, check_tower, read_at_once
from .options import DTYPES, add_model, dtype_name, whole

LONGEST = 16384  # the float64 form of window attention makes a square of these


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="a picture to read (default: one drawn here)"
    )
    parser.add_argument("--text", type=Path, metavar="FILE", help="words to read after it (default: some lines)")
    parser.add_argument(
        "--tokens", type=whole, default=512, metavar="N", help="how much is read, pictures included (default: 512)"
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object instead")


def run(args: argparse.Namespace) -> int:
    if args.tokens > LONGEST:
        raise ValueError(f"--tokens is {args.tokens}; the longest prompt that can be checked is {LONGEST}")
    folder, text = checkpoint_folder(args.model), read_text(args.text)
    dtype = DTYPES.get(dtype_name(args))
    report = Report(show=(lambda line: None) if args.json else lambda line: print(line, flush=True))
    report.facts["model"] = str(folder)

    processor = readable(folder)
    inputs = processor and prompt(processor, images=args.image, text=text, tokens=args.tokens)
    report.show(f"{folder}\n\n1. Files, names, shapes and numbers")
    if check_files(folder, report, dtype=dtype):
        with torch.no_grad():
            check_model(load_model(folder, device=args.device or None, dtype=dtype, int8=args.int8), inputs, report)
    else:
        report.show("\nThe model can't be loaded, so its layers were not run.")
    print(json.dumps(report.as_json(), ensure_ascii=False) if args.json else f"\n{report.verdict}")
    return 0 if report.passed else 1


def readable(folder: Path) -> Processor | None:
    """The checkpoint's processor, so that the user's pictures are opened before the weights; a fault waits its turn."""
    try:
        return load_processor(folder)
    except FAULTS:
        return None


def check_model(model: InfiniteVL, inputs: Inputs, report: Report) -> None:
    inputs = inputs.to(model.device)
    dtype = f"{name_of(model.dtype)}{', int8 matrices' if is_quantised(model) else ''}"
    on = {"tokens": inputs.ids.shape[1], "device": str(model.device), "dtype": dtype}
    report.facts |= on
    report.show("\n2. Layers, each on its own activations: {tokens} tokens, {dtype} on {device}".format(**on))
    probe = Probe(model, report)
    with probe.attached():
        at_once = read_at_once(model, inputs)
    report.show(tables(probe.rows) + "\n")
    report.facts["layers"] = probe.rows
    check_layers(probe)
    report.show("\n3. The whole model")
    check_streaming(model, inputs, at_once, report)
    check_tower(model, inputs, report)
    check_fused(model, inputs, at_once, report)
