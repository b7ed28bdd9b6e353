"""Questions about two or three pictures: whether they are the same, which has more, in which something is larger.

The pictures of one question differ in ground, noise and the exact tint of each colour, so that it takes what is in
them to compare them. In "same", a difference is one thing's colour, shape or place.
"""

from dataclasses import replace

from .drawing import Answered
from .scenes import SMALL, Thing, drawn, named, placed, plural, recorded
from .splits import COLOURS, SHAPES, Draw
from .tiny_settings import Settings

ORDER = ("first", "second", "third")
SAME = ("same", "different")
CHANGES = ("colour", "shape", "place")
CLEARLY = 1.3  # times as large as the next one


def same(draw: Draw, settings: Settings) -> Answered:
    looks = [draw.look(held_out=draw.held_out), *(draw.look() for _ in range(draw.between(1, 4)))]
    *things, spare = placed(draw, [*looks, looks[-1]], side=SMALL)
    answer, change, other = draw.pick(SAME), None, things
    if answer == "different":  # the first thing stays: it is what makes both pictures held-out ones
        change, old = draw.pick(CHANGES), things[-1]
        new = {
            "colour": lambda: replace(old, colour=_another(draw, COLOURS, old.colour, shapes=[old.shape])[0]),
            "shape": lambda: replace(old, shape=_another(draw, SHAPES, old.shape, colours=[old.colour])[1]),
            "place": lambda: spare,
        }[change]()
        other = [*things[:-1], new]
    scenes = (things, other) if draw.chance(0.5) else (other, things)
    pictures = [drawn(draw, scene, settings.variation, side=SMALL) for scene in scenes]
    return pictures, "Are the two pictures the same or different?", answer, recorded(*scenes) | {"change": change}


def _another(draw: Draw, options: tuple[str, ...], old: str, **fixed: list[str]) -> tuple[str, str]:
    free = "shapes" if "colours" in fixed else "colours"
    return draw.look(**fixed, **{free: [option for option in options if option != old]})


def more(draw: Draw, settings: Settings) -> Answered:
    """Each picture has another number of what is asked for, and any number of other things."""
    target = draw.look(held_out=draw.held_out)[1]
    others = [shape for shape in SHAPES if shape != target]
    numbers, scenes = draw.some(range(6), draw.between(2, 3)), []
    for number in numbers:
        looks = [draw.look(shapes=[target]) for _ in range(number)]
        looks += [draw.look(shapes=others) for _ in range(draw.between(0, 2))]
        # every held-out picture has a held-out combination
        looks.append(draw.look(shapes=others, held_out=draw.held_out))
        scenes.append(placed(draw, looks, side=SMALL))
    pictures = [drawn(draw, scene, settings.variation, side=SMALL) for scene in scenes]
    answer = ORDER[numbers.index(max(numbers))]
    most = "more" if len(numbers) == 2 else "the most"
    return pictures, f"Which picture has {most} {plural(target)}?", answer, recorded(*scenes) | {"asked": target}


def larger(draw: Draw, settings: Settings) -> Answered:
    """The same thing in each picture, in clearly different sizes; anywhere, so that its place tells nothing."""
    look, count = draw.look(held_out=draw.held_out), draw.between(2, 3)
    largest = draw.uniform(15, 27)
    radii = [largest, *(draw.uniform(8, largest / CLEARLY) for _ in range(count - 1))]
    radii, scenes = draw.some(radii, count), []
    for radius in radii:
        x, y = (draw.uniform(radius + 1, SMALL - radius - 1) for _ in range(2))
        scenes.append([Thing(*look, round(x, 2), round(y, 2), round(radius, 2))])
    pictures = [drawn(draw, scene, settings.variation, side=SMALL) for scene in scenes]
    answer = ORDER[radii.index(max(radii))]
    most = "larger" if count == 2 else "largest"
    return pictures, f"In which picture is the {named(look)} {most}?", answer, recorded(*scenes)


QUESTIONS = {"same": same, "more": more, "larger": larger}
