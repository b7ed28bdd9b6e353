"""The paper's claims, as differences between arms, and the rule that says whether one appears at this scale.

    difference = mean over seeds of the one − mean over seeds of the other
    spread     = the larger of the two ranges over seeds (largest − smallest), but at least NOISE

    above        difference > spread: it appears;  < −spread: the other way round;  else: it does not appear
    not below    difference ≥ −spread: it appears, where the one is above chance at all;  else: the other way round

Nothing here is judged by hand: the page has the sentences that `told` makes of the numbers.
"""

from dataclasses import dataclass
from statistics import fmean

NOISE = 0.03  # the standard error of a score of 256 questions, at most
APPEARS, ABSENT, REVERSED, UNKNOWN = "appears", "does not appear", "the other way round", "not measured"
# What whoever knows nothing but the answers' frequencies scores, by the first word of a task's name.
FLOORS = {"reading": 0.0, "characters": 1 / 36, "attributes": 0.2, "average": 0.1}
RECALL_FLOOR = 1 / 28  # a box has 28 values in train


@dataclass(frozen=True)
class Claim:
    """`one` and `other`: an arm and one of its scores."""

    says: str
    one: tuple[str, str]
    other: tuple[str, str]
    form: str = "above"  # or "not below"


def claims(*, windows: list[int], facts: list[int], ages: list[int], trained: int) -> tuple[Claim, ...]:
    """`windows`: distances that recall was asked at; `trained`: the longest of them that training had, in windows."""
    inside, far = f"recall/{max(x for x in windows if x <= trained)}", f"recall/{max(windows)}"
    young, old = min(ages), max(ages)
    return (
        Claim("a window alone forgets, and a hybrid does not", ("hybrid-4", inside), ("window", inside)),
        Claim("linear layers alone read worse than a hybrid", ("hybrid-4", "reading"), ("linear", "reading")),
        Claim("one window layer in eight helps to read", ("hybrid-8", "reading"), ("linear", "reading")),
        Claim("one in four helps more than one in eight", ("hybrid-4", "reading"), ("hybrid-8", "reading")),
        Claim("one in four is enough: half brings no more", ("hybrid-4", "reading"), ("hybrid-2", "reading"), BELOW),
        Claim("a hybrid reads as well as full attention", ("hybrid-4", "reading"), ("full", "reading"), BELOW),
        Claim("the gated delta rule beats linear attention", ("hybrid-4", "average"), ("rule-linear", "average")),
        Claim("the gate adds to the delta rule", ("hybrid-4", "average"), ("rule-delta", "average")),
        Claim("stage 1 helps", ("with-stage-1", "average"), ("without-stage-1", "average")),
        Claim("few examples are enough", ("data-4", "average"), ("hybrid-4", "average"), BELOW),
        Claim("recall holds far past the training length", ("hybrid-4", far), ("hybrid-4", inside), BELOW),
        Claim("many facts at once are too many", ("hybrid-4", f"facts/{min(facts)}"),
              ("hybrid-4", f"facts/{max(facts)}")),
        Claim("a long past leaves the state as able as it was", ("hybrid-4", f"fresh/{old}"),
              ("hybrid-4", f"fresh/{young}"), BELOW),
        Claim("after a long past, a reset helps", ("hybrid-4", f"after a reset/{old}"), ("hybrid-4", f"fresh/{old}")),
    )  # fmt: skip


BELOW = "not below"


def floor(task: str) -> float:
    return FLOORS.get(task.partition("/")[0], RECALL_FLOOR)


@dataclass(frozen=True)
class Verdict:
    """`one` and `other` are means over seeds; None of what was not measured."""

    claim: Claim
    outcome: str
    one: float | None
    other: float | None
    spread: float | None


def judged(claim: Claim, scores: dict[str, dict[str, list[float]]]) -> Verdict:
    """`scores`: of each arm and task, one number a seed."""
    found = [scores.get(arm, {}).get(task, []) for arm, task in (claim.one, claim.other)]
    if not all(found):
        return Verdict(claim, UNKNOWN, None, None, None)
    one, other = map(fmean, found)
    spread = max(NOISE, *(max(numbers) - min(numbers) for numbers in found))
    if one - other < -spread:
        outcome = REVERSED
    elif claim.form == BELOW:
        outcome = APPEARS if one > floor(claim.one[1]) + spread else ABSENT
    else:
        outcome = APPEARS if one - other > spread else ABSENT
    return Verdict(claim, outcome, one, other, spread)
