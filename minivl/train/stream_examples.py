"""A stream as one row: frame after frame, then a conversation about them, laid out and placed as Stream does it.

The row is what a memory has taken in when a question is answered, so what is learnt here is what is asked of a stream.
Questions follow one another as in a chat; each answer has labels, the frames have none. What is seen on the frames
comes as their pixels, or as what the vision tower has made of them before (encoded.py).

    row        <|vision_start|>  frame  frame …  <|vision_end|>  <|im_start|>system …  assistant\n  answer  …
    position   0    time = 1 + tokens_per_second · floor(seconds); 1 + row, 1 + column    from the largest + 1
"""

import math
from collections.abc import Iterable, Sequence

import torch
from einops import repeat
from torch import Tensor

from ..frames import FIRST, ready
from ..pictures import Settings, levels, still_patches
from ..processor import Processor
from .examples import IGNORED, Example, spoken


def stream_example(
    processor: Processor, frames: Iterable[tuple[object, float]], messages: Sequence[dict], *, size: tuple[int, int]
) -> Example:
    """Frames with their seconds, brought to `size` (height, width), and the conversation that ends with an answer."""
    settings, pixels, clock = processor.settings, [], []
    cells_of(size, settings)
    values = torch.from_numpy(levels(settings))
    for number, (frame, seconds) in enumerate(frames, start=1):
        pixels.append(patches_of(frame, size, values, settings, name=f"frame {number}"))
        clock.append(seconds)
    return row_of(processor, clock, messages, size=size, pixels=torch.cat(pixels) if pixels else None)


def cells_of(size: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """Rows and columns of a frame's merged cells."""
    if any(side < settings.cell or side % settings.cell for side in size):
        raise ValueError(f"size is {tuple(size)}; it should be height and width, multiples of {settings.cell}")
    height, width = size
    return height // settings.cell, width // settings.cell


def patches_of(frame, size: tuple[int, int], values: Tensor, settings: Settings, *, name: str) -> Tensor:
    """A frame's pixels [patches, 3·2·14·14] at this size, as Stream reads them. `values` are the levels."""
    made = ready(frame, size)
    if made.fault is not None:
        raise type(made.fault)(f"{name}: {made.fault}") from made.fault
    return still_patches(made.pixels, values, settings)


def row_of(
    processor: Processor,
    clock: Sequence[float],
    messages: Sequence[dict],
    *,
    size: tuple[int, int],
    pixels: Tensor | None = None,
    vectors: Tensor | None = None,
) -> Example:
    """The row of frames at these seconds. Their pixels, or their vectors, are all that is known of what is on them."""
    config, settings = processor.config, processor.settings
    rows, columns = cells_of(size, settings)
    frames, cells = len(clock), rows * columns
    if not frames:
        raise ValueError("the stream has no frames; it should have at least one")
    ids, labels, seen = spoken(processor, messages)
    if seen:
        raise ValueError("a question about a stream brings a picture of its own; only frames are pictures here")

    opening, ending = (torch.tensor([token]) for token in (config.vision_start_token_id, config.vision_end_token_id))
    times = torch.tensor([FIRST + config.vision.tokens_per_second * math.floor(seconds) for seconds in clock])
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")).flatten(1)
    of_frames = torch.stack(
        [
            repeat(times, "frames -> (frames cells)", cells=cells),
            *repeat(FIRST + place, "axes cells -> axes (frames cells)", frames=frames),
        ]
    )
    asked = int(of_frames.max()) + 1 + torch.arange(1 + len(ids)).expand(3, -1)
    patches = rows * settings.merge_size, columns * settings.merge_size
    return Example(
        torch.cat([opening, torch.full((frames * cells,), config.image_token_id), ending, torch.tensor(ids)]),
        torch.cat([torch.zeros(3, 1, dtype=torch.int64), of_frames, asked], dim=1),
        torch.cat([torch.full((1 + frames * cells + 1,), IGNORED), torch.tensor(labels)]),
        pixels,
        torch.tensor([[1, *patches]]).repeat(frames, 1),
        vectors,
    )
