"""What a run reads: examples by number, from the files that claims_data.py has made.

A step has either pictures or streams of one length. Which of them, and in which order, depends on the step's number and
the run's seed only: all arms of a seed read the same, but for those that may see a share of the examples.

    step        0         1             2         3               4         5             …
    rows of     pictures  streams, 0/4  pictures  streams, 256/8  pictures  streams, 32/8      distance / facts
"""

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from ..processor import Processor
from .claims_arms import Arm, Protocol
from .claims_data import FRAMES, PICTURES, SPLITS, STREAMS, lessons, streams_name
from .examples import Example
from .lessons import Lessons
from .sources import Shuffled


class Pictures:
    """The examples of one part of the file, each with one picture."""

    def __init__(self, tensors: dict[str, Tensor], part: str):
        self.rows = {name: tensors[f"{part}.{name}"] for name in ("ids", "labels", "positions")}
        self.grids, self.vectors = tensors[f"{part}.grids"], tensors[f"{part}.vectors"]
        self.ends = tensors[f"{part}.ends"].tolist()

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> Example:
        start = self.ends[number - 1] if number else 0
        row = {name: x[number] for name, x in self.rows.items()}
        return Example(**row, grids=self.grids[number : number + 1], vectors=self.vectors[start : self.ends[number]])


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
        ids, labels = self.ids[number].long(), self.labels[number].long()
        return Example(ids, self.positions, labels, grids=self.grids, vectors=vectors)


@dataclass(frozen=True)
class FirstOnes:
    """The first `count` examples of a source."""

    source: object
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Example:
        return self.source[number]


class Data:
    """All files of a folder."""

    def __init__(self, folder: Path, processor: Processor, protocol: Protocol):
        self.processor, self.protocol = processor, protocol
        self.frames, self._streams = load_file(folder / FRAMES), load_file(folder / STREAMS)
        pictures = load_file(folder / PICTURES)
        self.pictures = {part: Pictures(pictures, part) for part in SPLITS}

    def streams(self, part: str, distance: int, facts: int) -> Streams:
        return Streams(self._streams, streams_name(part, distance, facts), self.frames[part])

    def lessons(self, arm: Arm, seed: int, *, first: int = 0) -> Lessons:
        """What this arm reads from step `first` on."""
        sources = [self.pictures["train"], *(self.streams("train", *lesson) for lesson in lessons(self.protocol))]
        few = [FirstOnes(source, max(1, round(arm.examples * len(source)))) for source in sources]
        pictures, *streams = (Shuffled(source, seed=seed) for source in few)
        return Lessons(pictures, streams, batch=self.protocol.batch, first=first)
