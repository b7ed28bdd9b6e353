"""How answers are scored, which are possible, and what whoever never looks at a picture scores: the floor of each kind.

    chance     one of the possible answers, by lot
    most       always the answer that was most frequent in train
    question   the answer that was most frequent in train for this very question, where it was asked there

A model that scores no more than the last of these has learnt nothing from pictures. So has a model with nothing but a
window, of facts that lie behind its window.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from string import ascii_uppercase

from ..commands.scoring import exact
from .charts import HIGHEST
from .comparisons import ORDER, SAME
from .scenes import CORNERS, MOST, SIDES
from .splits import ALPHABET, COLOURS, SHAPES
from .tiny_streams import ANSWERS as STREAM_ANSWERS

STREAM = "stream"
OPEN = ("reading", "lines")  # their answers are texts, and spaces do not count
ANSWERS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "count": tuple(map(str, range(MOST + 1))),
    "corner": CORNERS,
    "side": SIDES,
    "same": SAME,
    "more": ORDER,
    "larger": ORDER,
    "highest": tuple(ascii_uppercase),
    "value": tuple(map(str, range(1, HIGHEST + 1))),
    STREAM: STREAM_ANSWERS,
}


def possible(kind: str, answer: str, *, characters: int = 8) -> bool:
    """Whether this may be the answer to a question of this kind."""
    if kind in OPEN:
        return len(answer) == characters and set(answer) <= set(ALPHABET)
    return answer in ANSWERS[kind]


def score(kind: str, said: str, right: str) -> float:
    """1 where the model said the right thing, whatever its case and spaces, quotation marks or a full stop; else 0."""
    if kind in OPEN:
        said, right = ("".join(text.split()) for text in (said, right))
    return exact(said, right)


@dataclass(frozen=True)
class Floor:
    """Of one kind: how many questions there were, and the share that each way of not looking gets right."""

    kind: str
    questions: int
    chance: float
    most: float
    question: float


Question = tuple[str, str, str]  # kind, question, answer


def floors(train: Iterable[Question], test: Iterable[Question], *, characters: int = 8) -> dict[str, Floor]:
    """What blind answers learnt from `train` score on `test`, by kind."""
    answers, told = defaultdict(Counter), defaultdict(Counter)
    for kind, question, answer in train:
        answers[kind][answer] += 1
        told[kind, question][answer] += 1
    count, most, known = Counter(), Counter(), Counter()
    for kind, question, answer in test:
        usual = _first(answers[kind])
        count[kind] += 1
        most[kind] += score(kind, usual, answer)
        known[kind] += score(kind, _first(told[kind, question]) or usual, answer)
    chance = {kind: 1 / (len(ALPHABET) ** characters if kind in OPEN else len(ANSWERS[kind])) for kind in count}
    return {
        kind: Floor(kind, number, chance[kind], most[kind] / number, known[kind] / number)
        for kind, number in count.items()
    }


def _first(answers: Counter) -> str:
    """The most frequent; of several the first in the alphabet, whatever came first."""
    return min(answers, key=lambda answer: (-answers[answer], answer)) if answers else ""
