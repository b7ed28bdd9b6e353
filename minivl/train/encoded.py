"""Pictures that have been looked at: eyes that do not learn see each picture once, and examples hold what they saw.

A long stream shows the same few thousand pictures over and over. `encoded` takes them all through the vision tower;
`EncodedStreams` then lays out streams of any length by looking vectors up, and the model reads these in place of
pixels. What is read is the same in all else.

    code       shape                 dtype      what
    vectors    [pictures, cells, D]  float32    of a pool's pictures, by their numbers in it
               [cells, D]                       of an example's pictures, one after another
    numbers    [frames]              int64      which of the pool's pictures each frame shows
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from ..checkpoint import QUIET
from ..model import InfiniteVL
from ..ops import checks
from ..pictures import levels
from ..processor import Processor
from .examples import Example
from .sources import asking, exchanges, first_ones
from .stream_examples import cells_of, patches_of, row_of
from .tiny_streams import TinyStreams


@torch.no_grad()
def encoded(
    model: InfiniteVL,
    processor: Processor,
    pictures,
    *,
    size: tuple[int, int] | None = None,
    only: Sequence[int] | None = None,
    at_once: int = 256,
) -> Tensor:
    """What the model's eyes make of each picture [pictures, cells, D], in float32 on the CPU.

    `pictures` are a pool or a list, each with an `image`. They come at `size` (height, width), by default the first
    one's own, as the frames of a stream of this size do. Where `only` some are to be looked at, by their numbers, the
    vectors of all others are zeros.
    """
    checks.positive("at_once", at_once)
    if not len(pictures):
        raise ValueError("there are no pictures to encode; there should be at least one")
    settings, merge = processor.settings, processor.settings.merge_size
    size = size or (pictures[0].image.height, pictures[0].image.width)
    rows, columns = cells_of(size, settings)
    values, grid = torch.from_numpy(levels(settings)), torch.tensor([[1, rows * merge, columns * merge]])
    out = torch.zeros(len(pictures), rows * columns, model.config.hidden_size)
    wanted = torch.arange(len(pictures)) if only is None else torch.tensor(only, dtype=torch.int64)
    with tqdm(total=len(wanted), desc="encoding", unit="picture", **QUIET) as bar:
        for numbers in wanted.split(at_once) if len(wanted) else ():
            images = ((number, pictures[number].image) for number in numbers.tolist())
            patches = [patches_of(image, size, values, settings, name=f"picture {number}") for number, image in images]
            seen = looked_at(model, torch.cat(patches), grid.repeat(len(numbers), 1))
            out[numbers] = seen.view(len(numbers), *out.shape[1:])
            bar.update(len(numbers))
    return out


@torch.no_grad()
def with_vectors(model: InfiniteVL, examples: Sequence[Example], *, at_once: int = 64) -> list[Example]:
    """The same examples, those with pixels now with what the model's eyes make of them, in float32 on the CPU."""
    checks.positive("at_once", at_once)
    made, pictured = list(examples), [at for at, example in enumerate(examples) if example.pixels is not None]
    cell = model.config.vision.spatial_merge_size**2
    with tqdm(total=len(pictured), desc="encoding", unit="example", **QUIET) as bar:
        places = iter(pictured)
        while now := list(islice(places, at_once)):
            grids = [made[at].grids for at in now]
            vectors = looked_at(model, torch.cat([made[at].pixels for at in now]), torch.cat(grids))
            for at, own in zip(now, vectors.split([int(grid.prod(1).sum()) // cell for grid in grids]), strict=True):
                made[at] = dataclasses.replace(made[at], pixels=None, vectors=own.clone())
            bar.update(len(now))
    return made


def looked_at(model: InfiniteVL, pixels: Tensor, grids: Tensor) -> Tensor:
    """The tower's vectors of these patches [cells, D], as the model would see them."""
    pixels = pixels.to(model.device).to(model.dtype)  # in this order: the device is faster at it
    return model.model.visual(pixels, grids).to("cpu", torch.float32)


class EncodedStreams:
    """What sources.Streams gives, with the pictures' vectors in place of their pixels. No picture is drawn.

    `vectors` are those of the streams' pool. `frames` has each stream begin so many frames before its questions.
    """

    def __init__(
        self,
        streams: TinyStreams,
        processor: Processor,
        vectors: Tensor,
        *,
        questions: int | None = None,
        frames: int | None = None,
    ):
        rows, columns = cells_of(streams.settings.frame, processor.settings)
        checks.tensor("vectors", vectors, (len(streams.pool), rows * columns, processor.config.hidden_size))
        if frames is not None:
            checks.positive("frames", frames)
        self.streams, self.processor, self.vectors = streams, processor, vectors
        self.questions, self.frames = first_ones(questions), frames
        only = "" if frames is None else f", their last {frames} frames"
        self.description = f"encoded streams of {streams!r}{asking(questions)}{only}, vectors {digest(vectors)}"

    def __getitem__(self, number: int) -> Example:
        stream = self.streams[number]
        numbers = torch.from_numpy(stream.numbers)[-(self.frames or len(stream)) :]
        clock = [at / stream.settings.fps for at in range(len(numbers))]
        return row_of(
            self.processor,
            clock,
            exchanges(stream, self.questions),
            size=stream.settings.frame,
            vectors=self.vectors[numbers].flatten(0, 1),
        )


def digest(vectors: Tensor) -> str:
    """Tells one model's vectors from another's."""
    return hashlib.sha256(vectors.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()).hexdigest()
