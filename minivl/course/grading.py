"""Points: each task in a process of its own, with the reference for everything that is not of this task.

The process is asked one question after another. The answers are compared here, with what the reference answers here,
so that nothing a student's code does to its own process, its tests or its checker can make a wrong answer right. Where
a check fails, smaller questions of the same kind find the smallest that still fails, and that one is shown.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from . import judging
from .asking import answered
from .diagnosis import Evidence, causes, remote
from .loading import Imported, loaded
from .processes import Ended, Fault, Student, Workshop
from .sources import Tree, merged
from .tasks import Answer, Assignment, Check, Question, Task

NO_TRITON = (
    "not run here: Triton exists for Linux only; grade it in a Linux container, in WSL2, or in a notebook service"
)
HIDDEN = 2026  # seeds of the grader's questions start here, of the handout's at 0


@dataclass
class CheckResult:
    claim: str
    points: int
    score: int
    says: str = ""  # what is wrong, on the smallest question that shows it


@dataclass
class TaskResult:
    task: Task
    checks: list[CheckResult]
    causes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    skipped: str = ""  # why this could not be run here; then it counts neither way

    @property
    def score(self) -> int:
        return sum(check.score for check in self.checks)

    @property
    def attempted(self) -> bool:
        return not all("NotImplementedError" in check.says for check in self.checks)


@dataclass(frozen=True)
class Limits:
    seconds: float = 30.0  # of a task's whole life
    gigabytes: float = 2.0  # beyond what an idle process takes


def grade(
    assignment: Assignment,
    student: Tree,
    workshop: Workshop,
    *,
    variant: int = 0,
    seed: int = HIDDEN,
    limits: Limits | None = None,
    tasks: tuple[str, ...] = (),
) -> list[TaskResult]:
    """The results of all tasks, or of those that are named."""
    reference = assignment.reference(variant)
    published = assignment.reference() if variant else None
    return [
        grade_task(task, reference, student, workshop, seed=seed, limits=limits or Limits(), published=published)
        for task in assignment.tasks
        if not tasks or task.number in tasks
    ]


def grade_task(
    task: Task,
    reference: Tree,
    student: Tree,
    workshop: Workshop,
    *,
    seed: int,
    limits: Limits,
    published: Tree | None = None,
) -> TaskResult:
    start = time.monotonic()
    if task.triton and importlib.util.find_spec("triton") is None:
        return lost(task, "", skipped=NO_TRITON)
    try:
        tree = merged(reference, student, task.functions, task.helpers)
    except SyntaxError as fault:
        return lost(task, f"SyntaxError in line {fault.lineno}: {(fault.text or '').strip()}")
    except (LookupError, ValueError, RecursionError, MemoryError) as fault:  # the last three: no parser takes it
        return lost(task, str(fault).strip("'\"") or type(fault).__name__)
    with Student(workshop, tree, seconds=limits.seconds, gigabytes=limits.gigabytes) as process:
        asked = Asked(task, reference, process)
        checks = [checked(check, asked, seed + 1000 * i) for i, check in enumerate(task.checks)]

    @contextmanager
    def elsewhere(tree: Tree) -> Iterator[Callable[[Question], Answer]]:
        with Student(workshop, tree, seconds=limits.seconds, gigabytes=limits.gigabytes) as process:
            yield process.ask

    told = causes(task, reference, asked.evidence, published=published, elsewhere=elsewhere)
    return TaskResult(task, checks, told, time.monotonic() - start)


def lost(task: Task, says: str, skipped: str = "") -> TaskResult:
    return TaskResult(task, [CheckResult(check.claim, check.points, 0, says) for check in task.checks], skipped=skipped)


@dataclass(frozen=True)
class Asked:
    """The student's process and the oracle, asked the same things, and what was seen."""

    task: Task
    reference: Tree
    process: Student
    evidence: list[Evidence] = field(default_factory=list)

    def wrong(self, check: Check, question: Question) -> str | None:
        """What is wrong with the student's answer, if anything is."""
        seen = self.seen(check, question)
        self.evidence.append(seen)
        return seen.wrong

    def seen(self, check: Check, question: Question) -> Evidence:
        try:
            answer = self.process.ask(question, remote(self.task, self.reference, question))
        except Fault as fault:
            return Evidence(check, question, {}, None, str(fault))
        expected = truth(loaded(self.reference), check, question)
        wrong = judging.judged(check.judge, answer, expected, question.options, check.tolerance)
        return Evidence(check, question, expected, answer, wrong)


def truth(oracle: Imported, check: Check, question: Question) -> Answer:
    """The right answer."""
    if check.oracle == "none":
        return question.private.get("expected", {})
    right = question.to(check.oracle) if check.oracle else question
    return answered(oracle.find, right.driver, right.tensors, right.options)


def checked(check: Check, asked: Asked, seed: int) -> CheckResult:
    """Ask every size; points are all or none."""
    for i, T in enumerate(check.sizes):
        question = check.ask(seed + i, T)
        try:
            if says := asked.wrong(check, question):
                smallest, says = shrunk(check, asked, seed + i, T, says)
                return CheckResult(check.claim, check.points, 0, f"{smallest.about}: {says}")
        except Ended as end:
            return CheckResult(check.claim, check.points, 0, f"{question.about}: {end}")
    return CheckResult(check.claim, check.points, check.points)


def shrunk(check: Check, asked: Asked, seed: int, T: int, says: str) -> tuple[Question, str]:
    """A question with few tokens that still fails, and what it shows: around the powers of two things begin."""
    if check.shrinks:
        for smaller in (size for size in (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65) if size < T):
            question = check.ask(seed, smaller)
            if found := asked.seen(check, question).wrong:
                return named(question, smaller), found
    return named(check.ask(seed, T), T), says


def named(question: Question, T: int) -> Question:
    about = question.about if "T = " in question.about else f"T = {T}, {question.about}"
    return replace(question, about=about)
