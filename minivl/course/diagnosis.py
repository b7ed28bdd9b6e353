"""The likely cause: the student's wrong answers are compared with those of small wrong versions of the reference.

A mistake fits where its version gives the student's answer on every question that failed, or, where several mistakes
are in play, on some of them. If two fit, both are named. Where none does, the pattern of what fails says what it can.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from . import judging
from .asking import answered
from .loading import loaded
from .sources import Tree, edited
from .tasks import Answer, Check, Mistake, Question, Task


@dataclass(frozen=True)
class Evidence:
    """A question that was asked, and what came of it."""

    check: Check
    question: Question
    expected: Answer
    answer: Answer | None  # None where there was an exception
    wrong: str | None


PUBLISHED = "This is the rule as it is published, not your variant's: read the equation on your task's page."


Asker = Callable[[Tree], AbstractContextManager[Callable[[Question], Answer]]]


def causes(
    task: Task, reference: Tree, evidence: list[Evidence], *, published: Tree | None, elsewhere: Asker
) -> list[str]:
    """The messages that fit, best first; none where nothing failed, or nothing is known.

    In a variant, `published` is the assignment as it is written. `elsewhere` runs what can't run in this process.
    """
    asker = elsewhere if task.triton else functools.partial(here, task, reference)
    failures = [seen for seen in evidence if seen.wrong and "NotImplementedError" not in seen.wrong]
    judged = [seen for seen in failures if seen.answer is not None and seen.check.judge != "equal"]
    if said := [seen.wrong for seen in judged if seen.wrong.endswith(".")]:
        return list(dict.fromkeys(said))  # a judge that knows what it looks for
    comparable = [
        seen for seen in evidence if seen.answer is not None and seen.check.judge in ("equal", "caught", "launched")
    ]
    if task.triton:  # interpreted kernels are slow: two wrong answers will do
        comparable = [seen for seen in comparable if seen.wrong][:2]
    failed = [seen for seen in comparable if seen.wrong]
    if not failed:
        return patterns(failures)
    wrong = {PUBLISHED: published} | {mistake.says: wrong_version(mistake, reference) for mistake in task.mistakes}
    fits = {says: fit(asker, tree, comparable) for says, tree in wrong.items() if tree is not None}
    for needed in (comparable, failed):  # gives all of the student's answers, or all of the wrong ones, or some
        if whole := [says for says, alike in fits.items() if all(id(seen) in alike for seen in needed)]:
            return whole
    return [says for says, alike in fits.items() if any(id(seen) in alike for seen in failed)] or patterns(failures)


def wrong_version(mistake: Mistake, reference: Tree) -> Tree | None:
    """The reference with this mistake; None in a variant that it can't be made in."""
    try:
        return edited(reference, *mistake.edits)
    except LookupError:
        return None


def fit(asker: Asker, wrong: Tree, evidence: list[Evidence]) -> set[int]:
    """On which of these questions, by id, the wrong version gives the student's answer: none where it gives none of the
    wrong ones."""
    alike = set()
    with asker(wrong) as ask:
        for seen in sorted(evidence, key=lambda seen: not seen.wrong):
            if not seen.wrong and not alike:
                break
            try:
                if judging.same(ask(seen.question), seen.answer):
                    alike.add(id(seen))
            except Exception:  # an error of the wrong version's is no answer to compare with
                continue
    return alike


@contextmanager
def here(task: Task, reference: Tree, tree: Tree) -> Iterator[Callable[[Question], Answer]]:
    """A version of the package that is asked in this process."""
    find = loaded(tree).find
    yield lambda asked: answered(find, asked.driver, asked.tensors, asked.options, remote(task, reference, asked))


def remote(task: Task, reference: Tree, question: Question) -> Callable | None:
    """What the grader does for the code that answers this question."""
    return task.remote and functools.partial(task.remote, reference, question)


def patterns(failures: list[Evidence]) -> list[str]:
    """What the wrong answers have in common, where no known mistake gives them; of those in one call, since a cut ends
    chunks early."""
    answers = [failure for failure in failures if failure.answer is not None]
    if any(not x.isfinite().all() for failure in answers for x in failure.answer.values()):
        return ["inf or NaN: is a mask applied after the exponential that overflows? Mask before exp."]
    plain = [failure for failure in answers if _in_one_call(failure)]
    if not plain:
        return []
    if all(_first_wrong(failure) is None for failure in plain):
        return ["Outputs right, final state wrong: look at what is added to the state, and how it decays."]
    chunks = [failure.question.options.get("chunk") for failure in plain]
    if None in chunks:
        return []
    if all(_length(failure) % chunk for failure, chunk in zip(plain, chunks, strict=True)):
        return [f"Wrong only when T is not a multiple of {chunks[0]}: the ragged tail."]
    firsts = [_first_wrong(failure) for failure in plain]
    if all(first is None or first >= chunk for first, chunk in zip(firsts, chunks, strict=True)):
        return ["Right in chunk 0, wrong from chunk 1: the carried state is lost, reset or not decayed."]
    return []


def _in_one_call(failure: Evidence) -> bool:
    out, right = failure.answer.get("out"), failure.expected.get("out")
    fits = out is not None and right is not None and out.shape == right.shape and out.ndim == 4
    return fits and not failure.question.options.get("cuts")


def _length(failure: Evidence) -> int:
    return failure.expected["out"].shape[1]


def _first_wrong(failure: Evidence) -> int | None:
    """The first time at which the output is wrong."""
    out, right = failure.answer["out"], failure.expected["out"]
    off = ((out - right).abs() > failure.check.tolerance * right.abs().max()).flatten(2).any(-1).any(0)
    return int(off.nonzero()[0]) if off.any() else None
