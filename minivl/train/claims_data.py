"""What all arms read, made before the first run: pictures and frames, looked at once by the same eyes, and rows.

Several processes draw and lay out, and one looks; what they make goes into three files, which every run then reads from
memory that all runs share. Rows of streams that are asked the same way are equally long; those of pictures lie end to
end, `tokens` and `cells` telling where each ends.

    pictures.safetensors   PART/WHAT.{ids, labels, positions, grids, vectors, tokens, cells}   end to end
    streams.safetensors    PART/DISTANCE/FACTS.{ids, labels, positions, grids, numbers}        one row a stream
    frames.safetensors     PART                                                                one row a frame
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..checkpoint import load_model
from ..model import InfiniteVL
from ..processor import Processor, load_processor
from .claims_arms import Protocol
from .examples import Example
from .kept import drawn, seen
from .layout import DrawnFrames
from .saving import save_whole
from .sources import Conversations, exchanges
from .stream_examples import row_of
from .tiny_scores import ATTRIBUTES
from .tiny_settings import Settings as Looks
from .tiny_streams import StreamSettings, TinyStreams
from .tiny_world import TinyWorld

PICTURES, STREAMS, FRAMES = "pictures.safetensors", "streams.safetensors", "frames.safetensors"
SPLITS = {"train": "train", "test": "held-out seen fonts"}
KINDS = {"reading": ("reading",), "attributes": ATTRIBUTES}
LOOKS = Looks(sizes=(22, 32))  # letters that the tiny model's eyes can read
SOME = 100  # streams that a process lays out at a time
QUESTIONS = {"train": 6, "test": 1}  # that a stream is asked
LEAD = 64  # tokens of a stream before what is asked for
# (distance in tokens, facts) of the streams in training
LESSONS = ((0, 2), (256, 4), (32, 8), (1024, 4), (16, 2), (128, 15), (64, 4), (512, 8))
FACTS = 4  # known at once where distances are compared
FACTS_AT = 8  # windows: the distance at which numbers of facts are compared


def lessons(protocol: Protocol) -> list[tuple[int, int]]:
    """Distance and facts of the streams in training, in the order of their steps."""
    return [(distance, facts) for distance, facts in LESSONS if distance <= protocol.longest]


def tests(protocol: Protocol) -> dict[str, tuple[int, int]]:
    """Of each score of recall, the distance and the facts of its streams."""
    found = {f"recall/{windows}": (windows * protocol.window, FACTS) for windows in protocol.windows}
    return found | {f"facts/{facts}": (FACTS_AT * protocol.window, facts) for facts in protocol.facts}


def streams_of(protocol: Protocol, part: str, distance: int, facts: int) -> TinyStreams:
    """Streams that are all equally long, asked for what was shown `distance` tokens ago."""
    settings = StreamSettings(
        distance=(distance, distance), lead=(LEAD, LEAD), facts=facts, rewrites=1, not_shown=0,
        window=protocol.window, looks=protocol.looks, others=protocol.others,
    )  # fmt: skip
    return TinyStreams(SPLITS[part], settings=settings)


def make(eyes: Path, folder: Path, protocol: Protocol, *, workers: int = 0, device: str | None = None) -> None:
    """Everything that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    processor = load_processor(eyes)
    if not (folder / STREAMS).exists():
        save_whole(folder / STREAMS, laid_out(processor, protocol, workers=workers))
    if (folder / FRAMES).exists() and (folder / PICTURES).exists():
        return
    model = load_model(eyes, device=device)
    if not (folder / FRAMES).exists():
        pools = {part: DrawnFrames(streams_of(protocol, part, 0, 1).pool, processor) for part in SPLITS}
        save_whole(folder / FRAMES, {part: frames(model, own, workers=workers) for part, own in pools.items()})
    if not (folder / PICTURES).exists():
        tensors = {}
        for part, count in {"train": protocol.pictures, "test": protocol.tests}.items():
            for what in KINDS:
                rows = drawn(Conversations(of_kind(part, what), processor), count, workers=workers)
                own = end_to_end(seen(model, rows))
                tensors |= {f"{part}/{what}.{name}": x for name, x in own.items()}
        save_whole(folder / PICTURES, tensors)


def of_kind(part: str, what: str) -> TinyWorld:
    return TinyWorld(SPLITS[part], kinds=KINDS[what], settings=LOOKS)


def end_to_end(rows: Sequence[Example]) -> dict[str, Tensor]:
    """Few large tensors for many small ones."""
    found = {name: torch.cat([getattr(row, name) for row in rows]) for name in ("ids", "labels", "grids", "vectors")}
    found["positions"] = torch.cat([row.positions for row in rows], dim=1)
    ends = {"tokens": [len(row.ids) for row in rows], "cells": [len(row.vectors) for row in rows]}
    return found | {name: torch.tensor(sizes).cumsum(0) for name, sizes in ends.items()}


def frames(model: InfiniteVL, pool: DrawnFrames, *, workers: int) -> Tensor:
    """[frames, cells, D]: what is seen on each of a pool's frames; zeros for those that are never shown."""
    own = torch.stack([frame.vectors for frame in seen(model, drawn(pool, len(pool), workers=workers))])
    return own.new_zeros(len(pool.pool), *own.shape[1:]).index_copy(0, torch.tensor(pool.numbers), own)


def streams_name(part: str, distance: int, facts: int) -> str:
    return f"{part}/{distance}/{facts}"


def laid_out(processor: Processor, protocol: Protocol, *, workers: int) -> dict[str, Tensor]:
    """All streams as rows."""
    counts = {("train", *lesson): protocol.streams for lesson in lessons(protocol)}
    counts |= {("test", *test): protocol.tests for test in tests(protocol).values()}
    jobs = [(*which, *some) for which, count in counts.items() for some in pieces(count)]
    made = DataLoader(
        Rows(processor, protocol), sampler=jobs, batch_size=None, num_workers=workers, generator=torch.Generator()
    )
    parts: dict[str, list[dict[str, Tensor]]] = {}
    for job, rows in zip(jobs, made, strict=True):
        parts.setdefault(streams_name(*job[:3]), []).append(rows)
    tensors = {}
    for name, some in parts.items():
        tensors |= {f"{name}.{x}": torch.cat([rows[x] for rows in some]) for x in ("ids", "labels", "numbers")}
        tensors |= {f"{name}.{x}": some[0][x] for x in ("positions", "grids")}  # all have the same
    return tensors


def pieces(count: int) -> Iterable[tuple[int, int]]:
    return [(start, min(start + SOME, count)) for start in range(0, count, SOME)]


@dataclass(frozen=True)
class Rows:
    """Streams as rows whose frames are known by number."""

    processor: Processor
    protocol: Protocol

    def __getitem__(self, job: tuple[str, int, int, int, int]) -> dict[str, Tensor]:
        part, distance, facts, start, end = job
        streams = streams_of(self.protocol, part, distance, facts)
        own, some = streams.settings, [streams[number] for number in range(start, end)]
        clock = [at / own.fps for at in range(len(some[0]))]
        blank = torch.zeros(len(clock) * own.cells, 1)  # in the place of what is seen
        rows = [
            row_of(self.processor, clock, exchanges(stream, QUESTIONS[part]), size=own.frame, vectors=blank)
            for stream in some
        ]
        return {
            "ids": torch.stack([row.ids for row in rows]),
            "labels": torch.stack([row.labels for row in rows]),
            "numbers": torch.stack([torch.from_numpy(stream.numbers) for stream in some]),
            "positions": rows[0].positions,
            "grids": rows[0].grids,
        }
