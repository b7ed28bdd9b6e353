"""A stream: frames are watched for ever at constant cost, and questions are asked at any time without disturbing it.

The stream is one picture that never ends. It opens with <|vision_start|>, and each frame adds the pads of its merged
cells to the memory. A question goes to a copy of the memory, where the picture is ended and the usual conversation
follows; the stream itself is bit for bit what it would have been unasked.

    stream     <|vision_start|>  frame  frame  frame …
    question                                     … <|vision_end|>  <|im_start|>system …  assistant\n  answer

    position of a frame's cell   time = 1 + tokens_per_second · floor(seconds); height, width = 1 + row, 1 + column

How a frame gets into the memory stands in frames.py, and what becomes of a question in asking.py.
"""

import hashlib
import logging
import math
import os
import threading
from collections.abc import Iterable, Iterator
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .asking import Copies, closing, conversation
from .config import TOKENS
from .frames import FIRST, FrameStep, Ready, ahead, ready
from .generate import FINISHED, generate, text
from .memory import Memory
from .ops import checks
from .processor import Processor

if TYPE_CHECKING:
    from .model import InfiniteVL

OPENING = 1  # tokens before the first frame
LATEST = 1 << 40  # seconds
WORKERS = 4  # threads that make frames ready: to open and resize a large one takes longer than a GPU takes to absorb it

log = logging.getLogger(__name__)


class Stream:
    """Frames in, at `fps` where they bring no time of their own; answers out. `size`: a side, or (height, width)."""

    def __init__(
        self, model: "InfiniteVL", processor: Processor, *, fps: float = 1.0, size: int | tuple[int, int] = 448
    ):
        _belongs(processor, model)
        if "full_attention" in model.config.layer_types:
            raise ValueError("the model has full attention, which keeps every token; a stream needs constant memory")
        self.model, self.processor = model, processor
        self.fps = _seconds("fps", fps)
        if self.fps == 0:
            raise ValueError("fps is 0; it should be above")
        self.size = _size(size, processor.settings.cell)
        rows, columns = (side // processor.settings.cell for side in self.size)
        self.cells = rows * columns
        self.frames_seen = 0
        self._clock = (0.0, -1)  # the last time stamp, and how many frames at `fps` have followed it
        self._resized = self._torn = False
        self._turn = threading.RLock()  # a question may come from another thread than frames do
        self._hold(model.new_memory(longest_write=self.cells))
        with torch.no_grad():
            start = torch.tensor([[model.config.vision_start_token_id]], device=model.device)
            model.read(start, memory=self.memory, last_only=True)

    def _hold(self, memory: Memory) -> None:
        """Make this memory the stream's own."""
        self.memory, self._copies = memory, Copies(self.model)
        self._absorb = FrameStep(self.model, memory, self.processor.settings, self.size)

    @property
    def tokens_seen(self) -> int:
        """Tokens in the memory, the opening one counted. The device is not asked."""
        return OPENING + self.frames_seen * self.cells

    @property
    def seconds(self) -> float:
        """The time of the last frame; 0 before the first."""
        return self._at(self._clock) if self.frames_seen else 0.0

    @torch.no_grad()
    def watch(self, frame, *, seconds: float | None = None) -> None:
        """Absorb one frame, whatever open_picture opens. One that is refused leaves the stream as it was.

        `seconds` is the frame's time, at or after the last one's; without it the frame comes 1 / fps after the last.
        A GPU goes on working after the call; only a call that finds two frames unfinished waits for one of them.
        A frame that is broken off halfway (Ctrl-C, no memory left) leaves a stream that will do nothing more.
        """
        made = self.ready(frame)
        with self._turn:
            self._check_whole()
            clock = self._next(seconds)
            if made.fault is not None:
                raise made.fault
            self._tell_of_size(made)
            time = FIRST + self.model.config.vision.tokens_per_second * math.floor(self._at(clock))
            self._absorb.bring(made.pixels)
            self._torn = True  # until all layers have taken the frame in
            self._absorb(time)
            self._clock = clock
            self.frames_seen += 1
            self._torn = False

    def ready(self, frame) -> Ready:
        """A frame at the stream's size, for `watch`, which tells what is wrong with it. Any thread may call this."""
        if isinstance(frame, Ready):
            if frame.pixels is not None and frame.pixels.shape[:2] != self.size:
                height, width = self.size
                raise ValueError(
                    f"the frame was made ready at {frame.pixels.shape[1]}×{frame.pixels.shape[0]} pixels; "
                    f"this stream's frames are {width}×{height}"
                )
            return frame
        return ready(frame, self.size)

    def ahead(self, frames: Iterable, *, workers: int = WORKERS) -> Iterator[Ready]:
        """The frames, made ready for `watch` in threads while earlier ones are watched; in their order, a few ahead.

        A frame that can't be opened is refused when it is watched. Not for a source that comes live: to look ahead is
        to wait for what has not happened yet.
        """
        checks.positive("workers", workers)
        return ahead(self.ready, frames, workers=workers)

    @property
    def positions(self) -> Tensor:
        """Of the last frame's cells, [3, 1, cells]."""
        return self._absorb.positions

    def ask(self, question: str | list, **options) -> Iterator[str]:
        """The answer's text, piece by piece, from the memory as it is now; `options` are those of `generate`.

        The question is a text, a list of parts (pictures too), or a list of messages.
        """
        return text(self._answer([question], options), self.processor)

    def ask_all(self, questions: list, **options) -> list[str]:
        """Several questions as one batch: each answer is what `ask` gives to the question alone."""
        if isinstance(questions, str) or not isinstance(questions, list | tuple) or not questions:
            raise ValueError(f"questions is {questions!r}; it should be a list of at least one question")
        steps = [torch.as_tensor(token).reshape(-1).tolist() for token in self._answer(questions, options)]
        rows = zip(*steps, strict=True) if steps else [()] * len(questions)
        said = [[token for token in row if token != FINISHED] for row in rows]
        return ["".join(text(iter(tokens), self.processor)) for tokens in said]

    def save(self, path: str | os.PathLike) -> None:
        """Write all that the stream is into one file, atomically and with a checksum; see Memory.save."""
        with self._turn:
            self._check_whole()
            numbers = {"fps": self.fps, "size": self.size, "frames_seen": self.frames_seen, "clock": self._clock}
            self.memory.notes = {"stream": {**numbers, "weights": fingerprint(self.model)}}
            self.memory.save(path)

    @classmethod
    def resume(cls, path: str | os.PathLike, model: "InfiniteVL", processor: Processor) -> "Stream":
        """The saved stream, as if it had never stopped, at its own `fps` and `size`."""
        memory = Memory.resume(path, model)
        notes = memory.notes.get("stream")
        if notes is None:
            raise ValueError(f"{path} is a saved memory, but not a stream's; it should be one that Stream.save wrote")
        if notes["weights"] != fingerprint(model):
            raise ValueError(f"{path} was saved by a model with other weights; its memory means nothing to this one")
        stream = cls(model, processor, fps=notes["fps"], size=tuple(notes["size"]))
        stream._hold(memory)
        stream.frames_seen, stream._clock = notes["frames_seen"], tuple(notes["clock"])
        return stream

    def _tell_of_size(self, frame: Ready) -> None:
        height, width = self.size
        if frame.came != (width, height) and not self._resized:
            log.warning(
                "frames are resized from %d×%d to %d×%d pixels, also all that follow", *frame.came, width, height
            )
            self._resized = True

    def _next(self, seconds: float | None) -> tuple[float, int]:
        """The next frame's clock. Frames are counted and not their fractions summed: thirty thirtieths are a second."""
        origin, count = self._clock
        clock = (origin, count + 1) if seconds is None else (_seconds("seconds", seconds), 0)
        _seconds("seconds", self._at(clock))
        if self._at(clock) < self.seconds:
            raise ValueError(f"seconds is {seconds}; the last frame's is {self.seconds}, and time cannot run backwards")
        return clock

    def _at(self, clock: tuple[float, int]) -> float:
        origin, count = clock
        return origin + count / self.fps

    def _answer(self, questions: list, options: dict) -> Iterator[int | Tensor]:
        for name in ("memory", "feed", "model", "inputs"):
            if name in options:
                raise TypeError(f"{name} is the stream's own; it cannot be given with a question")
        asked = self.processor([conversation(question) for question in questions])
        with self._turn, torch.inference_mode(False):  # a copy is kept for later questions, whatever their mode
            self._check_whole()
            inputs = closing(asked, self.memory, self.model)
            memory, feed = self._copies.of(self.memory, len(questions))
        return generate(self.model, inputs, memory=memory, feed=feed, **options)

    def _check_whole(self) -> None:
        if self._torn:
            raise ValueError("the last frame was broken off while it was absorbed; the stream should be resumed or new")


def fingerprint(model: "InfiniteVL") -> str:
    """A few numbers of every weight, hashed: tells one model's memory from another's of the same configuration."""
    few = torch.cat([x.detach().flatten()[:8].double() for _, x in sorted(model.state_dict().items())])
    return hashlib.sha256(few.cpu().numpy()).hexdigest()


def _belongs(processor: Processor, model: "InfiniteVL") -> None:
    for name in ("vision", "vocab_size", *TOKENS):
        own, other = getattr(model.config, name), getattr(processor.config, name)
        if own != other:
            raise ValueError(f"processor is for another model: its {name} is {other}, and the model's is {own}")


def _seconds(name: str, number: float) -> float:
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(f"{name} is {number!r}; it should be a number")
    if not 0 <= number <= LATEST:  # nor is NaN
        raise ValueError(f"{name} is {number!r}; it should be at least 0 and at most {LATEST:,}")
    return float(number)


def _size(size: int | tuple[int, int], cell: int) -> tuple[int, int]:
    """(height, width) in pixels."""
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    whole = all(
        isinstance(side, int) and not isinstance(side, bool) and side > 0 and side % cell == 0 for side in sides
    )
    if len(sides) != 2 or not whole:
        raise ValueError(f"size is {size!r}; it should be a multiple of {cell}, or two: height and width")
    return sides
