"""Dense lines of random characters to read: one line to a picture, or several, one of which is asked for.

Random characters cannot be guessed from their neighbours, as words can: whoever reads them has seen each. A line is in
one font, size and pose; its ink is darker or lighter than its ground by at least CONTRAST of 255.
"""

import math

from .drawing import CELL, SLOTS, Answered, Canvas, Colour, Picture, brightness
from .lettering import Line, Pose
from .splits import Draw
from .tiny_settings import Settings

CONTRAST = 100
MARGIN = 2  # pixels around a line that stay free
PACE = CELL / SLOTS + 2  # pixels from character to character, at least: no merged cell holds more than its slots


def ink_and_ground(draw: Draw) -> tuple[Colour, Colour]:
    while True:
        ink, ground = (tuple(draw.between(0, 255) for _ in range(3)) for _ in range(2))
        if abs(brightness(ink) - brightness(ground)) >= CONTRAST:
            return ink, ground


def fitting(
    draw: Draw, text: str, name: str, size: int, room: tuple[float, float], variation: float
) -> tuple[Line, Pose, int]:
    """The text's line, its pose and its size: the largest up to `size` that fits into room (width, height)."""
    stretch = 1 + draw.uniform(-0.12, 0.15) * variation
    lean, spread = draw.uniform(-0.12, 0.25) * variation, draw.uniform(0, 2.5) * variation
    tilt, stroke = draw.uniform(-0.035, 0.035) * variation, draw.pick((0.0, 0.0, 0.4, 0.8)) * (draw.chance(variation))
    while True:
        line = Line.of(text, name, size, stroke=stroke if size >= 18 else 0.0, spread=spread, pace=PACE / stretch)
        width, height = line.room(Pose(stretch, lean))
        if width <= room[0] and height <= room[1]:
            free = (room[1] - height) / width  # a long line may only be turned as far as its ends stay inside
            pose = Pose(stretch, lean, math.copysign(min(abs(tilt), max(0.0, free) * 0.9), tilt))
            if line.room(pose)[0] <= room[0]:
                return line, pose, size
        stretch, spread, size = min(stretch, 1.0), 0.0, size - 1


def written(
    draw: Draw, canvas: Canvas, text: str, row: int, sizes: tuple[int, int], ink: Colour, variation: float
) -> dict:
    """Write one line into a row of cells, somewhere; the record of how."""
    name, size = draw.pick(draw.fonts), draw.between(*sizes)
    room = (canvas.image.width - 2 * MARGIN, CELL - MARGIN)
    line, pose, size = fitting(draw, text, name, size, room, variation)
    spare = [max(0.0, whole - taken) / 2 for whole, taken in zip(room, line.room(pose), strict=True)]
    x = canvas.image.width / 2 + draw.uniform(-spare[0], spare[0])
    y = CELL * (row + 0.5) + draw.uniform(-spare[1], spare[1]) * variation
    canvas.write(line, (x, y), ink, pose)
    return {"text": text, "font": name, "size": size}


def draw_lines(draw: Draw, settings: Settings, count: int) -> tuple[Picture, dict]:
    """A picture of this many lines, and its record."""
    ink, ground = ink_and_ground(draw)
    canvas = Canvas(CELL * settings.characters, CELL * count, ground)
    records = [
        written(draw, canvas, draw.text(settings.characters), row, settings.sizes, ink, settings.variation)
        for row in range(count)
    ]
    contrast = round(abs(brightness(ink) - brightness(ground)))
    return canvas.finished(draw, settings.variation), {"lines": records, "contrast": contrast}


def reading(draw: Draw, settings: Settings) -> Answered:
    picture, record = draw_lines(draw, settings, 1)
    return [picture], "What is written here?", record["lines"][0]["text"], record


def lines(draw: Draw, settings: Settings) -> Answered:
    picture, record = draw_lines(draw, settings, draw.between(*settings.lines))
    asked = draw.between(1, len(record["lines"]))
    return [picture], f"What is written in line {asked}?", record["lines"][asked - 1]["text"], record | {"asked": asked}


QUESTIONS = {"reading": reading, "lines": lines}
