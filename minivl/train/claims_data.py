"""What all arms read, made before the first run: pictures and frames, looked at once by the same eyes, and rows.

As many processes as there are cores draw, encode and lay out; what they make goes into three files, which every run
then reads. The rows of one kind are equally long, so that no step needs padding.

    pictures.safetensors   PART.{ids, labels, positions, grids, vectors, ends}        one row a picture
    streams.safetensors    PART/DISTANCE/FACTS.{ids, labels, positions, grids, numbers}   one row a stream
    frames.safetensors     PART                                                       one row a frame of the pool
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoint import load
from .claims_arms import Protocol
from .encoded import encoded, with_vectors
from .examples import IGNORED
from .saving import DRAFT
from .sources import Conversations, exchanges
from .stream_examples import row_of
from .tiny_scores import ATTRIBUTES
from .tiny_settings import Settings as Looks
from .tiny_streams import StreamSettings, TinyStreams
from .tiny_world import TinyWorld

PICTURES, STREAMS, FRAMES = "pictures.safetensors", "streams.safetensors", "frames.safetensors"
SPLITS = {"train": "train", "test": "held-out seen fonts"}
LOOKS = Looks(sizes=(22, 32))  # letters that the tiny model's eyes can read
SOME = 100  # that a process makes at a time
QUESTIONS = {"train": 6, "test": 1}  # that a stream is asked
LEAD = 64  # tokens of a stream before what is asked for
# (distance in tokens, facts) of the streams in training
LESSONS = ((0, 2), (256, 4), (32, 8), (1024, 4), (16, 2), (128, 15), (64, 4), (512, 8))
FACTS = 4  # known at once where distances are compared
FACTS_AT = 8  # windows: the distance at which numbers of facts are compared


def kind_of(number: int) -> str:
    """Every other picture is one to read."""
    return "reading" if number % 2 == 0 else ATTRIBUTES[number // 2 % len(ATTRIBUTES)]


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


Spread = Callable[[Callable, Sequence[tuple]], list]  # gives function(*job) of each job, in order


def make(eyes: Path, folder: Path, protocol: Protocol, spread: Spread) -> None:
    """Everything that is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PICTURES).exists():
        counts = {"train": protocol.pictures, "test": 2 * protocol.tests}
        jobs = [(eyes, part, *some) for part, count in counts.items() for some in pieces(count)]
        made = list(zip(jobs, spread(see_pictures, jobs), strict=True))
        rows = {part: [row for job, some in made if job[1] == part for row in some] for part in counts}
        save(folder / PICTURES, {f"{part}.{name}": x for part in counts for name, x in filled_up(rows[part]).items()})
    if not (folder / FRAMES).exists():
        count = len(streams_of(protocol, "train", 0, 1).pool)
        jobs = [(eyes, protocol, part, *some) for part in SPLITS for some in pieces(count)]
        made = list(zip(jobs, spread(see_frames, jobs), strict=True))
        save(folder / FRAMES, {part: cat([x for job, x in made if job[2] == part]) for part in SPLITS})
    if not (folder / STREAMS).exists():
        asked = {("train", *lesson): protocol.streams for lesson in lessons(protocol)}
        asked |= {("test", *test): protocol.tests for test in tests(protocol).values()}
        jobs = [(eyes, protocol, *which, *some) for which, count in asked.items() for some in pieces(count)]
        made = list(zip(jobs, spread(lay_out, jobs), strict=True))
        tensors = {}
        for which in asked:
            parts = [rows for job, rows in made if job[2:5] == which]
            for name in ("ids", "labels", "numbers"):
                tensors[f"{streams_name(*which)}.{name}"] = cat([rows[name] for rows in parts])
            for name in ("positions", "grids"):  # all have the same
                tensors[f"{streams_name(*which)}.{name}"] = torch.from_numpy(parts[0][name])
        save(folder / STREAMS, tensors)


def streams_name(part: str, distance: int, facts: int) -> str:
    return f"{part}/{distance}/{facts}"


def pieces(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + SOME, count)) for start in range(0, count, SOME)]


def cat(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Whole, or not at all."""
    draft = path.with_name(path.name + DRAFT)
    save_file({name: x.contiguous() for name, x in tensors.items()}, draft)
    os.replace(draft, path)


# What one process makes of one job; as NumPy's arrays, which go from process to process.


@cache
def eyes_of(folder: Path):
    """Once in each process."""
    return load(folder, device="cpu", dtype=torch.float32)


def see_pictures(eyes: Path, part: str, start: int, end: int) -> list[dict[str, np.ndarray]]:
    """Pictures number `start` to `end`, and what is asked about them."""
    model, processor = eyes_of(eyes)
    source = Conversations(_ByKind(TinyWorld(SPLITS[part], settings=LOOKS)), processor)
    examples = with_vectors(model, [source[number] for number in range(start, end)])
    names = ("ids", "labels", "positions", "grids", "vectors")
    return [{name: getattr(example, name).numpy() for name in names} for example in examples]


@dataclasses.dataclass(frozen=True)
class _ByKind:
    world: TinyWorld

    def __getitem__(self, number: int):
        return self.world.of(kind_of(number), number)


def see_frames(eyes: Path, protocol: Protocol, part: str, start: int, end: int) -> np.ndarray:
    """Frames number `start` to `end` of the pool."""
    model, processor = eyes_of(eyes)
    pool = streams_of(protocol, part, 0, 1).pool
    return encoded(model, processor, [pool[number] for number in range(start, end)]).numpy()


def lay_out(
    eyes: Path, protocol: Protocol, part: str, distance: int, facts: int, start: int, end: int
) -> dict[str, np.ndarray]:
    """Streams number `start` to `end`, as rows whose frames are known by number."""
    _, processor = eyes_of(eyes)
    streams = streams_of(protocol, part, distance, facts)
    own = streams.settings
    drawn = [streams[number] for number in range(start, end)]
    clock = [at / own.fps for at in range(len(drawn[0]))]
    blank = torch.zeros(len(clock) * own.cells, 1)  # in the place of what is seen
    rows = [
        row_of(processor, clock, exchanges(stream, QUESTIONS[part]), size=own.frame, vectors=blank) for stream in drawn
    ]
    return {
        "ids": torch.stack([row.ids for row in rows]).int().numpy(),
        "labels": torch.stack([row.labels for row in rows]).int().numpy(),
        "numbers": np.stack([stream.numbers for stream in drawn]).astype(np.int32),
        "positions": rows[0].positions.numpy(),
        "grids": rows[0].grids.numpy(),
    }


def filled_up(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Rows of one length, filled up on the right: no label is there, and nothing before looks at it."""
    T = max(len(row["ids"]) for row in rows)
    ids, labels = torch.zeros(len(rows), T, dtype=torch.int64), torch.full((len(rows), T), IGNORED)
    positions = torch.zeros(len(rows), 3, T, dtype=torch.int64)
    for number, row in enumerate(rows):
        more = T - len(row["ids"])
        own = torch.from_numpy(row["positions"])
        ids[number] = F.pad(torch.from_numpy(row["ids"]), (0, more), value=int(row["ids"][-1]))
        labels[number, : T - more] = torch.from_numpy(row["labels"])
        positions[number] = torch.cat([own, own[:, -1:] + torch.arange(1, more + 1)], dim=1)
    ends = torch.tensor([len(row["vectors"]) for row in rows]).cumsum(0)
    vectors, grids = (cat([row[name] for row in rows]) for name in ("vectors", "grids"))
    return {"ids": ids, "labels": labels, "positions": positions, "grids": grids, "vectors": vectors, "ends": ends}
