"""The loop of a stream, by a clock of its own: late frames, live sources, and how much is kept of the past."""

import pytest
import torch
from PIL import Image

from minivl.commands.sources import Frame, Synthetic
from minivl.commands.stream_figures import FrameTimes, Thinned
from minivl.commands.watching import Watching
from minivl.stream import Stream

from . import streaming
from .streaming import MODEL, OPTIONS, PROCESSOR, SIZE

keyboard, pytestmark = streaming.keyboard, pytest.mark.usefixtures("keyboard")


class FakeClock:
    """Time passes only when someone sleeps, or while a frame is watched."""

    def __init__(self):
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class SlowStream(Stream):
    """Takes 0.1 seconds for a frame, or what `costs` say for the frame of this time; absorbs none."""

    def __init__(self, clock: FakeClock, costs: dict[float, float]):
        super().__init__(MODEL, PROCESSOR, size=SIZE)
        self.slow, self.costs, self.watched = clock, costs, []

    def watch(self, frame, *, seconds=None) -> None:
        self.slow.time += self.costs.get(seconds, 0.1)
        self.watched.append(seconds)


def watched(costs: dict[float, float], **options) -> tuple[Watching, SlowStream]:
    clock = FakeClock()
    stream = SlowStream(clock, costs)
    loop = Watching(stream, Synthetic(9, size=SIZE), [], fps=1.0, options=OPTIONS, clock=clock, **options)
    loop.run()
    return loop, stream


COSTS = {1: 3.5, 7: 1.5}  # frame 1 takes until 4.5; frame 7 until 8.5, when 8 is not late yet


@pytest.mark.parametrize(
    ("options", "seen", "late", "dropped", "ends"),
    [
        ({"realtime": True, "drop_late": True}, [0, 1, 4, 5, 6, 7, 8], 0, 2, 8.6),
        ({"realtime": True}, [0, 1, 2, 3, 4, 5, 6, 7, 8], 2, 0, 8.6),
        ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8], 0, 0, 0.1 * 7 + 5),
    ],
    ids=["dropped", "late", "as fast as it goes"],
)
def test_frames_that_are_late_are_dropped_if_asked_and_counted(options, seen, late, dropped, ends):
    loop, stream = watched(COSTS, **options)
    assert stream.watched == seen
    assert (loop.figures.watched, loop.figures.late, loop.figures.dropped) == (len(seen), late, dropped)
    assert loop.clock.time == pytest.approx(100 + ends)
    assert loop.figures.worst == pytest.approx(3.5)


class Behind(SlowStream):
    """Works on after the call, as a GPU does; a call that finds two frames unfinished waits for the first of them."""

    def __init__(self, clock: FakeClock, costs: dict[float, float]):
        super().__init__(clock, costs)
        self.done = []

    def watch(self, frame, *, seconds=None) -> None:
        if len(self.done) > 1:
            self.slow.time = max(self.slow.time, self.done[-2])
        self.done.append(max([self.slow.time, *self.done[-1:]]) + self.costs[seconds])
        self.watched.append(seconds)


@pytest.mark.parametrize("cost", [1.5, 2.5, 7.0])
def test_a_stream_that_works_on_after_the_call_is_never_far_behind(cost):
    """Late by a second at most when it is taken up, with two frames before it, and then its own time."""
    clock = FakeClock()
    stream = Behind(clock, dict.fromkeys(range(80), cost))
    options = {"realtime": True, "drop_late": True}
    loop = Watching(stream, Synthetic(80, size=SIZE), [], fps=1.0, options=OPTIONS, clock=clock, **options)
    loop.run()
    behind = [done - 100 - due for done, due in zip(stream.done, stream.watched, strict=True)]
    assert max(behind) <= 1 + 3 * cost
    assert loop.figures.dropped == 80 - len(stream.watched)
    assert 0 <= len(stream.watched) - 80 / cost <= 3


def test_times_on_a_gpu_are_told_when_frames_are_over_and_nobody_waits(monkeypatch):
    class Event:
        now, over = 0.0, 0.0

        def __init__(self, *, enable_timing: bool):
            assert enable_timing

        def record(self) -> None:
            self.at = Event.now

        def query(self) -> bool:
            return self.at <= Event.over

        def elapsed_time(self, other: "Event") -> float:
            return 1e3 * (other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 7)
    times = FrameTimes(None, torch.device("cuda"))
    for start, end in ((0, 2), (2, 5), (5, 9)):
        for Event.now, act in ((start, times.begin), (end, times.end)):
            act()
    assert list(times.over()) == []
    Event.over = 6.0
    assert list(times.over()) == [(2.0, 7), (3.0, 7)]
    Event.over = 9.0
    assert list(times.over()) == [(4.0, 7)]
    assert list(times.over()) == []


def test_a_live_source_is_never_paced_and_goes_on_after_a_resumed_stream():
    class Camera:
        live, name, ended, dropped = True, "camera", "camera is gone", 3

        def frames(self, fps):
            for number in range(3):
                yield None
                clock.time += 1.0
                yield Frame(float(number), Image.new("RGB", (SIZE, SIZE)))

    clock = FakeClock()
    stream = SlowStream(clock, {43.5: 5.0})
    stream.frames_seen, stream._clock = 1, (41.5, 0)
    loop = Watching(stream, Camera(), [], fps=1.0, options=OPTIONS, clock=clock, drop_late=True)
    loop.run()
    assert stream.watched == [42.5, 43.5]
    assert loop.figures.dropped == 1 + 3
    assert loop.ended == "camera is gone"


@pytest.mark.parametrize("limit", [2, 5])
def test_what_is_kept_of_the_past_is_evenly_spaced_and_bounded(limit):
    thinned = Thinned(limit)
    for number in range(1000):
        thinned.add(number)
        kept = [item for _, item in thinned.kept]
        assert 1 <= len(kept) <= limit
        assert kept == list(range(0, number + 1, thinned.stride))[: len(kept)]
        assert number - kept[-1] < thinned.stride


def test_frames_that_the_stream_refuses_are_skipped():
    class Twice:
        live, name, ended = False, "twice", ""

        def frames(self, fps):
            for seconds in (0.0, 1.0, 0.5, 1.0, 2.0):
                yield Frame(seconds, Image.new("RGB", (SIZE, SIZE)))

    stream = Stream(MODEL, PROCESSOR, size=SIZE)
    loop = Watching(stream, Twice(), [], fps=1.0, options=OPTIONS)
    loop.run()
    assert (stream.frames_seen, stream.seconds, loop.figures.skipped) == (4, 2.0, 1)
    assert "time cannot run backwards" in loop.figures.faults[0]
