"""Results for people, for Gradescope, and for a spreadsheet."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

from .grading import TaskResult
from .tasks import Assignment

KEPT = ("late", "extra_time", "regrade")  # columns that are the instructor's: an older file's entries stay


@dataclass
class Graded:
    """One hand-in's results, or why there are none."""

    name: str
    assignment: Assignment
    variant: int
    version: str
    results: list[TaskResult] = field(default_factory=list)
    note: str = ""

    @property
    def score(self) -> int:
        return sum(result.score for result in self.results)

    @property
    def points(self) -> int:
        """Of what could be run here: a task that could not counts neither way."""
        return sum(result.task.points for result in self.results if not result.skipped)


def table(graded: Graded) -> str:
    """For people: each task's points, what was lost and where, and the likely cause."""
    lines = [f"{graded.name}: {graded.assignment.name} {graded.assignment.title}"]
    for result in graded.results:
        score = "   –" if result.skipped else f"{result.score:>4}"
        lines.append(f"  {result.task.number}  {score} / {result.task.points:<3}  {result.task.title}")
        if result.skipped:
            lines.append(f"        {result.skipped}")
        elif not result.attempted:
            lines.append("        not written yet (NotImplementedError)")
        else:
            for check in result.checks:
                if check.says:
                    lines += [f"        −{check.points}  {check.claim}", f"            {check.says}"]
            lines += [f"        likely: {cause}" for cause in result.causes]
    if graded.note:
        lines.append(f"  note: {graded.note}")
    total = f"  total {graded.score} / {graded.points}" if graded.results else "  not graded"
    return "\n".join([*lines, total])


def gradescope(graded: Graded) -> dict:
    """The results.json of a Gradescope autograder."""
    tests = []
    for result in graded.results:
        for i, check in enumerate(result.checks):
            words = [check.says, *(f"likely: {cause}" for cause in result.causes if check.says)]
            entry = {
                "name": f"{check.claim}",
                "number": f"{result.task.number}.{i + 1}",
                "score": check.score,
                "max_score": 0 if result.skipped else check.points,
                "output": result.skipped or "\n".join(word for word in words if word),
                "visibility": "visible",
            }
            tests.append(entry if result.skipped else entry | {"status": "failed" if check.says else "passed"})
    seconds = round(sum(result.seconds for result in graded.results), 2)
    words = f"{graded.assignment.name}, variant {graded.variant}, version {graded.version}"
    return {
        "score": graded.score,
        "execution_time": seconds,
        "output": f"{words}. {graded.note}".rstrip(". ") + ".",
        "visibility": "visible",
        "tests": tests,
    }


def write_json(graded: list[Graded], path: Path) -> None:
    """Of one hand-in Gradescope's form; of several a list of them, each with its name."""
    content = [gradescope(one) for one in graded]
    several = [{"name": one.name, **entry} for one, entry in zip(graded, content, strict=True)]
    text = json.dumps(content[0] if len(graded) == 1 else several, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(graded: list[Graded], path: Path) -> None:
    """A line a hand-in. What the instructor wrote into the kept columns of an older file stays."""
    older = _older(path)
    tasks = list(dict.fromkeys(task.number for one in graded for task in one.assignment.tasks))
    columns = ["name", "assignment", "variant", "version", "score", "of", *tasks, *KEPT, "note"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for one in graded:
            row = {"name": _plain(one.name), "assignment": one.assignment.name, "variant": one.variant}
            row |= {"version": _plain(one.version), "score": one.score, "of": one.points, "note": _plain(one.note)}
            row |= {result.task.number: "" if result.skipped else result.score for result in one.results}
            row |= {column: older.get(row["name"], {}).get(column, "") for column in KEPT}
            writer.writerow(row)


def _older(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        return {row["name"]: row for row in csv.DictReader(file) if row.get("name")}


def _plain(text: str) -> str:
    """A spreadsheet takes what begins with these for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
