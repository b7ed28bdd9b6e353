"""What a sample may be drawn from: its random numbers, and the fonts and combinations that its split allows.

Three splits. Held-out samples are drawn from seeds of their own, and every one of their pictures holds a combination
(two characters side by side, a colour on a shape, …) that no picture of the train split may hold; so none of them can
have been seen in training. Those of the third split are also in fonts that the train split does not have.

    combination (i, j) is held out    ⇔    (i + j) mod every = 0

The rule is symmetric and even: each character has as many held-out neighbours as any other, each shape as many
held-out colours, and nothing is held out alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase, digits
from typing import TypeVar

import numpy as np

from .fonts import SEEN, UNSEEN

TRAIN, HELD_OUT, HELD_OUT_FONTS = SPLITS = ("train", "held-out seen fonts", "held-out unseen fonts")

ALPHABET = ascii_uppercase + digits
COLOURS = ("black", "blue", "purple", "red", "green", "orange", "pink", "yellow")
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")

EVERY_TEXT = 9  # of 36 characters, each has 4 that never stand beside it in train
EVERY_THING = 4  # each shape has 2 of 8 colours that it never has in train

Option = TypeVar("Option")


def text_held_out(first: str, second: str) -> bool:
    """Whether these two characters never stand side by side in train, in either order."""
    return (ALPHABET.index(first) + ALPHABET.index(second)) % EVERY_TEXT == 0


def thing_held_out(colour: str, shape: str) -> bool:
    """Whether nothing in train has this colour and this shape."""
    return (COLOURS.index(colour) + SHAPES.index(shape)) % EVERY_THING == 0


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it should be one of {', '.join(map(repr, SPLITS))}")


@dataclass(frozen=True)
class Draw:
    """One sample's random numbers, and what its split allows. The same path gives the same numbers anywhere."""

    rng: np.random.Generator
    split: str

    @classmethod
    def of(cls, seed: int, split: str, *path: int) -> "Draw":
        sequence = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), *path))
        return cls(np.random.Generator(np.random.PCG64(sequence)), split)

    @property
    def held_out(self) -> bool:
        return self.split != TRAIN

    @property
    def fonts(self) -> tuple[str, ...]:
        return UNSEEN if self.split == HELD_OUT_FONTS else SEEN

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends possible."""
        return int(self.rng.integers(low, high, endpoint=True))

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, options: Sequence[Option]) -> Option:
        return options[int(self.rng.integers(len(options)))]

    def some(self, options: Sequence[Option], count: int) -> list[Option]:
        """Different ones, in random order."""
        return [options[i] for i in self.rng.permutation(len(options))[:count]]

    def text(self, length: int, alphabet: str = ALPHABET) -> str:
        """Random characters: without held-out neighbours in train, with at least one such pair elsewhere."""
        made = self.pick(alphabet)
        while len(made) < length:
            allowed = [x for x in alphabet if self.held_out or not text_held_out(made[-1], x)]
            made += self.pick(allowed)
        if self.held_out:
            at = self.between(0, length - 2)
            partner = self.pick([x for x in alphabet if text_held_out(made[at], x)])
            made = made[: at + 1] + partner + made[at + 2 :]
        return made

    def look(
        self, *, colours: Sequence[str] = COLOURS, shapes: Sequence[str] = SHAPES, held_out: bool | None = None
    ) -> tuple[str, str]:
        """A colour and a shape that may go together; `held_out` wants a pair that is, or is not, held out.

        Where it is not said, all pairs of the split may come: in train those that are not held out.
        """
        wanted = {held_out} if held_out is not None else {False, True} if self.held_out else {False}
        return self.pick([(c, s) for c in colours for s in shapes if thing_held_out(c, s) in wanted])
