"""`python -m minivl assignment list | make A2 --out DIR | grade DIR | pack DIR`: the course's assignments.

`make` writes a student's folder, `pack` what a student hands in, `grade` points and reasons; see docs/course.md.
"""

import argparse
import sys
import time
from pathlib import Path

from ..course.grading import HIDDEN, Limits, grade
from ..course.making import make, version
from ..course.manifest import ASSIGNMENTS, assignment_of, variant_of
from ..course.packing import HandIn, hand_ins, pack
from ..course.processes import Workshop, limits
from ..course.results import Graded, table, write_csv, write_json
from ..course.tasks import Assignment
from .options import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="all assignments, their tasks and points").set_defaults(act=show)

    making = actions.add_parser("make", help="write a student's folder")
    making.add_argument("name", help=f"one of {', '.join(ASSIGNMENTS)}")
    making.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder, or an empty one")
    making.add_argument(
        "--variant", type=int, default=0, metavar="SEED", help="another rule, chosen by the seed (0: as it is written)"
    )
    making.set_defaults(act=write)

    grading = actions.add_parser("grade", help="grade a student's folder, a packed one, or a folder of many")
    grading.add_argument("source", type=Path, metavar="DIR")
    grading.add_argument("--assignment", metavar="NAME", help="what it must be (default: what it says it is)")
    grading.add_argument("--variant", type=int, metavar="SEED", help="which variant it must be (default: what it says)")
    grading.add_argument("--task", action="append", default=[], metavar="2.3", help="only this task (may be repeated)")
    grading.add_argument("--seed", type=int, default=HIDDEN, metavar="N", help="of the hidden questions")
    grading.add_argument("--json", type=Path, metavar="FILE", help="write Gradescope's results.json")
    grading.add_argument("--csv", type=Path, metavar="FILE", help="write a line for each hand-in")
    grading.add_argument("--seconds", type=positive, default=30.0, metavar="X", help="a task's time (default: 30)")
    grading.add_argument("--memory", type=positive, default=2.0, metavar="GB", help="a task's memory (default: 2)")
    grading.set_defaults(act=judge)

    packing = actions.add_parser("pack", help="pack what is handed in, with a hash of each file")
    packing.add_argument("folder", type=Path, metavar="DIR")
    packing.add_argument("--out", type=Path, metavar="FILE.zip", help="default: DIR.zip")
    packing.set_defaults(act=hand_in)


def run(args: argparse.Namespace) -> int | None:
    return args.act(args)


def show(args: argparse.Namespace) -> None:
    for assignment in ASSIGNMENTS.values():
        hours = sum(task.hours for task in assignment.tasks)
        print(f"{assignment.name}  {assignment.title}: {assignment.points} points, about {hours:g} hours")
        for task in assignment.tasks:
            print(f"    {task.number}  {task.points:>3}  {task.title}")
        for i, variant in enumerate(assignment.variants, start=1):
            print(f"    --variant {i}  {variant.name}")


def write(args: argparse.Namespace) -> None:
    assignment = assignment_of(args.name)
    variant = variant_of(assignment, args.variant)
    make(assignment, args.out, variant=variant)
    told = f", variant {variant} ({assignment.variants[variant - 1].name})" if variant else ""
    print(f"{args.out}: {assignment.name} {assignment.title}{told}; begin with README.md in it")
    if assignment.gives_away:
        print(f"Its files hold answers of {', '.join(assignment.gives_away)}: hand it out when those are in.")


def hand_in(args: argparse.Namespace) -> None:
    target = args.out or args.folder.resolve().with_suffix(".zip")
    files = pack(args.folder, target)
    print(f"{target}: {', '.join(files)}")


def judge(args: argparse.Namespace) -> None:
    for path in (args.json, args.csv):
        if path is not None and not path.resolve().parent.is_dir():
            raise FileNotFoundError(f"{path.parent} is not a folder; {path.name} can't be written into it")
    if args.assignment:
        known_tasks(assignment_of(args.assignment), args.task)
    found = hand_ins(args.source)
    alone = len(found) == 1
    print(f"Each task runs in a process of its own; {limits()}.", flush=True)
    graded = []
    start = time.monotonic()
    with Workshop(interpret_triton=needs_triton(found, args)) as workshop:
        for one in found:
            try:
                graded.append(graded_one(one, args, workshop, alone=alone))
            except ValueError as fault:
                if alone or args.assignment is None:
                    raise
                graded.append(Graded(one.name, assignment_of(args.assignment), 0, "", note=str(fault)))
            print(f"\n{table(graded[-1])}" if alone else line(graded[-1]), flush=True)
    if not alone:
        print(f"{len(graded)} hand-ins in {time.monotonic() - start:.0f} seconds", file=sys.stderr)
    if args.json:
        write_json(graded, args.json)
    if args.csv:
        write_csv(graded, args.csv)


def needs_triton(found: list[HandIn | tuple[str, str]], args: argparse.Namespace) -> bool:
    names = {args.assignment or one.about["assignment"] for one in found if isinstance(one, HandIn)}
    return any(ASSIGNMENTS[name.upper()].triton for name in names if name.upper() in ASSIGNMENTS)


def known_tasks(assignment: Assignment, tasks: list[str]) -> None:
    known = {task.number for task in assignment.tasks}
    if unknown := set(tasks) - known:
        raise ValueError(f"{assignment.name} has no task {min(unknown)}; it has {', '.join(sorted(known))}")


def graded_one(one: HandIn | tuple[str, str], args: argparse.Namespace, workshop: Workshop, *, alone: bool) -> Graded:
    if not isinstance(one, HandIn):
        if args.assignment is None:
            raise ValueError(f"{one[0]} can't be read: {one[1]}; say --assignment to go on without it")
        return Graded(one[0], assignment_of(args.assignment), 0, "", note=one[1])
    assignment = assignment_of(args.assignment or one.about["assignment"])
    said = one.about["variant"]
    variant = variant_of(assignment, said if args.variant is None else args.variant)
    right = version(assignment, variant)
    graded = Graded(one.name, assignment, variant, right, note=one.note)
    if one.about["assignment"] != assignment.name or said != variant:
        wanted = f"{assignment.name}, variant {variant}"
        fault = f"{one.name} is {one.about['assignment']}, variant {said}; it should be {wanted}"
        if alone:
            raise ValueError(fault)
        graded.note = fault
        return graded
    if one.about["version"] != right:
        told = f"made from version {one.about['version']}, graded by {right}"
        graded.note = "; ".join(note for note in (one.note, told) if note)
    known_tasks(assignment, args.task)
    bounds = Limits(args.seconds, args.memory)
    graded.results = grade(
        assignment, one.tree, workshop, variant=variant, seed=args.seed, limits=bounds, tasks=tuple(args.task)
    )
    return graded


def line(graded: Graded) -> str:
    parts = "  ".join(f"{result.task.number} {result.score}/{result.task.points}" for result in graded.results)
    note = f"  ({graded.note})" if graded.note else ""
    return f"{graded.name:24} {graded.score:>4} / {graded.points}  {parts}{note}"
