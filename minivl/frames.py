"""A stream's frames on their way into its memory: made ready on the host, carried to the device, absorbed there.

Three parts that overlap. Threads open and resize pictures ahead of time; pixels, as bytes, go over to the device
through two pinned buffers that take turns; and everything else, from scaling the pixels to the last layer, is one
captured step. The host only ever waits when two frames are still on their way, so that work cannot pile up.

    threads     frame n+3 …   resize
    host        frame n+1     bytes → pinned buffer → device
    device      frame n       scale, patches → vision tower → decoder's layers, into the memory

    code       shape              dtype    what
    pixels     [height, width, 3] uint8    one frame at the stream's size
    positions  [3, 1, cells]      int64    time, the same for the whole frame; 1 + row, 1 + column
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .captured import Captured
from .memory import Memory
from .pictures import Settings, levels, open_picture, still_patches

if TYPE_CHECKING:
    from .layers.vision_plan import Part
    from .model import InfiniteVL

FIRST = 1  # where every frame's rows and columns start: after the opening token
ON_THEIR_WAY = 2  # frames that the device has been given and has not absorbed, at most
AHEAD = 2  # frames made ready ahead, for each thread that does it

Item, Made = TypeVar("Item"), TypeVar("Made")


@dataclass(frozen=True)
class Ready:
    """A frame's pixels at a stream's size, or what is wrong with it; and how large it came, (width, height)."""

    pixels: Tensor | None = None
    came: tuple[int, int] = (0, 0)
    fault: Exception | None = None


def ready(frame, size: tuple[int, int]) -> Ready:
    """Open a frame and bring it to `size`, (height, width). A fault is kept, to be told in the frame's turn."""
    try:
        picture, (height, width) = open_picture(frame), size
        if 0 in picture.size:
            raise ValueError(f"the picture is {picture.width}×{picture.height} pixels; it should have at least one")
        came = picture.size
        if came != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        return Ready(torch.from_numpy(np.array(picture)), came)
    except Exception as fault:
        return Ready(fault=fault)


def ahead(make: Callable[[Item], Made], items: Iterable[Item], *, workers: int) -> Iterator[Made]:
    """make(item) of each, in their order, made by threads while earlier ones are used; a few items are taken ahead.

    When `items` breaks off with an error, what came before it comes first.
    """
    items, waiting, fault = iter(items), deque(), None
    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as pool:
        try:
            while True:
                while fault is None and len(waiting) < AHEAD * workers:
                    try:
                        waiting.append(pool.submit(make, next(items)))
                    except Exception as end:  # StopIteration, as a rule
                        fault = end
                if not waiting:
                    break
                yield waiting.popleft().result()
        finally:
            for made in waiting:  # nobody will ask for these
                made.cancel()
    if not isinstance(fault, StopIteration):
        raise fault


class FrameStep:
    """One frame after the other into one memory. On a GPU nobody waits for it, and from the second on it is a graph."""

    def __init__(self, model: "InfiniteVL", memory: Memory, settings: Settings, size: tuple[int, int]):
        device, (height, width) = model.device, size
        rows, columns = (side // settings.cell for side in size)
        place = torch.meshgrid(torch.arange(1), torch.arange(rows), torch.arange(columns), indexing="ij")
        self.positions = (FIRST + torch.stack(place).flatten(1))[:, None].to(device)
        self.pixels = torch.zeros(height, width, 3, dtype=torch.uint8, device=device)
        self.buffers: deque[tuple[Tensor, torch.cuda.Event]] = deque()
        if device.type == "cuda":
            for _ in range(ON_THEIR_WAY):
                buffer = torch.empty(self.pixels.shape, dtype=torch.uint8, pin_memory=True)
                self.buffers.append((buffer, torch.cuda.Event(blocking=True)))
        grids = torch.tensor([[1, height // settings.patch_size, width // settings.patch_size]])
        run = partial(
            absorb,
            model,
            self.pixels,
            self.positions,
            torch.from_numpy(levels(settings)).to(device, model.dtype),
            model.model.visual.plan(grids),
            settings,
        )
        self.step = Captured(run, memory, tokens=rows * columns, eager=1)

    def bring(self, pixels: Tensor) -> None:
        """Over to the device, when the frame before last has been absorbed, whose buffer this is. The memory stays as
        it is, also when this is broken off."""
        self.step.prepare()
        if not self.buffers:
            self.pixels.copy_(pixels)
            return
        buffer, absorbed = self.buffers[0]
        absorbed.synchronize()
        self.pixels.copy_(buffer.copy_(pixels), non_blocking=True)

    def __call__(self, time: int) -> None:
        """Absorb the frame that was brought."""
        self.positions[0].fill_(time)
        self.step()
        if self.buffers:
            self.buffers[0][1].record()
            self.buffers.rotate(1)


def absorb(
    model: "InfiniteVL",
    pixels: Tensor,
    positions: Tensor,
    values: Tensor,
    plan: tuple["Part", ...],
    settings: Settings,
    memory: Memory,
) -> None:
    """One frame into the memory: nothing but work on the device. Its tokens are all pads, and no word is scored."""
    x = model.model.visual.look(still_patches(pixels, values, settings), plan)
    model.model.language_model(x[None], positions=positions, memory=memory)
