"""Half a million tokens: whether what was shown at the very beginning is still known, and whether new things can be.

Many streams go by side by side, in one memory of constant size. Each begins with facts, and nothing but distracting
frames follows. At each age, on copies of the memory: the first facts are asked for; new facts are shown, some windows
go by, and these are asked for; and the same after the linear layers' states have been set to zero before the new facts.

    age/T             the facts of the beginning, T tokens ago
    fresh/T           new facts, FRESH windows ago, at the end of a stream of T tokens
    after a reset/T   the same, the linear states emptied just before those facts
"""

from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from ..memory import LinearState, Memory
from ..model import InfiniteVL
from .claims_arms import Protocol
from .claims_data import FACTS, streams_of
from .claims_lessons import Data
from .examples import Example, collate
from .scoring import of_batch
from .splits import Draw
from .stream_examples import row_of
from .tiny_frames import BOXES, Pool, allowed_values
from .tiny_streams import Asked

FRESH = 8  # windows that lie between the new facts and the question


@dataclass(frozen=True)
class Watched:
    """One stream: the frames of its facts, then distracting ones by number, all in one order of time."""

    numbers: np.ndarray
    old: tuple[Asked, ...]
    new: tuple[Asked, ...]
    new_frames: np.ndarray


def watched(pool: Pool, index: int, frames: int) -> Watched:
    draw = Draw.of(0, pool.split, 2000, index)
    boxes = draw.some(BOXES, 2 * FACTS)
    facts = [(box, draw.pick(allowed_values(draw, box))) for box in boxes]
    shown = np.array([pool.number(*fact, draw.between(0, pool.looks - 1)) for fact in facts])
    numbers = draw.rng.integers(pool.facts, len(pool), size=frames)
    numbers[:FACTS] = shown[:FACTS]
    asked = tuple(Asked(box, value, None, None) for box, value in facts)
    return Watched(numbers, asked[:FACTS], asked[FACTS:], shown[FACTS:])


class Watching:
    """Streams side by side in one memory. `vectors` are those of their pool's frames."""

    def __init__(self, model: InfiniteVL, data: Data, protocol: Protocol):
        self.model, self.processor, self.piece = model, data.processor, protocol.piece
        self.vectors = data.frames["test"].to(model.device)
        streams = streams_of(protocol, "test", 0, 1)
        self.pool, self.settings = streams.pool, streams.settings
        self.between = FRESH * protocol.window // self.settings.cells
        frames = FACTS + max(protocol.ages) // self.settings.cells + self.between
        self.streams = [watched(self.pool, index, frames) for index in range(protocol.age_streams)]
        self.memory = model.new_memory(len(self.streams), longest_write=self.piece)
        self.seen = 0  # frames

    def row(self, own: np.ndarray, asked: tuple[Asked, ...], start: int) -> Example:
        """What comes next in one stream: these frames, from the time of frame `start` on, and then its questions."""
        messages = [m for one in asked for m in (*one.messages, {"role": "assistant", "content": one.answer})]
        clock = [at / self.settings.fps for at in range(start, start + len(own))]
        size, vectors = self.settings.frame, self.seen_on(own).flatten(0, 1)
        return row_of(self.processor, clock, messages, size=size, vectors=vectors)

    def seen_on(self, numbers: np.ndarray) -> Tensor:
        return self.vectors[torch.from_numpy(numbers).to(self.vectors.device)]

    @torch.no_grad()
    def watch(self, until: int) -> None:
        """Go on to frame `until`."""
        while self.seen < until:
            end = min(until, self.seen + self.piece // self.settings.cells - 1)  # there is the opening token, too
            numbers = np.stack([stream.numbers[self.seen : end] for stream in self.streams])
            first = self.row(numbers[0], self.streams[0].old[:1], self.seen)  # all have the same tokens and places
            part = slice(0 if self.seen == 0 else 1, 1 + numbers.shape[1] * self.settings.cells)
            B, device = len(numbers), self.model.device
            ids, positions = first.ids[part].expand(B, -1), first.positions[:, None, part].expand(3, B, -1)
            self.model.read(
                ids.to(device), positions=positions.to(device), vectors=self.seen_on(numbers).flatten(0, 2),
                memory=self.memory, last_only=True,
            )  # fmt: skip
            self.seen = end

    def asked(self, numbers: list[np.ndarray], questions: list[tuple[Asked, ...]], memory: Memory) -> float:
        """The share of these questions that is answered rightly after these frames."""
        rows = [without_opening(self.row(*one, self.seen)) for one in zip(numbers, questions, strict=True)]
        batch = collate(rows, self.model.config).to(self.model.device)
        return fmean(right for row in of_batch(Continued(self.model, memory), batch) for right in row)


def without_opening(row: Example) -> Example:
    """The row goes on where another ended."""
    return Example(row.ids[1:], row.positions[:, 1:], row.labels[1:], grids=row.grids, vectors=row.vectors)


@dataclass(frozen=True)
class Continued:
    """The model as it reads on after all that a memory holds."""

    model: InfiniteVL
    memory: Memory

    def read(self, ids: Tensor, **arguments) -> Tensor:
        return self.model.read(ids, memory=self.memory, **arguments)

    def score(self, x: Tensor) -> Tensor:
        return self.model.score(x)


def reset(memory: Memory) -> None:
    """Empty the linear layers' states. The windows stay as they are."""
    for layer in memory.layers:
        if isinstance(layer, LinearState):
            for x in layer.tensors().values():
                x.zero_()


def ages(model: InfiniteVL, data: Data, protocol: Protocol) -> dict[str, float]:
    watching, found = Watching(model, data, protocol), {}
    streams, cells = watching.streams, watching.settings.cells
    for age in sorted(protocol.ages):
        watching.watch(FACTS + age // cells - 1)
        last = [stream.numbers[watching.seen : watching.seen + 1] for stream in streams]
        later = [stream.numbers[watching.seen : watching.seen + watching.between] for stream in streams]
        new = [np.concatenate([stream.new_frames, own]) for stream, own in zip(streams, later, strict=True)]
        questions = [stream.old for stream in streams], [stream.new for stream in streams]
        found[f"age/{age}"] = watching.asked(last, questions[0], watching.memory.clone())
        found[f"fresh/{age}"] = watching.asked(new, questions[1], watching.memory.clone())
        emptied = watching.memory.clone()
        reset(emptied)
        found[f"after a reset/{age}"] = watching.asked(new, questions[1], emptied)
    return found
