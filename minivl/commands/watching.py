"""The loop of a stream: frames from a source are watched, and questions asked when their time has come.

A recorded source waits for the model, unless it is paced by its own times; its pictures are made ready ahead, in
threads. A live one does not wait: a frame is late when the next is due before it was taken up, and late frames may be
dropped. A GPU is two frames behind at most when a frame is taken up. What is kept of the past is of a fixed size.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing

import torch

from ..frames import Ready, ahead
from ..stream import WORKERS, Stream
from .conversation import printed
from .faults import memory_told
from .sources import Frame
from .stream_figures import Asked, Figures, FrameTimes, thumbnail, too_large
from .stream_terminal import Live, Stop, Typed

END = float("inf")  # the time of a question that is asked when the stream is over
TICK = 0.05  # seconds of waiting after which typed questions and Ctrl-C are looked for
REDRAWN = 0.2  # seconds between two live lines
TOLD = 20  # faults that are told one by one; the others are counted


class Clock:
    def now(self) -> float:
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Watching:
    def __init__(
        self,
        stream: Stream,
        source,
        questions: list[tuple[float, str]],
        *,
        fps: float,
        options: dict,
        seconds: float | None = None,
        max_frames: int | None = None,
        realtime: bool = False,
        drop_late: bool = False,
        quiet: bool = False,
        pictures: bool = False,
        clock: Clock | None = None,
        live: Live | None = None,
        typed: Typed | None = None,
    ):
        self.stream, self.source, self.fps, self.options = stream, source, fps, options
        self.questions = deque(sorted(questions, key=lambda question: question[0]))
        self.seconds, self.max_frames, self.drop_late = seconds, max_frames, drop_late
        self.paced, self.on_time = realtime and not source.live, realtime or source.live
        self.quiet, self.pictures, self.clock = quiet, pictures, clock or Clock()
        self.live, self.typed, self.stop = live or Live(), typed or Typed(), Stop()
        self.figures, self.asked, self.ended = Figures(), [], ""
        self.began = self.ended_at = self.origin = self.clock.now()
        self.behind, self.redrawn, self.recent, self.latest = 0.0, 0.0, deque(maxlen=30), None
        self.before = stream.seconds if stream.frames_seen else -1.0  # of a recorded source this has been watched
        self.times = FrameTimes(self.clock.now, stream.model.device)

    def run(self) -> None:
        """Until the source ends, a limit is reached, or Ctrl-C."""
        with self.stop:
            try:
                self.began = self.clock.now()
                with closing(self.source.frames(self.fps)) as frames, closing(self.in_turn(frames)) as in_turn:
                    self.watch_all(in_turn)
                self.figures.dropped += getattr(self.source, "dropped", 0)
                self.ended = self.ended or self.source.ended
                if self.source.ended:
                    self.live.note(self.source.ended)
                if not self.stop.pressed:
                    self.ask_typed(last=True)
                    self.ask_until(END)
                if self.stream.model.device.type == "cuda":
                    torch.cuda.synchronize(self.stream.model.device)
                self.count_times()
            finally:
                self.ended_at = self.clock.now()
                self.live.clear()

    def in_turn(self, frames: Iterator[Frame | None]) -> Iterator[tuple[Frame | None, Ready | None]]:
        """The frames, each with its picture made ready where that can be done ahead."""
        if self.source.live:
            return ((frame, None) for frame in frames)
        return ahead(self.made_ready, frames, workers=WORKERS)

    def made_ready(self, frame: Frame) -> tuple[Frame, Ready | None]:
        wanted = frame.picture is not None and frame.seconds > self.before
        return frame, self.stream.ready(frame.picture) if wanted else None

    def watch_all(self, frames: Iterator[tuple[Frame | None, Ready | None]]) -> None:
        first, resumed = None, self.stream.frames_seen > 0
        offset = self.before + 1 / self.fps if resumed and self.source.live else 0.0
        for frame, ready in frames:
            self.ask_typed()
            if self.stop.pressed:
                return
            if frame is None:
                self.redraw()
                continue
            if not self.source.live and frame.seconds <= self.before:
                self.figures.seen_before += 1
                continue
            seconds = frame.seconds + offset
            if first is None:
                first, self.origin = seconds, self.clock.now() - seconds
            if self.seconds is not None and seconds - first >= self.seconds:
                self.ended = "--seconds"
                return
            self.ask_until(seconds)
            self.wait(seconds)
            if self.stop.pressed:
                return
            self.watch(frame, ready, seconds)
            if self.figures.watched == self.max_frames:
                self.ended = "--max-frames"
                return

    def wait(self, seconds: float) -> None:
        """Until a paced source's frame is due."""
        while self.paced and (left := self.origin + seconds - self.clock.now()) > 0 and not self.stop.pressed:
            self.clock.sleep(min(left, TICK))
            self.ask_typed()
            self.redraw()

    def watch(self, frame: Frame, ready: Ready | None, seconds: float) -> None:
        figures = self.figures
        self.behind = self.clock.now() - self.origin - seconds
        if frame.picture is None:
            self.skip(frame.fault)
            return
        late = self.on_time and self.behind > 1 / self.fps
        if late and self.drop_late:
            figures.dropped += 1
            return
        self.times.begin()
        try:
            with memory_told():
                self.stream.watch(frame.picture if ready is None else ready, seconds=seconds)
        except ValueError as fault:
            self.skip(str(fault))
            return
        except MemoryError:
            raise ValueError(too_large(self.stream)) from None
        self.times.end()
        self.count_times()
        figures.watched += 1
        figures.late += late
        self.recent.append(self.clock.now())
        self.latest = frame.picture
        if self.pictures:
            figures.thumbnails.add((seconds, thumbnail(frame.picture)) if figures.thumbnails.takes_next() else None)
        self.redraw()

    def count_times(self) -> None:
        figures, held = self.figures, self.stream.memory.nbytes
        for took, allocated in self.times.over():
            figures.worst = max(figures.worst, took)
            figures.latency.add((took, held, allocated))

    def skip(self, fault: str) -> None:
        """Said once where one fault follows its like, and not at all after many."""
        faults, fault = self.figures.faults, " ".join(fault.split())
        self.figures.skipped += 1
        if len(faults) < TOLD and fault not in faults[-1:]:
            faults.append(fault)
            self.live.note(f"skipped: {fault}")

    def ask_until(self, seconds: float) -> None:
        """The questions of before `seconds`; but none before a frame has been seen, nor after Ctrl-C."""
        while self.questions and self.stream.frames_seen and not self.stop.pressed:
            at, question = self.questions[0]
            if at >= seconds and seconds != END:
                return
            self.questions.popleft()
            if at < END == seconds:
                self.live.note(f"the stream ended before {at:g} seconds; asked now: {question}")
            self.ask(question, at if seconds != END else self.stream.seconds)

    def ask_typed(self, *, last: bool = False) -> None:
        if not self.stream.frames_seen:
            return
        for line in self.typed.waiting(last=last):
            if line and not self.stop.pressed:
                self.live.still = False
                self.ask(line, self.stream.seconds)
            elif self.typed.at_terminal and not self.live.still:
                self.live.prompt()
            else:
                self.live.still = False

    def ask(self, question: str, seconds: float) -> None:
        asked = Asked(seconds, question, self.stream.frames_seen)
        asked.thumbnail = thumbnail(self.latest) if self.pictures and self.latest else None
        self.asked.append(asked)
        self.live.clear()
        self.say(f"[{seconds:.1f} s] {question}\n")
        start = self.clock.now()
        try:
            with memory_told():
                for piece in self.stream.ask(question, **self.options):
                    asked.first = self.clock.now() - start if asked.first is None else asked.first
                    asked.answer += piece
                    self.say(piece)
                    if self.stop.pressed:
                        asked.interrupted = True
                        break
        except BrokenPipeError:
            raise
        except (ValueError, TypeError) as fault:
            asked.fault = " ".join(str(fault).split())
        except MemoryError:
            asked.fault = too_large(self.stream, question=True)
        asked.took = self.clock.now() - start
        self.say("\n")
        if asked.fault:
            self.live.note(asked.fault)

    def say(self, words: str) -> None:
        if not self.quiet:
            printed(words)

    def redraw(self) -> None:
        now = self.clock.now()
        if self.live.on and now - self.redrawn >= REDRAWN:
            self.redrawn = now
            rate = (len(self.recent) - 1) / max(now - self.recent[0], 1e-9) if len(self.recent) > 1 else 0.0
            place = f"{self.behind:.1f} s behind" if self.behind >= 0 else f"{-self.behind:.1f} s ahead of"
            self.live.show(
                f"{self.stream.frames_seen:,} frames · {rate:.1f} a second · {self.stream.tokens_seen:,} tokens · "
                f"{self.stream.memory.nbytes / 1e6:,.1f} MB of memory · {place} real time"
            )
