"""Pictures from the host into a stream for a million tokens: the rate, and whether anything slows down or grows.

The time of a frame is the time between the ends of two frames on the device's clock, so it holds whatever a frame
waits for: the host's resizing too, where that is slower than the model. Early in the stream, and at its end, the
stream stands still for a moment: on copies of its memory tokens are decoded, and a frame alone is timed.
"""

import itertools
import statistics
from collections.abc import Iterator

import numpy as np

from ..stream import Stream
from .model_meter import Meter
from .model_rows import frame_alone, token_times

HEIGHT, WIDTH = 1080, 1920
PICTURES = 8  # different ones, in turn
EARLY = 100  # the frame that the last one is compared with
AROUND = 25  # frames to each side whose median is a frame's time
EVERY = 100  # frames from one look at memory to the next


def pictures() -> list[np.ndarray]:
    """1080p on the host, uint8: smooth shapes with noise on them."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    made = []
    for number in range(PICTURES):
        waves = np.sin((rows * (number + 1) + columns)[..., None] / np.array([97.0, 131.0, 173.0]))
        made.append((127 + 80 * waves + random.normal(0, 20, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8))
    return made


def measure(stream: Stream, frames: int, meter: Meter, *, tokens: int) -> dict:
    """A record of `frames` frames: their rate, their times early and late, and what was held meanwhile."""
    early = min(EARLY, max(1, frames // 4))
    pause = min(early + AROUND + 1, frames // 2)
    source, memory = endless(), []
    meter.begin_peak()
    first, _ = watch(stream, source, pause, meter, memory)
    moments = {}

    def stand_still(name: str) -> None:
        after = statistics.median(token_times(stream.model, stream.memory.clone(), meter, tokens))
        moments[name] = {"frame": stream.frames_seen, "tokens_seen": stream.tokens_seen, "token_ms": after}
        moments[name]["frame_alone_ms"] = frame_alone(stream, meter)

    streaming_peak = meter.peak()
    stand_still("early")
    meter.begin_peak()
    rest, seconds = watch(stream, source, frames - pause, meter, memory)
    streaming_peak = max(streaming_peak, meter.peak()) if meter.cuda else None
    stand_still("late")
    times = [*first, None, *rest[1:]]  # the frame after the pause waited for it
    at_early, at_late = around(times, early), around(times, frames)
    held = {row["allocated"] if meter.cuda else row["memory_bytes"] for row in memory if row["frame"] > pause}
    return {
        "frames": frames,
        "tokens": stream.tokens_seen,
        "picture": [HEIGHT, WIDTH],
        "frames_a_second": (frames - pause) / seconds,
        "early_frame": early,
        "early_ms": at_early,
        "late_ms": at_late,
        "interval_late_against_early": at_late / at_early - 1,
        "frame_alone_late_against_early": moments["late"]["frame_alone_ms"] / moments["early"]["frame_alone_ms"] - 1,
        "token_late_against_early": moments["late"]["token_ms"] / moments["early"]["token_ms"] - 1,
        "moments": moments,
        "peak": streaming_peak,
        "memory": memory,
        "memory_constant": len(held) <= 1,
        "curve": curve(times),
    }


def endless() -> Iterator[np.ndarray]:
    made = pictures()
    while True:
        yield from made


def watch(stream: Stream, source: Iterator, count: int, meter: Meter, memory: list) -> tuple[list[float], float]:
    """`count` frames: milliseconds from the end of one to the end of the next, and seconds for all on the host."""
    marks = [meter.mark()]

    def one_by_one() -> None:
        for frame in stream.ahead(itertools.islice(source, count)):
            stream.watch(frame)
            marks.append(meter.mark())
            if stream.frames_seen % EVERY == 0:
                look(stream, meter, memory)

    seconds = meter.wall(one_by_one) / 1e3
    return [meter.between(*pair) for pair in itertools.pairwise(marks)], seconds


def look(stream: Stream, meter: Meter, memory: list) -> None:
    memory.append({"frame": stream.frames_seen, "memory_bytes": stream.memory.nbytes, "allocated": meter.allocated()})


def around(times: list[float | None], frame: int) -> float:
    """The median time of the frames near this one, counted from 1."""
    near = times[max(0, frame - 1 - AROUND) : frame + AROUND]
    return statistics.median(ms for ms in near if ms is not None)


def curve(times: list[float | None], points: int = 100) -> list[dict]:
    """Medians of runs of frames: what the plot draws."""
    run = max(1, len(times) // points)
    rows = []
    for start in range(0, len(times), run):
        if kept := [ms for ms in times[start : start + run] if ms is not None]:
            rows.append({"frame": start + 1 + (len(kept) - 1) / 2, "ms": statistics.median(kept)})
    return rows
