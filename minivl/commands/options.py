"""What chat and eval have in common: which model, how tokens are drawn, how pictures and videos are looked at.

Whatever can be wrong on the command line is found before the weights are read, which takes seconds.
"""

import argparse
import math
import time

import torch

from ..checkpoint import load_model, usable_device
from ..model import InfiniteVL
from ..ops import checks
from ..sampling import Sampler
from . import compiling

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="the checkpoint's folder")
    parser.add_argument("--device", metavar="NAME", help="default: cuda where there is a GPU, else cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="default: as stored on a GPU, float32 on a CPU")
    parser.add_argument(
        "--int8",
        action="store_const",
        const=True,
        default=False,
        help="keep the decoder's matrices and the table of words in 8 bits: half their memory, faster tokens on a GPU, "
        "slower prompts and frames, and answers that can differ (python -m minivl bench int8 measures all of it)",
    )
    parser.add_argument(
        "--int8-all", dest="int8", action="store_const", const="all", help="the vision tower's matrices, too"
    )


def add_sampling(parser: argparse.ArgumentParser, *, seed: int | None = None) -> None:
    parser.add_argument(
        "--max-new-tokens", type=whole, default=512, metavar="N", help="an answer's longest length (default: 512)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, metavar="X", help="default: 0, always the best token")
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="X",
        help="draw from the likeliest tokens of this sum (default: 1)",
    )
    parser.add_argument(
        "--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1: say less twice (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=seed, metavar="N", help="the same seed draws the same answer")


def add_looks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fps", type=positive, metavar="X", help="frames taken of a second of video (default: 2)")
    parser.add_argument("--max-frames", type=whole, metavar="N", help="frames taken of a video at most (default: 768)")
    parser.add_argument("--max-pixels", type=whole, metavar="N", help="a picture or frame is made smaller than this")
    parser.add_argument("--min-pixels", type=whole, metavar="N", help="a picture or frame is made larger than this")


def whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def sampling(args: argparse.Namespace) -> dict:
    """The options of `generate`, checked."""
    drawing = {name: getattr(args, name) for name in ("temperature", "top_p", "repetition_penalty", "seed")}
    Sampler(**drawing)
    checks.positive("--max-new-tokens", args.max_new_tokens)
    return {"max_new_tokens": args.max_new_tokens, **drawing}


def look(args: argparse.Namespace) -> dict[str, dict]:
    """What a part of a message says about itself besides its source, by its type."""
    if args.min_pixels and args.max_pixels and args.min_pixels > args.max_pixels:
        raise ValueError(f"--min-pixels is {args.min_pixels}; it should not be above --max-pixels, {args.max_pixels}")
    pixels = {"min_pixels": args.min_pixels, "max_pixels": args.max_pixels}
    given = {"image": pixels, "video": {"fps": args.fps, "max_frames": args.max_frames, **pixels}}
    return {kind: {name: x for name, x in options.items() if x is not None} for kind, options in given.items()}


def dtype_name(args: argparse.Namespace) -> str:
    return args.dtype or ("float32" if usable_device(args.device or None).type == "cpu" else "as stored")


def read_model(args: argparse.Namespace) -> tuple[InfiniteVL, float]:
    """The model, ready to answer, and the seconds that took."""
    start = time.perf_counter()
    dtype = DTYPES.get(dtype_name(args))
    model = load_model(args.model, device=args.device or None, dtype=dtype, int8=args.int8).fuse()
    if model.device.type == "cuda":
        compiling.tell()
    return model, time.perf_counter() - start
