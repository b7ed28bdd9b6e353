"""`python -m minivl bench kernels`: the Triton kernels on a GPU, beside other libraries; see kernels/bench.py."""

import argparse
import importlib.util
from pathlib import Path

import torch

from .files import make_ready


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick", action="store_true", help="three lengths only: under a minute, besides what a peer compiles first"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the forward times into FILE.png")


def run(args: argparse.Namespace) -> None:
    if args.json:
        make_ready(args.json)
    if args.plot:
        make_ready(args.plot, ".png")
    if importlib.util.find_spec("triton") is None:
        raise ValueError("the kernels need the package triton, which is not installed (it exists for Linux only)")
    if not torch.cuda.is_available():
        raise ValueError("the kernels are timed on a CUDA device, and this machine has none")
    from kernels import bench

    bench.run(quick=args.quick, json_file=args.json, plot_file=args.plot)
