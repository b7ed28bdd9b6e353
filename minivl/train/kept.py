"""Examples that are made once and kept: drawn by several processes, and looked at by frozen eyes.

To draw a picture takes longer than to learn from it, and eyes that no longer learn see the same in it each time. So all
pictures are drawn once: eyes learn from their pixels, and what comes after them from what they have seen.
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

AXES = {"ids": 0, "positions": 1, "labels": 0, "pixels": 0, "grids": 0, "cells": 0}  # along which examples are joined


def drawn(source, count: int, *, workers: int = 0, at_once: int = 64) -> list[Example]:
    """The source's first `count` examples, all with pictures, whose pixels are in float16."""
    made = DataLoader(
        ByNumber(source),
        sampler=range(count),
        batch_size=at_once,
        collate_fn=joined,
        num_workers=workers,
        generator=torch.Generator(),  # or it would take a number from everybody's
    )
    found = []
    with tqdm(total=count, desc="drawing pictures", unit="example", **QUIET) as bar:
        for some in made:
            found += apart(some)
            bar.update(len(found) - bar.n)
    return found


def seen(model: InfiniteVL, examples: Sequence[Example], *, at_once: int = 512) -> list[Example]:
    """The same examples with what the model's eyes make of their pictures, in float16, in place of the pixels."""
    by_size = sorted(range(len(examples)), key=lambda at: examples[at].grids.flatten().tolist())  # one plan for many
    found: list[Example | None] = [None] * len(examples)
    for at, one in zip(by_size, with_vectors(model, [examples[at] for at in by_size], at_once=at_once), strict=True):
        found[at] = dataclasses.replace(one, vectors=one.vectors.half(), cells=None)
    return found


def joined(examples: Sequence[Example]) -> dict[str, tuple[Tensor, list[int]]]:
    """Few large tensors, which go from process to process faster than many small ones; and their parts' sizes."""
    found = {name: [x for example in examples if (x := getattr(example, name)) is not None] for name in AXES}
    found["pixels"] = [pixels.half() for pixels in found["pixels"]]
    return {name: (torch.cat(xs, AXES[name]), [x.shape[AXES[name]] for x in xs]) for name, xs in found.items() if xs}


def apart(some: dict[str, tuple[Tensor, list[int]]]) -> Iterator[Example]:
    """Each in room of its own, so that none holds on to what all came in."""
    parts = {name: [part.clone() for part in x.split(sizes, AXES[name])] for name, (x, sizes) in some.items()}
    return (Example(**dict(zip(parts, values, strict=True))) for values in zip(*parts.values(), strict=True))
