"""A line of text: its glyphs, each with its own ink, and how the line stands: wider, leaning, turned.

Two layers go through the same pose: the ink, soft at its edges, and the numbers of the characters that it belongs to.

    picture = middle + turn(angle) · [stretch · x − lean · y,  y]      of a point (x, y) from the flat line's middle
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

from .fonts import font

SOLID = [0] * 128 + [255] * 128  # a table for Image.point: the inner half of a soft edge


@dataclass(frozen=True)
class Pose:
    """How a line of text stands: wider, leaning to the right, turned (radians)."""

    stretch: float = 1.0
    lean: float = 0.0
    angle: float = 0.0


@lru_cache(maxsize=1 << 15)
def glyph(name: str, size: int, character: str, stroke: float) -> tuple[Image.Image, int, int, float]:
    """A character's ink, where it begins to the right of and below the pen on the line, and how far the pen moves."""
    face = font(name, size)
    box = [round(side) for side in face.getbbox(character, anchor="ls", stroke_width=stroke)]
    left, top, right, bottom = box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1
    ink = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(ink).text((-left, -top), character, 255, font=face, anchor="ls", stroke_width=stroke)
    return ink, left, top, face.getlength(character)


@dataclass(frozen=True)
class Line:
    """A text on its line before it stands anywhere: its glyphs, their pens, and the box of their ink."""

    text: str
    glyphs: tuple[tuple[Image.Image, int, int, float], ...]
    pens: tuple[float, ...]
    box: tuple[int, int, int, int]

    @classmethod
    def of(
        cls, text: str, name: str, size: int, *, stroke: float = 0.0, spread: float = 0.0, pace: float = 0.0
    ) -> "Line":
        """`spread`: pixels between characters beside the font's own; `pace`: the least from pen to pen."""
        glyphs, pens, pen = [], [], 0.0
        for character in text:
            drawn = glyph(name, size, character, stroke)
            width = max(drawn[3] + spread, pace)
            glyphs.append(drawn)
            pens.append(pen + (width - drawn[3]) / 2)
            pen += width
        inks = [
            (round(pen) + left, top, round(pen) + left + ink.width, top + ink.height)
            for pen, (ink, left, top, _) in zip(pens, glyphs, strict=True)
        ]
        lows, highs = [min(box[i] for box in inks) for i in (0, 1)], [max(box[i] for box in inks) for i in (2, 3)]
        return cls(text, tuple(glyphs), tuple(pens), (*lows, *highs))

    def room(self, pose: Pose) -> tuple[float, float]:
        """Width and height of the ink once it stands in its pose; never less than it takes."""
        left, top, right, bottom = self.box
        width = pose.stretch * (right - left) + abs(pose.lean) * (bottom - top)
        height, turned = bottom - top, abs(math.sin(pose.angle))
        return width + turned * height, height + turned * width

    def layers(self, numbers: Sequence[int]) -> tuple[Image.Image, Image.Image]:
        """The ink of the line in its box, and whose it is: each character's number, 0 where there is no ink."""
        left, top, right, bottom = self.box
        ink, owners = (Image.new("L", (right - left, bottom - top)) for _ in range(2))
        for number, (mask, x, y, _), pen in zip(numbers, self.glyphs, self.pens, strict=True):
            at = (round(pen) + x - left, y - top)
            ink.paste(255, at, mask)
            owners.paste(number, at, mask.point(SOLID))
        return ink, owners

    def middles(self, middle: tuple[float, float], pose: Pose) -> list[tuple[float, float]]:
        """Where the middles of the characters' ink are when the line's is here."""
        turn, half = (math.cos(pose.angle), math.sin(pose.angle)), (self.box[2] - self.box[0]) / 2
        flat = [
            pose.stretch * (round(pen) + left + ink.width / 2 - self.box[0] - half)
            for pen, (ink, left, _, _) in zip(self.pens, self.glyphs, strict=True)
        ]
        return [(middle[0] + turn[0] * x, middle[1] + turn[1] * x) for x in flat]

    def posed(
        self, layers: tuple[Image.Image, Image.Image], middle: tuple[float, float], pose: Pose
    ) -> tuple[tuple[int, int], Image.Image, Image.Image]:
        """The layers of the line in its pose, its middle here, and where their corner is."""
        ink, owners = layers
        half = (ink.width / 2, ink.height / 2)
        if pose == Pose():
            return (round(middle[0] - half[0]), round(middle[1] - half[1])), ink, owners
        width, height = self.room(pose)
        at = (math.floor(middle[0] - width / 2) - 1, math.floor(middle[1] - height / 2) - 1)
        size = (math.ceil(width) + 3, math.ceil(height) + 3)
        x, y, turn = middle[0] - at[0], middle[1] - at[1], (math.cos(pose.angle), math.sin(pose.angle))
        # from the picture's pixels back to the flat line's: turn back, then undo the lean and the stretch
        a, b = (turn[0] - pose.lean * turn[1]) / pose.stretch, (turn[1] + pose.lean * turn[0]) / pose.stretch
        d, e = -turn[1], turn[0]
        back = (a, b, half[0] - a * x - b * y, d, e, half[1] - d * x - e * y)
        ink = ink.transform(size, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
        return at, ink, owners.transform(size, Image.Transform.AFFINE, back, Image.Resampling.NEAREST)
