"""What the course's tests share: students: stubs, references, wrong ones, other ones; and how they are graded."""

from pathlib import Path

from minivl.course.grading import Limits, TaskResult, grade
from minivl.course.manifest import ASSIGNMENTS
from minivl.course.processes import Workshop
from minivl.course.sources import Tree, functions, place
from minivl.course.tasks import Assignment

ALTERNATIVES = Path(__file__).with_name("alternatives")
LIMITS = Limits(seconds=60.0)


def alternatives(assignment: Assignment) -> list[str]:
    """Differently written solutions, by the names of their folders."""
    return sorted(path.name for path in ALTERNATIVES.glob(f"{assignment.name.lower()}_*"))


def alternative(assignment: Assignment, name: str) -> Tree:
    """A student's tree with these files, which hold only what a student wrote."""
    tree = assignment.reference()
    written = {}
    for path in (ALTERNATIVES / name).glob("*.py"):
        target, _ = place(tree, path.stem)
        written[target] = path.read_text(encoding="utf-8")
    return tree | written


def written(assignment: Assignment, name: str) -> set[str]:
    """The functions that this alternative writes."""
    files = (ALTERNATIVES / name).glob("*.py")
    return {f"{path.stem}.{function}" for path in files for function in functions(path.read_text(encoding="utf-8"))}


def results(assignment: Assignment, student: Tree, workshop: Workshop, **options) -> list[TaskResult]:
    return grade(assignment, student, workshop, **{"limits": LIMITS, **options})


def scores(results: list[TaskResult]) -> dict[str, int]:
    return {result.task.number: result.score for result in results}


def told(results: list[TaskResult]) -> str:
    """What the grader says, for a test that fails."""
    return "\n".join(
        f"{result.task.number}: {check.claim}: {check.says}"
        for result in results
        for check in result.checks
        if check.says
    )


EVERY = list(ASSIGNMENTS.values())
TASKS = [(assignment, task) for assignment in EVERY for task in assignment.tasks]
MISTAKES = [(assignment, task, mistake) for assignment, task in TASKS for mistake in task.mistakes]


def label(thing: object) -> str:
    for name in ("number", "name"):
        if isinstance(getattr(thing, name, None), str):
            return getattr(thing, name).replace(" ", "_")
    return str(thing)
