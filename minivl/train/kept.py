"""Examples that are made once and kept: drawn by several processes, and looked at by frozen eyes.

To draw a picture takes longer than to learn from it, and eyes that no longer learn see the same in it each time. So all
pictures are drawn once: eyes learn from their pixels, and what comes after them from what they have seen. That is also
kept in a file, for a run that goes on.

    PART.NAME          the examples' tensors of one name, joined        PART.NAME.sizes    and how long each one is
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..checkpoint import QUIET
from ..model import InfiniteVL
from .encoded import with_vectors
from .examples import Example
from .feeding import ByNumber
from .saving import save_whole

# Along which examples are joined.
AXES = {"ids": 0, "positions": 1, "labels": 0, "pixels": 0, "grids": 0, "vectors": 0, "cells": 0}


def drawn(source, count: int, *, workers: int = 0, at_once: int = 64) -> list[Example]:
    """The source's first `count` examples, all with pictures, whose pixels are in float16."""
    made = DataLoader(
        ByNumber(source),
        sampler=range(count),
        batch_size=at_once,
        collate_fn=halved,
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


def halved(examples: Sequence[Example]) -> dict[str, tuple[Tensor, list[int]]]:
    return joined([dataclasses.replace(example, pixels=example.pixels.half()) for example in examples])


def save(path: Path, parts: Mapping[str, Sequence[Example]], *, told: str) -> None:
    """Whole, or not at all. `told` is what they are, which whoever loads them has to know."""
    tensors = {}
    for part, examples in parts.items():
        for name, (x, sizes) in joined(examples).items():
            tensors |= {f"{part}.{name}": x, f"{part}.{name}.sizes": torch.tensor(sizes)}
    save_whole(path, tensors, metadata={"told": told})


def load(path: Path, *, told: str) -> dict[str, list[Example]] | None:
    """The parts of a file; None where there is none, or one of other examples."""
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        if file.metadata() != {"told": told}:
            return None
        parts: dict[str, dict] = {}
        for name in (name for name in file.keys() if not name.endswith(".sizes")):  # noqa: SIM118 - it is no mapping
            part, _, own = name.partition(".")
            parts.setdefault(part, {})[own] = file.get_tensor(name), file.get_tensor(f"{name}.sizes").tolist()
    return {part: list(apart(some)) for part, some in parts.items()}


def joined(examples: Sequence[Example]) -> dict[str, tuple[Tensor, list[int]]]:
    """Few large tensors, which go from process to process faster than many small ones; and their parts' sizes."""
    found = {name: [x for example in examples if (x := getattr(example, name)) is not None] for name in AXES}
    return {name: (torch.cat(xs, AXES[name]), [x.shape[AXES[name]] for x in xs]) for name, xs in found.items() if xs}


def apart(some: dict[str, tuple[Tensor, list[int]]]) -> Iterator[Example]:
    """Each in room of its own, so that none holds on to what all came in."""
    parts = {name: [part.clone() for part in x.split(sizes, AXES[name])] for name, (x, sizes) in some.items()}
    return (Example(**dict(zip(parts, values, strict=True))) for values in zip(*parts.values(), strict=True))
