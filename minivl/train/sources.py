"""Where examples come from: by number, without end, each the same whenever it is asked for.

That is all that the trainer asks of a source, `source[number]`, and it is why a run can go on anywhere, in any number
of processes. A source's `description` tells it from others: a run goes on with the same source only.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..ops import checks
from ..processor import Processor
from .examples import Example, example_of
from .stream_examples import stream_example


class Shuffled:
    """Finitely many examples, without end: each round is another order of all of them."""

    def __init__(self, examples: Sequence[Example], *, seed: int = 0, description: str = ""):
        if not len(examples):
            raise ValueError("there are no examples to shuffle; there should be at least one")
        self.examples, self.seed = examples, seed
        self.description = f"{description or type(examples).__name__}, {len(examples)} examples, shuffled by {seed}"

    def __getitem__(self, number: int) -> Example:
        turn, place = divmod(number, len(self.examples))
        return self.examples[int(order(len(self.examples), self.seed, turn)[place])]


@functools.lru_cache(maxsize=64)
def order(count: int, seed: int, turn: int) -> Tensor:
    """The order of `count` things in round number `turn`."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + turn)  # of which the low 32 bits count
    return torch.randperm(count, generator=generator)


class Mixed:
    """Several sources: which one number n comes from is drawn by its share, and the source is asked for number n."""

    def __init__(self, shares: Sequence[tuple[float, object]], *, seed: int = 0):
        self.sources, self.seed = [source for _, source in shares], seed
        weights = np.array([share for share, _ in shares], dtype=float)
        if not len(weights) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
            raise ValueError(f"the shares are {weights.tolist()}; they should be at least 0, and one of them above")
        self.steps = np.cumsum(weights) / weights.sum()
        parts = ", ".join(f"{share} of {described(source)}" for share, source in shares)
        self.description = f"mixed by {seed}: {parts}"

    def __getitem__(self, number: int) -> Example:
        return self.source_of(number)[number]

    def source_of(self, number: int):
        """The source that number n comes from."""
        drawn = np.random.default_rng([self.seed, number]).random()
        return self.sources[int(np.searchsorted(self.steps, drawn, side="right"))]


class Conversations:
    """Samples by number, each with `messages` that ask and an `answer`, as a processor lays them out."""

    def __init__(self, samples, processor: Processor):
        self.samples, self.processor = samples, processor
        self.description = f"conversations of {samples!r}"

    def __getitem__(self, number: int) -> Example:
        return self.example(self.samples[number])

    def example(self, sample) -> Example:
        return example_of(self.processor, [*sample.messages, {"role": "assistant", "content": sample.answer}])


class Streams:
    """Streams by number, each with `frames` and the `questions` that are asked at its end, one after another.

    `questions`: how many of them, from the first on; all where it is not said.
    """

    def __init__(self, streams, processor: Processor, *, size: tuple[int, int], questions: int | None = None):
        self.streams, self.processor, self.size, self.questions = streams, processor, size, first_ones(questions)
        self.description = f"streams of {streams!r} at {size}{asking(questions)}"

    def __getitem__(self, number: int) -> Example:
        stream = self.streams[number]
        frames = ((frame.picture.image, frame.seconds) for frame in stream.frames)
        return stream_example(self.processor, frames, exchanges(stream, self.questions), size=self.size)


def exchanges(stream, questions: int | None) -> list[dict]:
    """The conversation at a stream's end: its first questions, each with its answer."""
    return [
        message
        for asked in stream.questions[:questions]
        for message in (*asked.messages, {"role": "assistant", "content": asked.answer})
    ]


def first_ones(questions: int | None) -> int | None:
    """How many of a stream's questions are asked; None of all."""
    if questions is not None:
        checks.positive("questions", questions)
    return questions


def asking(questions: int | None) -> str:
    """For a source's description."""
    return "" if questions is None else f", the first {questions} of their questions"


def described(source) -> str:
    """What tells one source of examples from another: its own `description`, or what it is."""
    return str(getattr(source, "description", type(source).__name__))
