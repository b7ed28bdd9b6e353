"""`python -m minivl train claims`: the paper's claims at toy scale, in one table.

Each arm of claims_arms.py is trained with several seeds and scored; the tables, the verdicts and the pictures are made
of what came out, and of nothing else. A run whose result is there is not run again, so that the command may be broken
off at any time, and run part by part.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from ..bench import page
from ..bench.files import make_ready
from ..bench.measure import machine
from ..checkpoint import usable_device
from ..commands.options import positive, whole
from . import claims_plots
from .claims_arms import ARMS, LAYERS, STARTS, Protocol, as_told, on_a_cpu, quick
from .claims_data import make
from .claims_report import report
from .claims_running import AT_ONCE, CORES, homes, perform_all
from .claims_runs import Place, Run, arm_config, load_config
from .handing_over import digest, result_of
from .resuming import same
from .student import fit

MARKS = "claims"  # between which the page holds the tables
JSON, PAGE = "claims.json", "claims.md"
SETTINGS = "protocol.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    own, cpu = Protocol(), on_a_cpu()
    parser.add_argument("--out", type=Path, default=Path("out/claims"), metavar="DIR", help="default: out/claims")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="write tables and pictures there, into DIR/claims.md")
    parser.add_argument(
        "--eyes", default="tiny", metavar="DIR", help="a checkpoint: the model whose eyes all arms have"
    )
    parser.add_argument("--start", choices=STARTS, help=f"what decoders start from (default: {own.start})")
    steps, rows = (f"default: {getattr(own, x)}; on a CPU {getattr(cpu, x)}" for x in ("steps", "batch"))
    parser.add_argument("--steps", type=whole, metavar="N", help=f"of each run ({steps})")
    parser.add_argument("--batch", type=whole, metavar="N", help=f"rows a step ({rows})")
    parser.add_argument("--rate", type=positive, metavar="X", help=f"learning rate (default: {own.learning_rate:g})")
    parser.add_argument("--seeds", type=whole, default=3, metavar="N", help="of each arm, from 0 on (default: 3)")
    parser.add_argument(
        "--at-once", type=whole, metavar="N", help=f"runs side by side (default: {AT_ONCE} a GPU, or 1)"
    )
    parser.add_argument("--only", action="append", choices=ARMS, metavar="ARM", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--device", metavar="NAME", help="default: all GPUs, or the CPU where there is none")
    parser.add_argument("--quick", action="store_true", help="everything once, in minutes on a CPU; it shows nothing")
    parser.add_argument("--again", type=Path, metavar="FILE", help="train nothing: tables and pictures of this JSON")


def run(args: argparse.Namespace) -> None:
    if args.docs and args.quick:
        raise ValueError("--quick shows nothing, so its tables are not for --docs; leave one of the two out")
    if args.docs:
        for name in (JSON, *claims_plots.PICTURES.values()):
            make_ready(args.docs / name)
        page.check(args.docs / PAGE, MARKS)
    if args.again:
        leave(read(args.again), args.again.parent, args.docs)
        return
    given = {"start": args.start, "steps": args.steps, "batch": args.batch, "learning_rate": args.rate}
    if args.device is not None:
        usable_device(args.device)
    places = homes(args.device)
    budget = quick if args.quick else on_a_cpu if places == ["cpu"] else Protocol
    protocol = budget(**{name: x for name, x in given.items() if x is not None})
    place = Place(args.out, result_of(args.eyes), protocol)
    at_once = args.at_once or (1 if places == ["cpu"] else AT_ONCE * len(places))
    settle(place)
    names = args.only or list(ARMS)
    first = {protocol.waits_for(ARMS[name]) for name in names}
    names = [name for name in ARMS if name in names or name in first]
    if protocol.start == "teacher":
        for name in names:
            fit(load_config(place.eyes), arm_config(load_config(place.eyes), ARMS[name], protocol))

    began = time.monotonic()
    say(f"pictures and frames, once for all runs: {place.data}")
    make(place.eyes, place.data, protocol, workers=CORES if CORES > 1 else 0, device=places[0])
    # Seed by seed, so that what is broken off has all arms, if fewer seeds.
    runs = [Run(ARMS[name], seed, place, places[0]) for seed in range(args.seeds) for name in names]
    say(f"{time.monotonic() - began:6.0f} s  {len(runs)} runs of {protocol.steps} steps, {at_once} at a time")
    try:
        perform_all(runs, at_once=at_once, places=places, say=say)
    finally:
        if found := gathered(place, at_once, places, minutes=(time.monotonic() - began) / 60):
            leave(found, args.out, args.docs)
    if args.quick:
        print("\nThis was --quick: it shows that the command works, and nothing about the claims.")


def read(path: Path) -> dict:
    """What an earlier command left."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; it should be the {JSON} of an earlier run")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        report(found)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not what this command writes; it should be the {JSON} of an earlier run") from None
    return found


def say(line: str) -> None:
    print(line, flush=True)


def settle(place: Place) -> None:
    """A folder holds runs of one protocol and one pair of eyes, which their weights' digest tells from others."""
    own = as_told(place.protocol) | {"eyes": digest(place.eyes)}
    path = place.out / SETTINGS
    if path.exists():
        same(json.loads(path.read_text()), own, place.out)
    place.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(own, indent=1) + "\n")


def gathered(place: Place, at_once: int, places: list[str], *, minutes: float) -> dict:
    """All results of this folder, and what they were made on. Nothing where there is none yet.

    `minutes` are this command's; those that earlier ones took for the same folder are added to them.
    """
    order = list(ARMS)
    runs = [json.loads(path.read_text()) for path in (place.out / "results").glob("*.json")]
    runs.sort(key=lambda run: (order.index(run["arm"]), run["seed"]))
    gpus = [name for name in places if name.startswith("cuda")]
    on = machine() | {"gpu": torch.cuda.get_device_name(gpus[0]) if gpus else None, "gpus": len(gpus)}
    config = arm_config(load_config(place.eyes), ARMS["hybrid-4"], place.protocol)
    state = config.num_linear_heads * config.linear_head_dim * config.linear_value_dim
    shape = {"layers": LAYERS, "width": config.hidden_size, "state": state}
    before = json.loads((place.out / JSON).read_text())["minutes"] if (place.out / JSON).exists() else 0
    found = {"protocol": as_told(place.protocol), "on": on, "at_once": at_once, "minutes": round(before + minutes, 1)}
    return found | {"shape": shape, "runs": runs} if runs else {}


def leave(found: dict, out: Path, docs: Path | None) -> None:
    """Print the tables; write them and the pictures beside the runs, and into the docs where that was asked for."""
    found = json.loads(json.dumps(found))
    text = report(found)
    print(f"\n{text}")
    for folder in [out] + ([docs] if docs else []):
        (folder / JSON).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        claims_plots.draw(found, folder)
    if docs:
        page.fill(docs / PAGE, MARKS, text)
        show(docs / PAGE)


def show(path: Path) -> None:
    """The pictures below the page's tables, between the same marks."""
    _, end = page.marks(MARKS)
    lines = "\n\n".join(f"![{claims_plots.TOLD[name]}]({file})" for name, file in claims_plots.PICTURES.items())
    path.write_text(path.read_text(encoding="utf-8").replace(end, f"\n{lines}\n{end}"), encoding="utf-8")
