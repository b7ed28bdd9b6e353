"""The frames of the tiny world's streams: a pool of small pictures, each known by its number.

    box       K:7 within a rectangle: the fact that 7 is in box K
    disc      K:7 within an ellipse: looks like a fact, and is none
    text      characters, in one line or several
    scene     coloured shapes
    stripes   of two colours

The pool of a split and a seed is always the same, so that each picture need go through a vision tower once. No picture
of a held-out pool can be in a train pool: the colour of its rim with its value, its characters, its shapes or its
stripes are a combination that train does not have.
"""

from PIL import Image, ImageDraw

from .drawing import CELL, Canvas, Colour, Picture, inked, pale
from .scenes import FINE_PITCH, Thing, placed
from .splits import ALPHABET, COLOURS, EVERY_THING, TRAIN, Draw, check_split
from .texts import fitting, ink_and_ground

BOXES = "ABCDEFGHJKLMNPQR"
VALUES = "".join(character for character in ALPHABET if character not in "O0I1")  # no two look alike
POOL = 1001  # where the random numbers of frames begin; see Draw.of
EVERY_FACT = 8  # of 32 values, each box has 4 that it never has in train

RIM, MARGIN = 3, 3  # pixels
INSIDE = {"box": (0.13, 0.13), "disc": (0.2, 0.25)}  # of width and height: how far from the edge the text stays
LEAST = 12  # pixels of a row of cells that a line of text needs
SIZES = (18, 32)  # of letters; the frame's size limits them too


def fact_held_out(box: str, value: str) -> bool:
    """Whether this box never has this value in train."""
    return (BOXES.index(box) + VALUES.index(value)) % EVERY_FACT == 0


def rim_held_out(colour: str, value: str) -> bool:
    """Whether no box and no disc of this colour has this value in train."""
    return (COLOURS.index(colour) + VALUES.index(value)) % EVERY_THING == 0


def stripes_held_out(first: str, second: str) -> bool:
    """Whether no stripes in train have these two colours."""
    return (COLOURS.index(first) + COLOURS.index(second)) % EVERY_THING == 0


def allowed_values(draw: Draw, box: str) -> list[str]:
    """What a box may hold: in train, no held-out value; in a held-out split, any."""
    return [value for value in VALUES if draw.held_out or not fact_held_out(box, value)]


class Pool:
    """All frames of a split and a seed, by number: first the facts, then `others`. Each is drawn when it is wanted."""

    def __init__(self, split: str, seed: int, *, frame: tuple[int, int], looks: int, others: int, variation: float):
        check_split(split)
        self.split, self.seed, self.frame = split, seed, frame
        self.looks, self.others, self.variation = looks, others, variation
        self.facts = len(BOXES) * len(VALUES) * looks
        self._drawn: dict[int, tuple[Picture, dict]] = {}

    def __len__(self) -> int:
        return self.facts + self.others

    def number(self, box: str, value: str, look: int) -> int:
        """The frame that shows this fact, in one of its looks."""
        return (BOXES.index(box) * len(VALUES) + VALUES.index(value)) * self.looks + look

    def fact(self, number: int) -> tuple[str, str] | None:
        """The box and the value that a frame shows; None of a frame that shows no fact."""
        if number >= self.facts:
            return None
        box, value = divmod(number // self.looks, len(VALUES))
        return BOXES[box], VALUES[value]

    def may_show(self, number: int) -> bool:
        """Whether streams of this split may have this frame; a held-out fact is a number in train, too."""
        fact = self.fact(number)
        return fact is None or self.split != TRAIN or not fact_held_out(*fact)

    def __getitem__(self, number: int) -> Picture:
        return self._get(int(number))[0]

    def __repr__(self) -> str:
        return (
            f"Pool({self.split!r}, {self.seed}, frame={self.frame}, looks={self.looks}, others={self.others}, "
            f"variation={self.variation})"
        )

    def record(self, number: int) -> dict:
        """What is on a frame."""
        return self._get(int(number))[1]

    def _get(self, number: int) -> tuple[Picture, dict]:
        if number not in self._drawn:
            if not 0 <= number < len(self):
                raise IndexError(f"the frame is {number}; it should be from 0 to {len(self) - 1}")
            draw, fact = Draw.of(self.seed, self.split, POOL, number), self.fact(number)
            if fact:
                canvas, record = labelled(draw, self, "box", *fact)
            else:
                canvas, record = draw.pick(OTHERS)(draw, self)
            self._drawn[number] = canvas.finished(draw, self.variation), record
        return self._drawn[number]


def labelled(draw: Draw, pool: Pool, what: str, letter: str, value: str) -> tuple[Canvas, dict]:
    """A box or a disc with a letter and a value."""
    height, width = pool.frame
    rim = draw.pick([colour for colour in COLOURS if rim_held_out(colour, value) == draw.held_out])
    name = draw.pick(draw.fonts)
    canvas = Canvas(width, height, pale(draw))
    outside = Image.new("L", (width, height))
    pen, edge = ImageDraw.Draw(outside), (MARGIN, MARGIN, width - 1 - MARGIN, height - 1 - MARGIN)
    (pen.rectangle if what == "box" else pen.ellipse)(edge, outline=255, width=RIM)
    canvas.ink(outside, (0, 0), inked(draw, rim))
    free = [share * whole for share, whole in zip(INSIDE[what], (width, height), strict=True)]
    rows = [(max(free[1], CELL * row), min(height - free[1], CELL * (row + 1))) for row in range(height // CELL)]
    top, bottom = draw.pick([(top, bottom) for top, bottom in rows if bottom - top >= LEAST])  # in one row of cells
    room = (width - 2 * free[0], bottom - top)
    line, pose, size = fitting(draw, f"{letter}:{value}", name, draw.between(*SIZES), room, pool.variation)
    spare = [max(0.0, whole - taken) / 2 for whole, taken in zip(room, line.room(pose), strict=True)]
    middle = (width / 2 + draw.uniform(-spare[0], spare[0]), (top + bottom) / 2 + draw.uniform(-spare[1], spare[1]))
    canvas.write(line, middle, dark(draw), pose)
    return canvas, {"what": what, "letter": letter, "value": value, "rim": rim, "font": name, "size": size}


def dark(draw: Draw) -> Colour:
    return tuple(draw.between(0, 70) for _ in range(3))


def disc(draw: Draw, pool: Pool) -> tuple[Canvas, dict]:
    letter = draw.pick(BOXES)
    return labelled(draw, pool, "disc", letter, draw.pick(allowed_values(draw, letter)))


def text(draw: Draw, pool: Pool) -> tuple[Canvas, dict]:
    height, width = pool.frame
    ink, ground = ink_and_ground(draw)
    canvas, lines = Canvas(width, height, ground), []
    name = draw.pick(draw.fonts)
    for row in sorted(draw.some(range(height // CELL), draw.between(1, height // CELL))):
        lines.append(draw.text(draw.between(2, max(2, width // 18))))
        line, pose, _ = fitting(draw, lines[-1], name, draw.between(*SIZES), (width - 4, CELL - 2), pool.variation)
        canvas.write(line, (width / 2, CELL * (row + 0.5)), ink, pose)
    return canvas, {"what": "text", "lines": lines, "font": name}


def scene(draw: Draw, pool: Pool) -> tuple[Canvas, dict]:
    height, width = pool.frame
    side = min(height, width)
    looks = [draw.look(held_out=draw.held_out), *(draw.look() for _ in range(draw.between(0, 3)))]
    across, down = draw.uniform(0, width - side), draw.uniform(0, height - side)
    things = [
        Thing(*thing.look, thing.x + across, thing.y + down, thing.radius)
        for thing in placed(draw, looks, side=side, pitch=FINE_PITCH)
    ]
    canvas = Canvas(width, height, pale(draw))
    for thing in things:
        canvas.shape(thing.shape, (thing.x, thing.y), thing.radius, inked(draw, thing.colour))
    return canvas, {"what": "scene", "things": [list(thing.look) for thing in things]}


def stripes(draw: Draw, pool: Pool) -> tuple[Canvas, dict]:
    height, width = pool.frame
    pairs = [(one, other) for one in COLOURS for other in COLOURS if one != other]
    one, other = draw.pick([pair for pair in pairs if stripes_held_out(*pair) == draw.held_out])
    canvas, upright = Canvas(width, height, inked(draw, one)), draw.chance(0.5)
    step = draw.between(5, 12)
    mask = Image.new("L", (width, height))
    for start in range(draw.between(0, step), width if upright else height, 2 * step):
        end = start + step - 1
        box = (start, 0, end, height) if upright else (0, start, width, end)
        ImageDraw.Draw(mask).rectangle(box, fill=255)
    canvas.ink(mask, (0, 0), inked(draw, other))
    return canvas, {"what": "stripes", "colours": [one, other]}


OTHERS = (text, text, scene, scene, stripes, disc)  # a frame without a fact is one of these
