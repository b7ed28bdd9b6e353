"""What an assignment is made of. An assignment is data: functions of the source to take out, and questions to ask them.

    Assignment   files that the student gets, tasks, variants
    Task         functions, points, a page's words, checks, likely mistakes
    Check        one claim, its points, and the questions that put it to a function
    Question     inputs, and who is asked how (asking.py); drawn from a seed and a size
    Mistake      a small wrong implementation, and what to say to who made it

The right answer to a question is what the check's oracle answers, in the process of the grader. Points are a check's,
all or none.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from .sources import Edit, Tree, edited, needed, read

Answer = dict[str, Tensor]
OWN = Path(__file__).with_name("files")


@dataclass(frozen=True)
class Question:
    """`about` says in words what is special about it. Options are what JSON can say; `private` is what the student's
    process is not told: {"expected": …} where no oracle knows the answer."""

    driver: str
    tensors: dict[str, Tensor]
    options: dict
    about: str
    private: dict = field(default_factory=dict)

    def to(self, function: str) -> "Question":
        """The same question to another function: the oracle."""
        return replace(self, options=self.options | {"function": function})


@dataclass(frozen=True)
class Check:
    """`ask(seed, T)` draws a question. `judge` names the function of judging.py that says what is wrong with an
    answer; by default it should be the oracle's to `tolerance`."""

    claim: str
    points: int
    ask: Callable[[int, int], Question]
    sizes: tuple[int, ...]
    oracle: str | None = None  # None: the same function of the reference; "none": the question knows the answer
    tolerance: float = 1e-9
    judge: str = "equal"
    shrinks: bool = True  # a smaller T is an easier question of the same kind
    public: bool = True  # also among the tests of the student's folder


@dataclass(frozen=True)
class Mistake:
    """What a student may well write. `edits` make it from the right source; `says` names it and what to do."""

    name: str
    says: str
    edits: tuple[Edit, ...]


def mistake(name: str, says: str, where: str, right: str, wrong: str) -> Mistake:
    """A mistake of one edit."""
    return Mistake(name, says, (Edit(where, right, wrong),))


@dataclass(frozen=True)
class Task:
    number: str  # "1.2"
    title: str
    functions: tuple[str, ...]  # to be written
    learns: str
    hint: str
    hours: float
    checks: tuple[Check, ...]
    mistakes: tuple[Mistake, ...] = ()
    helpers: tuple[str, ...] = ()  # also taken out; may be written or left alone
    formula: str = ""  # where the functions' docstrings don't say it all
    triton: bool = False  # runs in Triton's interpreter
    remote: Callable | None = None  # (reference, question, name, tensors, **options): what the grader does when asked

    @property
    def points(self) -> int:
        return sum(check.points for check in self.checks)


@dataclass(frozen=True)
class Variant:
    """The same assignment with another rule: edits of the source, docstrings included, and what to tell."""

    name: str
    says: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Assignment:
    name: str  # "A1"
    title: str
    summary: str
    modules: tuple[str, ...]  # the package's modules that the student gets, with all that they import
    tasks: tuple[Task, ...]
    also_blank: tuple[str, ...] = ()  # what else in these files would give an answer away, of this or another one
    own_files: tuple[str, ...] = ()  # files beside the package, which lie in files/ as the reference has them
    variants: tuple[Variant, ...] = ()
    gives_away: tuple[str, ...] = ()  # assignments whose answers this one's files contain

    @property
    def triton(self) -> bool:
        return any(task.triton for task in self.tasks)

    @functools.cached_property
    def files(self) -> tuple[str, ...]:
        return needed(*self.modules)

    def reference(self, variant: int = 0) -> Tree:
        """The right source, whole: what the student's functions are set among, and what answers as the oracle."""
        tree = read(self.files) | {path: (OWN / path).read_text(encoding="utf-8") for path in self.own_files}
        return edited(tree, *self.variants[variant - 1].edits) if variant else tree

    @property
    def points(self) -> int:
        return sum(task.points for task in self.tasks)
