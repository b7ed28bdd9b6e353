"""A small picture and, drawn along with it, whose ink each pixel is: what labels for every cell are made from.

Whatever is drawn goes to two layers at once, the picture and a map of owners, so that a label can never be about
something that is not there. A tiny model learns to read only with such dense help (which character is in this cell?).

    code        shape                   dtype   what
    image       W × H                   RGB     PIL picture; both sides are multiples of 28
    layout      [H / 14, W / 14]        uint8   for each patch, the class with the most ink in it; 0: blank
    slots       [H / 28, W / 28, 4]     uint8   for each merged cell, what has its middle there, from left to right
    hues        [H / 28, W / 28, 4]     uint8   of each of these the colour, if a question can be about it; 0: it can't
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from .lettering import SOLID, Line, Pose
from .shapes import outline
from .splits import ALPHABET, COLOURS, SHAPES, Draw

PATCH, CELL, SLOTS = 14, 28, 4
LABELS = ("blank", *ALPHABET, *SHAPES)  # a class is an index into these
HUES = ("none", *COLOURS)  # and a hue into these
LEAST_INK = 6  # pixels of a patch's 196 that make it a class's; an edge that just reaches over does not

# Their brightness goes up in steps of 25 and more of 255, so that they differ in grey, too; grounds are lighter still.
RGB = dict(
    zip(
        COLOURS,
        (
            (15, 15, 15),
            (20, 40, 165),
            (120, 45, 140),
            (225, 55, 35),
            (45, 185, 70),
            (250, 140, 30),
            (250, 155, 190),
            (250, 225, 60),
        ),
        strict=True,
    )
)
Colour = tuple[int, int, int]
ANY = [0] + [255] * 255  # a table for Image.point


def brightness(colour: Colour) -> float:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def inked(draw: Draw, name: str) -> Colour:
    """A colour of this name, no two alike."""
    return tuple(min(255, max(0, level + draw.between(-5, 5))) for level in RGB[name])


def pale(draw: Draw) -> Colour:
    """A ground lighter than all colours."""
    return tuple(draw.between(240, 255) for _ in range(3))


@dataclass(frozen=True, eq=False)
class Picture:
    image: Image.Image
    layout: np.ndarray
    slots: np.ndarray
    hues: np.ndarray


Answered = tuple[list[Picture], str, str, dict]  # pictures, a question, its answer, and the record


class Canvas:
    def __init__(self, width: int, height: int, ground: Colour):
        self.image = Image.new("RGB", (width, height), ground)
        self.owners = Image.new("L", (width, height))  # 0: no one's
        self.things: list[tuple[int, int, float, float]] = []  # class, hue, and the middle

    def ink(self, mask: Image.Image, at: tuple[int, int], colour: Colour) -> None:
        """What no label is about: axes, bars, frames."""
        self.image.paste(colour, at, mask)

    def write(self, line: Line, middle: tuple[float, float], colour: Colour, pose: Pose | None = None) -> None:
        """A line of text whose ink has its middle here. Signs that have no class are ink and nothing else."""
        pose = pose or Pose()
        numbers = []
        for character, place in zip(line.text, line.middles(middle, pose), strict=True):
            known = character in ALPHABET
            if known:
                self.things.append((LABELS.index(character), 0, *place))
            numbers.append(len(self.things) if known else 0)
        at, ink, owners = line.posed(line.layers(numbers), middle, pose)
        self.image.paste(colour, at, ink)
        self.owners.paste(owners, at, owners.point(ANY))

    def shape(
        self, name: str, middle: tuple[float, float], radius: float, hue: str, colour: Colour, angle: float = 0.0
    ) -> None:
        """`colour` is the one of this hue that it is drawn in."""
        side = math.ceil(radius) + 2
        corner = (math.floor(middle[0]) - side, math.floor(middle[1]) - side)
        mask = outline(name, (middle[0] - corner[0], middle[1] - corner[1]), radius, angle, 2 * side)
        self.things.append((LABELS.index(name), HUES.index(hue), *middle))
        self.image.paste(colour, corner, mask)
        self.owners.paste(len(self.things), corner, mask.point(SOLID))

    def finished(self, draw: Draw, variation: float = 1.0) -> Picture:
        """Blurred now and then, and noisy."""
        image = self.image
        if draw.chance(0.3 * variation):
            image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0.2, 0.6)))
        deviation = draw.uniform(0, 8) * variation
        if deviation:
            noise = draw.rng.standard_normal((image.height, image.width, 1), dtype=np.float32) * deviation
            noisy = np.asarray(image, dtype=np.float32) + noise
            image = Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        return self.labelled(image)

    def labelled(self, image: Image.Image) -> Picture:
        return Picture(image, self.layout(), *self.slots())

    def layout(self) -> np.ndarray:
        owners = np.asarray(self.owners, dtype=np.int64)
        rows, columns = owners.shape[0] // PATCH, owners.shape[1] // PATCH
        count = len(self.things) + 1
        patches = owners.reshape(rows, PATCH, columns, PATCH).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
        numbered = patches + count * np.arange(rows * columns)[:, None]
        ink = np.bincount(numbered.ravel(), minlength=count * rows * columns).reshape(-1, count)
        ink[:, 0] = LEAST_INK - 1  # no one's pixels only win where no one has enough
        labels = np.array([0, *(label for label, *_ in self.things)], dtype=np.uint8)
        return labels[ink.argmax(1)].reshape(rows, columns)

    def slots(self) -> tuple[np.ndarray, np.ndarray]:
        """Slots and hues."""
        rows, columns = self.image.height // CELL, self.image.width // CELL
        slots, hues = np.zeros((2, rows, columns, SLOTS), dtype=np.uint8)
        taken = np.zeros((rows, columns), dtype=np.int64)
        for label, hue, x, y in sorted(self.things, key=lambda thing: thing[2]):
            row, column = int(y) // CELL, int(x) // CELL
            place = row, column, taken[row, column]
            slots[place], hues[place] = label, hue
            taken[row, column] += 1
        return slots, hues
