"""Scenes: coloured shapes scattered over a pale ground, and what can be asked about one scene.

A scene is a list of things; it is drawn from that list alone, and so can every answer be told from it. Things stand on
a grid that is shifted at random against the cells of the model, each somewhere in its own square, so that none covers
another and none is cut off.
"""

from dataclasses import asdict, dataclass

from .drawing import Answered, Canvas, Picture, inked, pale
from .splits import COLOURS, SHAPES, Draw
from .tiny_settings import Settings

SCENE, SMALL = 112, 84  # pixels along a side
FINE_PITCH, WIDE_PITCH = 26, 54  # of the grid: four things in a row, or two


@dataclass(frozen=True)
class Thing:
    colour: str
    shape: str
    x: float = 0.0
    y: float = 0.0
    radius: float = 0.0

    @property
    def look(self) -> tuple[str, str]:
        return self.colour, self.shape


def placed(draw: Draw, looks: list[tuple[str, str]], *, side: int = SCENE, pitch: int = FINE_PITCH) -> list[Thing]:
    """Things of these looks, in squares of their own."""
    count = side // pitch
    shift = [draw.uniform(0, side - count * pitch) for _ in range(2)]
    squares = draw.some(range(count * count), len(looks))
    return [
        Thing(*look, *within(draw, [shift[0] + pitch * (square % count), shift[1] + pitch * (square // count)], pitch))
        for look, square in zip(looks, squares, strict=True)
    ]


def within(draw: Draw, corner: list[float], pitch: int) -> tuple[float, float, float]:
    """A middle and a radius that stay inside the square at this corner."""
    radius = draw.uniform(0.27, 0.4) * pitch
    free = pitch / 2 - radius - 1
    x, y = (start + pitch / 2 + draw.uniform(-free, free) for start in corner)
    return round(x, 2), round(y, 2), round(radius, 2)


def drawn(draw: Draw, things: list[Thing], variation: float, *, side: int = SCENE) -> Picture:
    canvas = Canvas(side, side, pale(draw))
    for thing in things:
        colour, angle = inked(draw, thing.colour), draw.uniform(-0.15, 0.15) * variation
        canvas.shape(thing.shape, (thing.x, thing.y), thing.radius, colour, angle)
    return canvas.finished(draw, variation)


def recorded(*scenes: list[Thing]) -> dict:
    return {"scenes": [[asdict(thing) for thing in things] for things in scenes]}


def named(look: tuple[str, str]) -> str:
    return " ".join(look)


def plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def unlike(draw: Draw, count: int, first: tuple[str, str], by: str) -> list[tuple[str, str]]:
    """`first` and more, no two of one colour (by "colour") or of one shape (by "shape")."""
    looks = [first]
    while len(looks) < count:
        used = {look[0 if by == "colour" else 1] for look in looks}
        free = [x for x in (COLOURS if by == "colour" else SHAPES) if x not in used]
        looks.append(draw.look(**{f"{by}s": free}))
    return looks


def colour(draw: Draw, settings: Settings) -> Answered:
    """The shape tells which thing is meant."""
    first = draw.look(held_out=draw.held_out)
    things = placed(draw, unlike(draw, draw.between(1, 4), first, "shape"), pitch=WIDE_PITCH)
    record = recorded(things) | {"asked": first[1]}
    return [drawn(draw, things, settings.variation)], f"What colour is the {first[1]}?", first[0], record


def shape(draw: Draw, settings: Settings) -> Answered:
    """The colour tells which thing is meant."""
    first = draw.look(held_out=draw.held_out)
    things = placed(draw, unlike(draw, draw.between(1, 4), first, "colour"), pitch=WIDE_PITCH)
    record = recorded(things) | {"asked": first[0]}
    return [drawn(draw, things, settings.variation)], f"What shape is the {first[0]} thing?", first[1], record


MOST = 9


def count(draw: Draw, settings: Settings) -> Answered:
    """How many things of a colour, of a shape, or of both there are, among up to four others."""
    target, by = draw.look(held_out=draw.held_out), draw.pick(("both", "shape", "colour"))
    number, others = draw.between(0, MOST), draw.between(1, 4)
    colours = COLOURS if by == "shape" else [target[0]]
    shapes = SHAPES if by == "colour" else [target[1]]
    looks = [target, *(draw.look(colours=colours, shapes=shapes) for _ in range(number - 1))][:number]
    near = ({"colours": [target[0]]}, {"shapes": [target[1]]}, {})  # of both, what is half right is what misleads
    while len(looks) < number + others:
        # in a held-out picture one thing at least is a held-out combination, also where none is counted
        held_out = True if draw.held_out and not looks else None
        other = draw.look(held_out=held_out, **(draw.pick(near) if by == "both" else {}))
        if other[0] not in colours or other[1] not in shapes:
            looks.append(other)
    things = placed(draw, looks)
    asked = {
        "both": f"{target[0]} {plural(target[1])}",
        "shape": plural(target[1]),
        "colour": f"{target[0]} things",
    }[by]
    record = recorded(things) | {
        "asked": [colours[0] if by != "shape" else None, shapes[0] if by != "colour" else None]
    }
    return [drawn(draw, things, settings.variation)], f"How many {asked} are there?", str(number), record


CORNERS = ("top left", "top right", "bottom left", "bottom right")


def corner(draw: Draw, settings: Settings) -> Answered:
    """One thing is asked for by its look; others may stand in the other corners."""
    first = draw.look(held_out=draw.held_out)
    things = placed(draw, unlike(draw, draw.between(1, 4), first, draw.pick(("colour", "shape"))), pitch=WIDE_PITCH)
    answer = CORNERS[2 * (things[0].y > SCENE / 2) + (things[0].x > SCENE / 2)]
    question = f"In which corner is the {named(first)}?"
    return [drawn(draw, things, settings.variation)], question, answer, recorded(things) | {"asked": list(first)}


SIDES = ("left", "right", "above", "below")
CLEAR = 2.0  # times as far along one axis as along the other


def side(draw: Draw, settings: Settings) -> Answered:
    """Where one thing stands from another: on which of four sides, clearly."""
    first = draw.look(held_out=draw.held_out)
    looks = unlike(draw, 2 + draw.between(0, 2), first, draw.pick(("colour", "shape")))
    answer = draw.pick(SIDES)
    while True:
        things = placed(draw, looks)
        across, down = things[0].x - things[1].x, things[0].y - things[1].y
        along, aside = (across, down) if answer in ("left", "right") else (down, across)
        if (along > 0) == (answer in ("right", "below")) and abs(along) >= max(CLEAR * abs(aside), FINE_PITCH / 2):
            break
    question = f"On which side of the {named(looks[1])} is the {named(first)}?"
    record = recorded(things) | {"asked": [list(first), list(looks[1])]}
    return [drawn(draw, things, settings.variation)], question, answer, record


QUESTIONS = {"colour": colour, "shape": shape, "count": count, "corner": corner, "side": side}
