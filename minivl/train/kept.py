"""Examples that are made once and kept: drawn by several processes, looked at by frozen eyes, and read many times.

To draw a picture takes longer than to learn from it, and eyes that no longer learn see the same in it each time.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..checkpoint import QUIET
from ..model import InfiniteVL
from .encoded import with_vectors
from .examples import Example
from .feeding import ByNumber

AXES = {"ids": 0, "positions": 1, "labels": 0, "pixels": 0, "grids": 0}  # along which examples are joined


def kept(model: InfiniteVL, source, count: int, *, workers: int = 0, at_once: int = 128) -> list[Example]:
    """The source's first `count` examples, all with pictures, which become vectors in float16."""
    drawn = DataLoader(
        ByNumber(source),
        sampler=range(count),
        batch_size=at_once,
        collate_fn=joined,
        num_workers=workers,
        generator=torch.Generator(),  # or it would take a number from everybody's
    )
    made = []
    with tqdm(total=count, desc="looking at pictures", unit="example", **QUIET) as bar:
        for some in drawn:
            looked = with_vectors(model, list(apart(some)), at_once=at_once)
            made += [dataclasses.replace(example, vectors=example.vectors.half()) for example in looked]
            bar.update(len(looked))
    return made


def joined(examples: Sequence[Example]) -> dict[str, tuple[Tensor, list[int]]]:
    """Few large tensors, which go from process to process faster than many small ones; and their parts' sizes."""
    found = {name: [getattr(example, name) for example in examples] for name in AXES}
    return {name: (torch.cat(xs, AXES[name]), [x.shape[AXES[name]] for x in xs]) for name, xs in found.items()}


def apart(some: dict[str, tuple[Tensor, list[int]]]) -> Iterator[Example]:
    parts = {name: x.split(sizes, AXES[name]) for name, (x, sizes) in some.items()}
    return (Example(**dict(zip(parts, values, strict=True))) for values in zip(*parts.values(), strict=True))
