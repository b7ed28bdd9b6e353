"""What is counted and kept of a stream's run, in a fixed size however long it runs, and its summary.

Of all frames' times, and of their thumbnails, only some are kept, evenly spaced: when there are too many, every other
one goes, and from then on only every other one is taken.
"""

import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from PIL import Image

from ..layers.int8 import nbytes
from ..stream import Stream


class Thinned:
    """Evenly spaced ones of all that was added, never more than `limit`, the first among them."""

    def __init__(self, limit: int):
        self.limit, self.stride, self.count, self.kept = limit, 1, 0, []

    def takes_next(self) -> bool:
        return self.count % self.stride == 0

    def add(self, item) -> None:
        if self.takes_next():
            self.kept.append((self.count, item))
        self.count += 1
        if len(self.kept) > self.limit:
            self.kept, self.stride = self.kept[::2], 2 * self.stride


class FrameTimes:
    """How long each frame took, once it is over.

    A GPU works on after the call. So there its own clock is read, of each frame when the frame is done, and nobody
    waits for that.
    """

    def __init__(self, now: Callable[[], float], device: torch.device):
        self.now, self.device, self.frames = now, device, deque()

    def begin(self) -> None:
        self.started = self._moment()

    def end(self) -> None:
        on_gpu = self.device.type == "cuda"
        self.frames.append((self.started, self._moment(), torch.cuda.memory_allocated(self.device) if on_gpu else None))

    def over(self) -> Iterator[tuple[float, int | None]]:
        """Seconds, and bytes on the GPU, of those that have ended and were not told yet, in their order."""
        while self.frames and (self.device.type != "cuda" or self.frames[0][1].query()):
            start, end, allocated = self.frames.popleft()
            yield (start.elapsed_time(end) / 1e3 if self.device.type == "cuda" else end - start), allocated

    def _moment(self):
        if self.device.type != "cuda":
            return self.now()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@dataclass
class Asked:
    """A question at its time in the stream, and what became of it."""

    seconds: float
    question: str
    frames: int
    answer: str = ""
    fault: str | None = None
    interrupted: bool = False
    first: float | None = None  # seconds to the answer's first piece
    took: float = 0.0
    thumbnail: Image.Image | None = None


@dataclass
class Figures:
    """What was counted and measured, of this run."""

    watched: int = 0
    skipped: int = 0  # unreadable, or refused by the stream
    late: int = 0  # watched all the same
    dropped: int = 0
    seen_before: int = 0  # of a recorded source that a resumed stream goes on with
    faults: list[str] = field(default_factory=list)
    worst: float = 0.0
    latency: Thinned = field(default_factory=lambda: Thinned(4096))  # (seconds, bytes of memory, bytes on the GPU)
    thumbnails: Thinned = field(default_factory=lambda: Thinned(12))  # (seconds, picture)


def summary(watching, *, load: float, saved: str | None) -> dict:
    """What --json prints, and the report shows."""
    figures, stream = watching.figures, watching.stream
    run = watching.ended_at - watching.began
    watching_alone = run - sum(asked.took for asked in watching.asked)
    times = [took for _, (took, _, _) in figures.latency.kept]
    on_gpu = stream.model.device.type == "cuda"
    return {
        "source": watching.source.name,
        "ended": "Ctrl-C" if watching.stop.pressed else watching.ended or "at its end",
        "interrupted": watching.stop.pressed,
        "frames": {name: getattr(figures, name) for name in ("watched", "skipped", "late", "dropped", "seen_before")},
        "frames_seen": stream.frames_seen,
        "tokens_seen": stream.tokens_seen,
        "stream_seconds": round(stream.seconds, 3),
        "seconds": {"load": round(load, 4), "run": round(run, 4)},
        "frames_per_second": round(figures.watched / watching_alone, 2) if watching_alone > 0 else None,
        "frame_milliseconds": {
            "median": round(1e3 * statistics.median(times), 3) if times else None,
            "worst": round(1e3 * figures.worst, 3) if times else None,
        },
        "memory_bytes": stream.memory.nbytes,
        "peak_device_bytes": torch.cuda.max_memory_allocated(stream.model.device) if on_gpu else None,
        "answers": [
            {
                "seconds": asked.seconds,
                "frames": asked.frames,
                "question": asked.question,
                "answer": asked.answer,
                "fault": asked.fault,
                "interrupted": asked.interrupted,
                "first_piece_seconds": None if asked.first is None else round(asked.first, 4),
                "took_seconds": round(asked.took, 4),
            }
            for asked in watching.asked
        ],
        "unasked": [question for _, question in watching.questions],
        "faults": figures.faults,
        "saved": saved,
    }


def thumbnail(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((240, 240))
    return small


def too_large(stream: Stream, *, question: bool = False) -> str:
    """Out of memory, and what would fit."""
    cell, (height, width) = stream.processor.settings.cell, stream.size
    less = [max(cell, round(side * 0.7) // cell * cell) for side in (height, width)]
    weights = nbytes(stream.model)
    takes = f"the weights take {weights / 1e9:.2f} GB and the stream's memory {stream.memory.nbytes / 1e9:.3f} GB"
    if question:
        return f"{stream.model.device} is out of memory: {takes}, and a question needs as much again as the latter"
    share = less[0] * less[1] / (height * width)
    return (
        f"{stream.model.device} is out of memory for a frame of {width}×{height}: {takes}; "
        f"--size {less[1]} would need about {share:.0%} of what the frame does"
    )
