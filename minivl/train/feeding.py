"""From examples by number to batches, each process its own part of every step, made ahead of time where wanted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import Config
from .distributed import Processes
from .examples import Batch, Example, collate
from .settings import Settings


def loader(data, config: Config, settings: Settings, group: Processes, done: int) -> DataLoader:
    """This process's batches of all steps that are left, in order."""
    numbers = (
        number
        for step in range(done, settings.steps)
        for number in group.mine(range(step * settings.batch, (step + 1) * settings.batch))
    )
    return DataLoader(
        ByNumber(data),
        sampler=Once(numbers),
        batch_size=settings.at_once,
        collate_fn=Collate(config),
        num_workers=settings.workers,
        generator=torch.Generator(),  # or it would take a number from everybody's
    )


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

    def __call__(self, examples: list[Example]) -> Batch:
        return collate(examples, self.config)
