"""The outlines of the tiny world's shapes, drawn large and made smaller, so that their edges are soft."""

import math

from PIL import Image, ImageDraw

FINE = 4  # times as large


def outline(name: str, middle: tuple[float, float], radius: float, angle: float, side: int) -> Image.Image:
    """A shape's mask, side × side pixels. All shapes but the circle reach the same distance from the middle."""
    large = Image.new("L", (FINE * side, FINE * side))
    x, y = (FINE * number - 0.5 for number in middle)  # Pillow counts from the middle of a pixel
    r = FINE * radius
    pen = ImageDraw.Draw(large)
    if name == "circle":
        pen.ellipse((x - 0.9 * r, y - 0.9 * r, x + 0.9 * r, y + 0.9 * r), fill=255)
    else:
        points = [(p * math.cos(angle) - q * math.sin(angle), p * math.sin(angle) + q * math.cos(angle))
                  for p, q in CORNERS[name]]  # fmt: skip
        pen.polygon([(x + r * p, y + r * q) for p, q in points], fill=255)
    return large.reduce(FINE)


def _ring(*radii: float, turned: float = 0.0, corners: int) -> list[tuple[float, float]]:
    steps = range(corners * len(radii))
    angles = [turned + 2 * math.pi * step / len(steps) for step in steps]
    return [(radii[i % len(radii)] * math.sin(a), -radii[i % len(radii)] * math.cos(a)) for i, a in enumerate(angles)]


THIN, LONG = 0.3, math.sqrt(1 - 0.3**2)  # a cross's arm: half its width, and its length
CORNERS = {
    "square": _ring(1.0, turned=math.pi / 4, corners=4),
    "triangle": _ring(1.0, corners=3),
    "diamond": [(0, -1), (0.62, 0), (0, 1), (-0.62, 0)],
    "star": _ring(1.0, 0.42, corners=5),
    "cross": [(-THIN, -LONG), (THIN, -LONG), (THIN, -THIN), (LONG, -THIN), (LONG, THIN), (THIN, THIN), (THIN, LONG),
              (-THIN, LONG), (-THIN, THIN), (-LONG, THIN), (-LONG, -THIN), (-THIN, -THIN)],
}  # fmt: skip
