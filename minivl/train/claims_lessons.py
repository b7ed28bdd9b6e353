"""What a run reads: examples by number, from the files that claims_data.py has made.

A step has either pictures or streams of one length. Which of them, and in which order, depends on the step's number and
the run's seed only: all arms of a seed read the same, but for those that may see a share of the examples. A decoder
that has learnt nothing begins with steps of lines to read and of nothing else, which teach it soonest where to look.

    step        0         1         2             3         4         5              …
    rows of     pictures  pictures  streams, 0/2  pictures  pictures  streams, 256/4      distance / facts
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ..processor import Processor
from .claims_arms import Arm, Protocol
from .claims_data import FRAMES, KINDS, PICTURES, SPLITS, STREAMS, lessons, streams_name
from .examples import Example
from .lessons import Lessons
from .sources import Shuffled, described

EVERY = 3  # one step in so many is of streams
LINES = 4  # one picture in so many is a line to read, the others are asked for attributes


class Pictures:
    """The examples of one part of the file, each with one picture."""

    def __init__(self, tensors: dict[str, Tensor], name: str):
        parts = ("ids", "labels", "positions", "grids", "vectors")
        self.ids, self.labels, self.positions, self.grids, self.vectors = (tensors[f"{name}.{x}"] for x in parts)
        self.tokens, self.cells = ([0, *tensors[f"{name}.{x}"].tolist()] for x in ("tokens", "cells"))

    def __len__(self) -> int:
        return len(self.tokens) - 1

    def __getitem__(self, number: int) -> Example:
        row = slice(self.tokens[number], self.tokens[number + 1])
        vectors = self.vectors[self.cells[number] : self.cells[number + 1]]
        grids = self.grids[number : number + 1]
        return Example(self.ids[row], self.positions[:, row], self.labels[row], grids=grids, vectors=vectors)


class Streams:
    """Streams of one length: what EncodedStreams gives, bit for bit, with nothing left to lay out."""

    def __init__(self, tensors: dict[str, Tensor], name: str, frames: Tensor):
        parts = ("ids", "labels", "numbers", "positions", "grids")
        self.ids, self.labels, self.numbers, self.positions, self.grids = (tensors[f"{name}.{x}"] for x in parts)
        self.frames = frames

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> Example:
        vectors = self.frames[self.numbers[number]].flatten(0, 1)
        return Example(self.ids[number], self.positions, self.labels[number], grids=self.grids, vectors=vectors)


@dataclass(frozen=True)
class FirstOnes:
    """The first `count` examples of a source."""

    source: Sequence[Example]
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Example:
        return self.source[number]


class Course:
    """The first `alone` examples are lines to read; all others are those of the lessons. They count from `first` on."""

    def __init__(self, lines: Shuffled, lessons: Lessons, *, alone: int, first: int):
        self.lines, self.lessons, self.alone, self.first = lines, lessons, alone, first
        self.description = f"from {first} on, {alone} of {described(lines)}; {described(lessons)}"

    def __getitem__(self, number: int) -> Example:
        number += self.first
        return self.lines[number] if number < self.alone else self.lessons[number - self.alone]


class Data:
    """All files of a folder."""

    def __init__(self, folder: Path, processor: Processor, protocol: Protocol):
        self.processor, self.protocol = processor, protocol
        self.frames, self._streams = load_file(folder / FRAMES), load_file(folder / STREAMS)
        pictures = load_file(folder / PICTURES)
        self.pictures = {part: {what: Pictures(pictures, f"{part}/{what}") for what in KINDS} for part in SPLITS}

    def streams(self, part: str, distance: int, facts: int) -> Streams:
        return Streams(self._streams, streams_name(part, distance, facts), self.frames[part])

    def lessons(self, arm: Arm, seed: int, *, first: int = 0) -> Course:
        """What this arm reads from step `first` on."""
        protocol = self.protocol
        sources = [*self.pictures["train"].values(), *(self.streams("train", *x) for x in lessons(protocol))]
        few = [FirstOnes(source, max(1, round(arm.examples * len(source)))) for source in sources]
        lines, others, *streams = (Shuffled(source, seed=seed) for source in few)
        pictures = Lessons(others, [lines], batch=1, every=LINES)
        mixed = Lessons(pictures, streams, batch=protocol.batch, every=EVERY)
        alone = protocol.batch * protocol.steps_alone(arm)
        return Course(lines, mixed, alone=alone, first=protocol.batch * first)
