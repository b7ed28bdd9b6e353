"""Draw the pictures of docs/: `python docs/pictures.py`. They show what minivl computes, and a test redraws them.

Plain SVG text, so that a picture is the same to the letter wherever it is drawn. The colours (blue, orange, grey) can
be told apart by the colour-blind, and no meaning rests on colour alone.
"""

import math
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from minivl.ops import delta_rule  # noqa: E402 (the project runs in place)
from minivl.ops.gated_delta_rule import chunk_decays  # noqa: E402
from minivl.ops.sliding_window import Ring, visible  # noqa: E402

BLUE, ORANGE, GREY, PALE, INK = "#0072b2", "#d55e00", "#999999", "#e4e4e4", "#222222"


def text(x: float, y: float, words: str, *, size: int = 13, anchor: str = "middle", fill: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">{words}</text>'


def dot(x: float, y: float, radius: float, fill: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}"/>'


def square(x: float, y: float, side: float, fill: str, *, stroke: str = "#ffffff") -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" '
        f'fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'
    )


def line(points: list[tuple[float, float]], stroke: str, *, width: float = 2, more: str = "") -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="{width}"{more}/>'


def picture(width: int, height: int, title: str, marks: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="Helvetica, Arial, sans-serif" role="img">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *marks,
            "</svg>\n",
        ]
    )


def householder() -> str:
    """What I − β k kᵀ makes of the unit circle, and of one point on it, for four strengths."""
    key = torch.tensor([math.cos(0.6), math.sin(0.6)], dtype=torch.float64)
    angles = torch.linspace(0, 2 * math.pi, 73, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], dim=-1)
    point = torch.tensor([math.cos(1.3), math.sin(1.3)], dtype=torch.float64)
    effects = ("nothing happens", "k shrinks by half", "k is erased", "would reflect (out of reach)")
    marks = []
    for panel, (beta, effect) in enumerate(zip((0.0, 0.5, 1.0, 2.0), effects, strict=True)):
        factor = delta_rule.householder(key, torch.tensor(beta, dtype=torch.float64))

        def at(xy: torch.Tensor, middle: float = 110 + 205 * panel) -> tuple[float, float]:
            return middle + 75 * xy[0].item(), 130 - 75 * xy[1].item()

        image = factor @ point
        marks += [
            line([at(xy) for xy in circle], GREY, width=1.5, more=' stroke-dasharray="4 4"'),
            line([at(factor @ xy) for xy in circle], BLUE, width=3),
            line([at(-1.2 * key), at(1.2 * key)], INK, width=1),
            text(*at(1.36 * key), "k"),
            line([at(point), at(image)], ORANGE, width=2),
            dot(*at(point), 3, ORANGE),
            dot(*at(image), 6, ORANGE),
            text(110 + 205 * panel, 24, f"β = {beta:g}: eigenvalue {1 - beta:g}".replace("-", "−"), size=15),
            text(110 + 205 * panel, 244, effect),
        ]
    return picture(830, 260, "The unit circle and one point under I − β k kᵀ, for β = 0, 0.5, 1 and 2", marks)


def ring() -> str:
    """The band of W = 3, and beside it, row by row, what a ring of 5 slots holds after each token."""
    tokens, slots, window, side = 13, 5, 3, 26
    memory = Ring(1, slots, 1, 1, window=window, dtype=torch.float32)
    one, time = torch.zeros(1, 1, 1, 1), torch.arange(tokens)
    band, left, right, top = visible(time, time, window), 90, 560, 64
    marks = [
        text(left + side * tokens / 2, 24, "the band: which key each token sees", size=15),
        text(right + side * slots / 2, 24, "the ring: the token in each slot", size=15),
        text(left - 44, top - 8, "token"),
    ]
    marks += [text(left + side * (j + 0.5), top - 8, str(j), size=11) for j in range(tokens)]
    marks += [text(right + side * (s + 0.5), top - 8, str(s), size=11, fill=GREY) for s in range(slots)]
    for token in range(tokens):
        y = top + side * token
        marks.append(text(left - 44, y + 18, str(token)))
        for j in range(tokens):
            fill = (ORANGE if j == token else BLUE) if band[token, j] else PALE if j < token else "#f7f7f7"
            marks.append(square(left + side * j, y, side, fill))
        memory.write(one, one)
        for s, number in enumerate(memory.positions[0].tolist()):
            seen = number >= 0 and bool(band[token, number])
            fill = (ORANGE if number == token else BLUE) if seen else PALE if number >= 0 else "#f7f7f7"
            marks.append(square(right + side * s, y, side, fill))
            if number >= 0:
                marks.append(text(right + side * (s + 0.5), y + 18, str(number), fill="#ffffff" if seen else INK))
        if token % slots == 0 and token:
            marks.append(text(right + side * slots + 16, y + 18, f"wrap {token // slots}", anchor="start"))
    y = top + side * tokens + 34
    for x, fill, words in (
        (left, ORANGE, "the token itself"),
        (left + 150, BLUE, "visible to it"),
        (left + 275, PALE, "past the window; in the ring, not yet overwritten"),
    ):
        marks += [square(x, y - 15, 18, fill), text(x + 26, y, words, anchor="start")]
    title = "A band of three keys, and the ring of five slots that holds it, token by token"
    return picture(830, y + 20, title, marks)


def decay() -> str:
    """The three places of the decay in a chunk of eight tokens, of which the fifth forgets a great deal."""
    C, side, left, top = 8, 40, 190, 112
    alpha = torch.full((C,), 0.9, dtype=torch.float64)
    alpha[4] = 0.3
    between, before, after = chunk_decays(alpha.log())
    marks = [
        text(330, 26, "How much is left of what the column wrote, when the row looks", size=15),
        text(left - 75, top - 34, "α"),
        text(left - 20, top - 50, "the state", size=12),
        text(left - 20, top - 36, "before", size=12),
        text(left + 30 + side * C / 2, top - 36, "token j of the chunk", size=12),
        text(left + 50 + side * C, top + side * 4, "decay", anchor="start", fill=BLUE),
        text(left - 20, top - 10, "decay_in", fill=ORANGE),
        text(left + 50 + side * C, top + 30 + side * (C + 0.6), "decay_out", anchor="start"),
        text(left - 128, top + side * 4, "token i"),
        text(left - 108, top + 30 + side * (C + 0.6), "the state after"),
    ]

    def cell(x: float, y: float, share: float, fill: str) -> list[str]:
        opacity = f' fill-opacity="{0.12 + 0.88 * share:.2f}"'
        shade = square(x, y, side, fill).replace("/>", opacity + "/>")
        return [shade, text(x + side / 2, y + 25, f"{share:.2f}", size=11, fill="#ffffff" if share > 0.55 else INK)]

    for i in range(C):
        marks.append(text(left - 75, top + side * i + 25, f"{alpha[i]:.1f}"))
        marks += cell(left - 40, top + side * i, before[i].item(), ORANGE)
        for j in range(i + 1):
            marks += cell(left + 30 + side * j, top + side * i, between[i, j].item(), BLUE)
        marks += cell(left + 30 + side * i, top + 30 + side * C, after[i].item(), INK)
    marks += cell(left - 40, top + 30 + side * C, before[-1].item(), INK)
    title = "The decay matrix of a chunk, with decay_in at its left and decay_out below it"
    return picture(680, top + side * C + 100, title, marks)


def pictures() -> dict[str, str]:
    return {"householder.svg": householder(), "ring.svg": ring(), "decay.svg": decay()}


if __name__ == "__main__":
    for name, drawing in pictures().items():
        (ROOT / "docs" / name).write_text(drawing, encoding="utf-8")
        print(f"docs/{name}")
