"""A stream as one row: frame after frame, then a conversation about them, laid out and placed as Stream does it.

The row is what a memory has taken in when a question is answered, so what is learnt here is what is asked of a stream.
Questions follow one another as in a chat; each answer has labels, the frames have none.

    row        <|vision_start|>  frame  frame …  <|vision_end|>  <|im_start|>system …  assistant\n  answer  …
    position   0    time = 1 + tokens_per_second · floor(seconds); 1 + row, 1 + column    from the largest + 1
"""

import math
from collections.abc import Iterable, Sequence

import torch
from einops import repeat

from ..frames import FIRST, ready
from ..pictures import levels, still_patches
from ..processor import Processor
from .examples import IGNORED, Example, spoken


def stream_example(
    processor: Processor, frames: Iterable[tuple[object, float]], messages: Sequence[dict], *, size: tuple[int, int]
) -> Example:
    """Frames with their seconds, brought to `size` (height, width), and the conversation that ends with an answer."""
    config, settings = processor.config, processor.settings
    if any(side < settings.cell or side % settings.cell for side in size):
        raise ValueError(f"size is {tuple(size)}; it should be height and width, multiples of {settings.cell}")
    values = torch.from_numpy(levels(settings))
    rows, columns = (side // settings.cell for side in size)
    pixels, times = [], []
    for number, (frame, seconds) in enumerate(frames, start=1):
        made = ready(frame, size)
        if made.fault is not None:
            raise type(made.fault)(f"frame {number}: {made.fault}") from made.fault
        pixels.append(still_patches(made.pixels, values, settings))
        times.append(FIRST + config.vision.tokens_per_second * math.floor(seconds))
    if not times:
        raise ValueError("the stream has no frames; it should have at least one")
    ids, labels, seen = spoken(processor, messages)
    if seen:
        raise ValueError("a question about a stream brings a picture of its own; only frames are pictures here")

    patches = rows * settings.merge_size, columns * settings.merge_size
    grids = torch.tensor([[1, *patches]]).expand(len(times), -1)
    watched = [config.vision_start_token_id, *[config.image_token_id] * (len(times) * rows * columns)]
    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")).flatten(1)
    of_frames = torch.stack(
        [
            repeat(torch.tensor(times), "frames -> (frames cells)", cells=rows * columns),
            *repeat(FIRST + place, "axes cells -> axes (frames cells)", frames=len(times)),
        ]
    )
    asked = int(of_frames.max()) + 1 + torch.arange(1 + len(ids)).expand(3, -1)
    return Example(
        torch.tensor([*watched, config.vision_end_token_id, *ids]),
        torch.cat([torch.zeros(3, 1, dtype=torch.int64), of_frames, asked], dim=1),
        torch.tensor([*[IGNORED] * (len(watched) + 1), *labels]),
        torch.cat(pixels),
        grids.contiguous(),
    )
