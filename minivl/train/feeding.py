"""From examples by number to batches, each process its own part of every step, made ahead of time where wanted.

A step is cut into passes in one of two ways. By number: so many examples to a pass, in their order. Or packed by
length: the step's examples are sorted, the longest first, and a pass takes as many as fit into so many tokens, filling
counted in. The loss is a sum over the step, so that neither changes more than rounding; but a step of short and long
rows holds hardly any filling when it is packed, and its passes are of one size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import Config
from .distributed import Processes
from .examples import Batch, Example, collate
from .settings import Settings


def loader(data, config: Config, settings: Settings, group: Processes, done: int) -> DataLoader:
    """This process's part of all steps that are left, in order: batch by batch or, packed, step by step."""
    steps = (
        group.mine(range(step * settings.batch, (step + 1) * settings.batch)) for step in range(done, settings.steps)
    )
    return DataLoader(
        ByNumber(data),
        sampler=Once(number for step in steps for number in step),
        batch_size=settings.at_once if settings.tokens_at_once is None else settings.batch // group.count,
        collate_fn=Collate(config, settings.tokens_at_once),
        num_workers=settings.workers,
        generator=torch.Generator(),  # or it would take a number from everybody's
    )


def next_step(made: Iterator, settings: Settings, group: Processes) -> list[Batch]:
    """The next step's batches."""
    passes = settings.passes(group.count)
    return next(made) if settings.tokens_at_once is not None else [next(made) for _ in range(passes)]


class ByNumber(Dataset):
    """`data`, whatever else it is."""

    def __init__(self, data):
        self.data = data

    def __getitem__(self, number: int) -> Example:
        return self.data[number]


class Once(Sampler):
    """These numbers, one after the other."""

    def __init__(self, numbers: Iterable[int]):
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


@dataclass(frozen=True)
class Collate:
    config: Config
    tokens: int | None = None

    def __call__(self, examples: list[Example]) -> Batch | list[Batch]:
        if self.tokens is None:
            return collate(examples, self.config)
        return [collate(some, self.config) for some in packed(examples, self.tokens)]


def packed(examples: Sequence[Example], tokens: int) -> list[list[Example]]:
    """The examples, longest first, cut where a rectangle of the longest would hold more than `tokens`.

    Pixels and vectors go apart, since a batch has its pictures in one form.
    """
    passes: list[list[Example]] = []
    for example in sorted(examples, key=lambda example: (example.vectors is None, -len(example.ids))):
        longest = passes[-1][0] if passes else example
        alike = (longest.vectors is None) == (example.vectors is None)
        if passes and alike and len(longest.ids) * (len(passes[-1]) + 1) <= tokens:
            passes[-1].append(example)
        else:
            passes.append([example])
    return passes
