"""A small picture and, drawn along with it, whose ink each pixel is: what labels for every cell are made from.

Whatever is drawn goes to two layers at once, the picture and a map of owners, so that a label can never be about
something that is not there. A tiny model learns to read only with such dense help (which character is in this cell?).

    code        shape                   dtype   what
    image       W × H                   RGB     PIL picture; both sides are multiples of 28
    layout      [H / 14, W / 14]        uint8   for each patch, the class with the most ink in it; 0: blank
    slots       [H / 28, W / 28, 4]     uint8   for each merged cell, what has its middle there, from left to right
    inks        [H / 14, W / 14]        uint8   for each patch, the name of the colour with the most ink in it; 0: none
    hues        [H / 28, W / 28, 4]     uint8   the names of the slots' colours
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from .lettering import SOLID, Line, Pose
from .shapes import outline
from .splits import ALPHABET, COLOURS, SHAPES, Draw

PATCH, CELL, SLOTS = 14, 28, 4
LABELS = ("blank", *ALPHABET, *SHAPES)  # a class is an index into these
HUES = ("none", *COLOURS)  # and the name of a colour into these
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


@functools.lru_cache(maxsize=4096)
def hue(colour: Colour) -> int:
    """The name that is nearest to a colour, whatever is drawn in it: letters too have one that has a name."""
    far = {name: sum((a - b) ** 2 for a, b in zip(colour, rgb, strict=True)) for name, rgb in RGB.items()}
    return HUES.index(min(far, key=far.get))


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
    inks: np.ndarray
    hues: np.ndarray


Answered = tuple[list[Picture], str, str, dict]  # pictures, a question, its answer, and the record


class Canvas:
    def __init__(self, width: int, height: int, ground: Colour):
        self.image = Image.new("RGB", (width, height), ground)
        self.owners = Image.new("L", (width, height))  # 0: no one's
        self.coloured = Image.new("L", (width, height))  # by name; 0: ground
        self.things: list[tuple[int, int, float, float]] = []  # class, hue, and the middle

    def ink(self, mask: Image.Image, at: tuple[int, int], colour: Colour) -> None:
        """What has no class: axes, bars, frames."""
        self.paste(colour, at, mask)

    def paste(self, colour: Colour, at: tuple[int, int], mask: Image.Image) -> None:
        self.image.paste(colour, at, mask)
        self.coloured.paste(hue(tuple(colour)), at, mask.point(SOLID))

    def write(self, line: Line, middle: tuple[float, float], colour: Colour, pose: Pose | None = None) -> None:
        """A line of text whose ink has its middle here. Signs that have no class are ink and nothing else."""
        pose = pose or Pose()
        numbers = []
        for character, place in zip(line.text, line.middles(middle, pose), strict=True):
            known = character in ALPHABET
            if known:
                self.things.append((LABELS.index(character), hue(tuple(colour)), *place))
            numbers.append(len(self.things) if known else 0)
        at, ink, owners = line.posed(line.layers(numbers), middle, pose)
        self.paste(colour, at, ink)
        for numbers, number in ((self.owners, owners), (self.coloured, hue(tuple(colour)))):
            numbers.paste(number, at, owners.point(ANY))

    def shape(self, name: str, middle: tuple[float, float], radius: float, colour: Colour, angle: float = 0.0) -> None:
        side = math.ceil(radius) + 2
        corner = (math.floor(middle[0]) - side, math.floor(middle[1]) - side)
        mask = outline(name, (middle[0] - corner[0], middle[1] - corner[1]), radius, angle, 2 * side)
        self.things.append((LABELS.index(name), hue(tuple(colour)), *middle))
        self.paste(colour, corner, mask)
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
        slots, hues = self.slots()
        return Picture(image, self.layout(), slots, self.inks(), hues)

    def layout(self) -> np.ndarray:
        labels = np.array([0, *(label for label, *_ in self.things)], dtype=np.uint8)
        return labels[most(self.owners, len(labels))]

    def inks(self) -> np.ndarray:
        return most(self.coloured, len(HUES)).astype(np.uint8)

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


def most(numbers: Image.Image, count: int) -> np.ndarray:
    """For each patch the number, of 0 to `count` − 1, that most of its pixels have; 0 where none has enough."""
    pixels = np.asarray(numbers, dtype=np.int64)
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    patches = pixels.reshape(rows, PATCH, columns, PATCH).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    numbered = patches + count * np.arange(rows * columns)[:, None]
    ink = np.bincount(numbered.ravel(), minlength=count * rows * columns).reshape(-1, count)
    ink[:, 0] = LEAST_INK - 1  # pixels without ink only win where none has enough
    return ink.argmax(1).reshape(rows, columns)
