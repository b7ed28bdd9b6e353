"""Bar charts: which bar is highest, and how high one is.

Three to five bars with a letter below each, against lines at every unit from 0 to 9; the axis has figures at 0, 3, 6
and 9. Colours tell nothing. The letters' neighbours obey the splits' rule as those of a line of text do.
"""

from string import ascii_uppercase

from PIL import Image

from .drawing import CELL, Answered, Canvas, Picture, inked, pale
from .lettering import Line
from .splits import COLOURS, Draw
from .tiny_settings import Settings

WIDTH = HEIGHT = 4 * CELL
LEFT, FLOOR, UNIT, HIGHEST = 20, 94, 9, 9  # pixels to the axis, down to 0, and for one unit
FIGURES, LETTERS = 12, 14  # font sizes
GREY, INK = (205, 205, 205), (30, 30, 30)


def chart(draw: Draw, settings: Settings) -> tuple[Picture, dict]:
    labels = draw.text(draw.between(3, 5), ascii_uppercase)
    while len(set(labels)) < len(labels):
        labels = draw.text(len(labels), ascii_uppercase)
    heights = [draw.between(1, HIGHEST) for _ in labels]
    while heights.count(max(heights)) > 1:
        heights = [draw.between(1, HIGHEST) for _ in labels]
    name = draw.pick(draw.fonts)
    canvas = Canvas(WIDTH, HEIGHT, pale(draw))
    for unit in range(HIGHEST + 1):
        y = FLOOR - UNIT * unit
        bar(canvas, (LEFT, y, WIDTH - 4, y + 1), INK if unit == 0 else GREY)
        if unit % 3 == 0:
            canvas.write(Line.of(str(unit), name, FIGURES), (LEFT - 9, y), INK)
    pitch = (WIDTH - 4 - LEFT) / len(labels)
    width = draw.uniform(0.45, 0.7) * pitch
    for at, (label, height) in enumerate(zip(labels, heights, strict=True)):
        middle = LEFT + pitch * (at + 0.5)
        box = (round(middle - width / 2), FLOOR - UNIT * height, round(middle + width / 2), FLOOR)
        bar(canvas, box, inked(draw, draw.pick(COLOURS)))
        canvas.write(Line.of(label, name, LETTERS), (middle, FLOOR + 9), INK)
    record = {"labels": labels, "heights": heights, "font": name}
    return canvas.finished(draw, settings.variation), record


def bar(canvas: Canvas, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
    left, top, right, bottom = box
    canvas.ink(Image.new("L", (right - left, bottom - top), 255), (left, top), colour)


def highest(draw: Draw, settings: Settings) -> Answered:
    picture, record = chart(draw, settings)
    answer = record["labels"][record["heights"].index(max(record["heights"]))]
    return [picture], "Which bar is highest?", answer, record


def value(draw: Draw, settings: Settings) -> Answered:
    picture, record = chart(draw, settings)
    at = draw.between(0, len(record["labels"]) - 1)
    asked = record["labels"][at]
    return [picture], f"How high is bar {asked}?", str(record["heights"][at]), record | {"asked": asked}


QUESTIONS = {"highest": highest, "value": value}
