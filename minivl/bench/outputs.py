"""Where a measurement leaves its figures: a JSON file, a picture, and tables in a page; all asked for beforehand."""

import argparse
import importlib
import json
from collections.abc import Callable
from pathlib import Path

from . import page
from .files import make_ready


def add_arguments(parser: argparse.ArgumentParser, *, picture: str) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help=f"draw {picture}")
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="put the tables into FILE.md, between its marks")


def check(args: argparse.Namespace, name: str) -> None:
    """Tell what can't be written now, not after the measuring. `name` is that of the page's marks."""
    if args.json:
        make_ready(args.json)
    if args.plot:
        make_ready(args.plot, ".png")
        importlib.import_module("matplotlib")
    if args.page:
        page.check(args.page, name)


def leave(args: argparse.Namespace, name: str, found: dict, *, report: Callable[[dict], str], plot: Callable) -> None:
    """Print the report, and write what was asked for. What is printed is what is written: JSON's numbers."""
    found = json.loads(json.dumps(found))
    print(report(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        plot(found, args.plot)
    if args.page:
        page.fill(args.page, name, report(found))
