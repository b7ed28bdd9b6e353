"""How hard the tiny world's pictures are, and the sentences that odd settings get."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Settings:
    """How hard the pictures are. `sizes` and `lines`: least and most; `variation`: 0 for text that stands straight
    and pictures without noise, 1 for all that there is."""

    sizes: tuple[int, int] = (15, 32)  # of letters, in pixels to the em
    characters: int = 8  # to a line, which is as many cells long
    lines: tuple[int, int] = (2, 4)
    variation: float = 1.0

    def __post_init__(self):
        span("sizes", self.sizes, 8, 32)
        span("lines", self.lines, 1, 8)
        whole("characters", self.characters, 4, 16)
        if not isinstance(self.variation, int | float) or not 0 <= self.variation <= 1:
            raise ValueError(f"variation is {self.variation!r}; it should be from 0 to 1")


def span(name: str, given: Sequence[int], low: int, high: float = math.inf) -> None:
    """Least and most: two whole numbers within limits."""
    limits = _limits(low, high)
    if not isinstance(given, list | tuple) or len(given) != 2 or not all(_is_whole(end) for end in given):
        raise ValueError(f"{name} is {given!r}; it should be two whole numbers {limits}")
    if not low <= given[0] <= given[1] <= high:
        raise ValueError(f"{name} is {given!r}; it should be two whole numbers {limits}, the larger one last")


def whole(name: str, number: int, low: int = 0, high: float = math.inf) -> None:
    if not _is_whole(number) or not low <= number <= high:
        raise ValueError(f"{name} is {number!r}; it should be a whole number {_limits(low, high)}")


def _is_whole(number) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _limits(low: int, high: float) -> str:
    return f"of at least {low}" if high == math.inf else f"from {low} to {high}"
