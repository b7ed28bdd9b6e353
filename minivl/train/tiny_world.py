"""The tiny world: pictures and questions about them, without end, made on the fly from a seed.

    world = TinyWorld("train", seed=0)
    sample = world[7]                           the same on any machine, whatever was drawn before
    sample.messages, sample.answer              what processor(messages) takes, and what the model should say
    for sample in world.samples(rank=1, ranks=4, start=1000): …

Sample i has its own random numbers, of (seed, split, kind, i) and nothing else, so that a run goes on where it was
broken off, and ranks share the work, by counting alone. Every sample also brings a record, from which its answer
follows, and labels for each cell of its pictures (see drawing.py). Streams are in tiny_streams.py.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count

import numpy as np
from PIL import Image

from . import charts, comparisons, scenes, texts
from .drawing import Picture
from .splits import Draw, check_split
from .tiny_settings import Settings, whole

QUESTIONS = texts.QUESTIONS | scenes.QUESTIONS | comparisons.QUESTIONS | charts.QUESTIONS
KINDS = tuple(QUESTIONS)


@dataclass(frozen=True, eq=False)
class Sample:
    kind: str
    split: str
    index: int
    pictures: tuple[Picture, ...]
    question: str
    answer: str
    record: dict

    @property
    def images(self) -> list[Image.Image]:
        return [picture.image for picture in self.pictures]

    @property
    def messages(self) -> list[dict]:
        parts = [{"type": "image", "image": image} for image in self.images]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": self.question}]}]


@dataclass(frozen=True)
class TinyWorld:
    """`kinds`: names, or names with how often each comes, in parts of the sum."""

    split: str = "train"
    seed: int = 0
    kinds: Sequence[str] | Mapping[str, float] = KINDS
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self):
        check_split(self.split)
        whole("seed", self.seed)
        if isinstance(self.kinds, str) or not self.kinds:
            raise ValueError(f"kinds is {self.kinds!r}; it should be a list of at least one kind")
        for kind in self.kinds:
            check_kind(kind)
        shares = self.kinds if isinstance(self.kinds, Mapping) else dict.fromkeys(self.kinds, 1)
        if min(shares.values()) < 0 or not 0 < sum(shares.values()) < math.inf:
            raise ValueError(f"the shares of kinds are {dict(shares)}; they should be at least 0, and one above")
        object.__setattr__(self, "kinds", dict(shares))

    @cached_property
    def _steps(self) -> np.ndarray:
        sums = np.cumsum(list(self.kinds.values()), dtype=float)
        return sums / sums[-1]  # the last is exactly 1

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, of a kind that the index also decides."""
        whole("index", index)
        step = np.searchsorted(self._steps, Draw.of(self.seed, self.split, 0, index).rng.random(), side="right")
        return self.of(list(self.kinds)[step], index)

    def of(self, kind: str, index: int) -> Sample:
        """Sample `index` of a kind; it does not depend on what other kinds the world has."""
        check_kind(kind)
        whole("index", index)
        draw = Draw.of(self.seed, self.split, 1 + KINDS.index(kind), index)
        pictures, question, answer, record = QUESTIONS[kind](draw, self.settings)
        return Sample(kind, self.split, index, tuple(pictures), question, answer, record)

    def samples(self, *, start: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[Sample]:
        """Samples without end: of the indices from `start` on, those that are this rank's."""
        return map(self.__getitem__, indices(start, rank, ranks))


def indices(start: int, rank: int, ranks: int) -> Iterator[int]:
    """From `start` on, each index that is `rank` when divided by `ranks`: no two ranks share one, none is left out."""
    whole("start", start)
    if not 0 <= rank < ranks:
        raise ValueError(f"rank is {rank} of {ranks}; it should be at least 0 and less than their number")
    return count(start + (rank - start) % ranks, ranks)


def check_kind(kind: str) -> None:
    if kind not in QUESTIONS:
        raise ValueError(f"the kind is {kind!r}; it should be one of {', '.join(KINDS)}")
