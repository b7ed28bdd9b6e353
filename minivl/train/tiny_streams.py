"""Streams of the tiny world: hundreds of frames in which facts pass by, and what is asked about them at the end.

A fact is a frame with a box and what is in it. It is asked for when a chosen number of tokens has followed. The box may
have held another value before; other boxes come before and after, and all other frames distract (see tiny_frames.py).
Now and then a box is asked for that never came.

    frames      …  K:3  …  A:9  …  K:7  …  F:2  …        “What is in box K?”  7
                                    └─ passed: tokens ─┘
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .drawing import CELL, Picture
from .splits import Draw, check_split
from .tiny_frames import BOXES, VALUES, Pool, allowed_values
from .tiny_settings import span, whole
from .tiny_world import indices

NOT_SHOWN = "not shown"
ANSWERS = (*VALUES, NOT_SHOWN)
PATH = 1000  # where the random numbers of streams begin; see Draw.of


@dataclass(frozen=True)
class StreamSettings:
    """Distances are in tokens: those of the frames that lie between a fact and the question."""

    frame: tuple[int, int] = (56, 56)  # height and width in pixels
    window: int = 64  # tokens; it only serves to tell distances in windows
    distance: tuple[int, int] = (0, 4096)  # of the question that is asked first; see `frames_of`
    lead: tuple[int, int] = (0, 1024)  # tokens before that fact, beside those of the frames that earlier facts need
    facts: int = 4  # boxes whose content is known when the question comes
    rewrites: int = 2  # how often the content of a box changes, at most
    not_shown: float = 0.1  # share of streams that are first asked for a box that never came
    looks: int = 4  # pictures of each fact in the pool
    others: int = 2048  # pictures of the pool that show no fact
    fps: float = 1.0
    variation: float = 1.0

    def __post_init__(self):
        span("distance", self.distance, 0)
        span("lead", self.lead, 0)
        limits = {"facts": (1, len(BOXES) - 1), "rewrites": (0, 64), "looks": (1, 1 << 10), "others": (1, 1 << 20)}
        for name, (low, high) in (limits | {"window": (1, 1 << 40)}).items():
            whole(name, getattr(self, name), low, high)
        sides = tuple(self.frame) if isinstance(self.frame, list | tuple) else ()
        if len(sides) != 2 or any(not isinstance(x, int) or x < 2 * CELL or x % CELL for x in sides):
            raise ValueError(f"frame is {self.frame!r}; it should be height and width: multiples of {CELL} from 56 on")
        for name in ("not_shown", "variation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it should be from 0 to 1")
        if not self.fps > 0:
            raise ValueError(f"fps is {self.fps!r}; it should be above 0")

    @property
    def cells(self) -> int:
        """Tokens of a frame."""
        return math.prod(self.frame) // CELL**2


@dataclass(frozen=True)
class Frame:
    """A picture and its time; `number` tells frames with the same picture."""

    number: int
    seconds: float
    picture: Picture


@dataclass(frozen=True)
class Asked:
    """A question about a box. `frame` is the one that showed the answer, and `passed` the tokens that came after it."""

    box: str
    answer: str
    frame: int | None
    passed: int | None

    @property
    def question(self) -> str:
        return f"What is in box {self.box}?"

    @property
    def messages(self) -> list[dict]:
        """What follows the frames, as Stream.ask takes it."""
        return [{"role": "user", "content": self.question}]


@dataclass(frozen=True, eq=False)
class TinyStream:
    """`numbers`: of its frames in the pool. The first question is the one whose distance was chosen."""

    split: str
    index: int
    numbers: np.ndarray
    questions: tuple[Asked, ...]
    pool: Pool
    settings: StreamSettings

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def frames(self) -> Iterator[Frame]:
        for at, number in enumerate(self.numbers.tolist()):
            yield Frame(number, at / self.settings.fps, self.pool[number])

    def windows(self, asked: Asked) -> float | None:
        """How far back the answer lies, in windows."""
        return None if asked.passed is None else asked.passed / self.settings.window

    def ask(self, box: str, *, after: int | None = None) -> Asked:
        """A question about a box when `after` frames have been seen, by default all, and its true answer."""
        after = len(self) if after is None else after
        for at in reversed(range(after)):
            fact = self.pool.fact(int(self.numbers[at]))
            if fact and fact[0] == box:
                return Asked(box, fact[1], at, (after - 1 - at) * self.settings.cells)
        return Asked(box, NOT_SHOWN, None, None)


@dataclass(frozen=True, eq=False)
class TinyStreams:
    """Streams without end: number i of a split and a seed is always the same."""

    split: str = "train"
    seed: int = 0
    settings: StreamSettings = field(default_factory=StreamSettings)

    def __post_init__(self):
        check_split(self.split)
        whole("seed", self.seed)

    @cached_property
    def pool(self) -> Pool:
        own = self.settings
        return Pool(self.split, self.seed, frame=own.frame, looks=own.looks, others=own.others, variation=own.variation)

    def __getitem__(self, index: int) -> TinyStream:
        whole("index", index)
        draw, own = Draw.of(self.seed, self.split, PATH, index), self.settings
        gap, lead = self.frames_of(draw, own.distance), self.events + self.frames_of(draw, own.lead)
        shown = not draw.chance(own.not_shown)
        asked, *boxes = draw.some(BOXES, own.facts + 1)
        boxes = boxes[1:] if shown else boxes
        length = lead + 1 + gap

        numbers = draw.rng.integers(self.pool.facts, len(self.pool), size=length)  # no facts yet
        free = draw.rng.permutation([at for at in range(length) if at != lead or not shown]).tolist()
        if shown:
            before = [at for at in free if at < lead][: draw.between(0, own.rewrites)]
            self.show(draw, numbers, asked, [*sorted(before), lead])
            free = [at for at in free if at not in before]
        for box in boxes:
            count = draw.between(1, 1 + own.rewrites)
            self.show(draw, numbers, box, sorted(free[:count]))
            free = free[count:]

        stream = TinyStream(self.split, index, numbers, (), self.pool, own)
        questions = tuple(stream.ask(box) for box in (asked, *boxes))
        return TinyStream(self.split, index, numbers, questions, self.pool, own)

    def samples(self, *, start: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[TinyStream]:
        """As TinyWorld.samples."""
        return map(self.__getitem__, indices(start, rank, ranks))

    @property
    def events(self) -> int:
        """The most frames of one stream that show facts."""
        return (self.settings.facts + 1) * (1 + self.settings.rewrites)

    def frames_of(self, draw: Draw, tokens: tuple[int, int]) -> int:
        """Frames of so many tokens; the logarithm is even, so that each doubling is as likely as the next."""
        low, high = (end // self.settings.cells for end in tokens)
        return min(high, int(math.exp(draw.uniform(math.log(low + 1), math.log(high + 2)))) - 1)

    def show(self, draw: Draw, numbers: np.ndarray, box: str, places: list[int]) -> None:
        """Put facts about a box in these places, each another than the one before."""
        value = None
        for at in places:
            value = draw.pick([other for other in allowed_values(draw, box) if other != value])
            numbers[at] = self.pool.number(box, value, draw.between(0, self.settings.looks - 1))
