"""A sheet of samples to look at: pictures, enlarged, with question and answer, or with their labels laid over them.

python -m minivl.train.contact_sheet out/tiny-world.png
python -m minivl.train.contact_sheet out/labels.png --labels --kinds reading lines --split "held-out unseen fonts"
"""

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..bench.files import make_ready
from .drawing import CELL, LABELS, PATCH, Picture
from .splits import ALPHABET, SPLITS
from .tiny_streams import StreamSettings, TinyStreams
from .tiny_world import KINDS, TinyWorld

WIDTH, GAP = 1000, 8  # pixels; a sheet is wider where a sample is
INK, PAPER, MARK = (30, 30, 30), (255, 255, 255), (213, 94, 0)
BRIEF = {label: label if label in ALPHABET else label[:2] for label in LABELS}


def labelled(picture: Picture, scale: int) -> Image.Image:
    """The picture, enlarged and paler, with each patch's label, and above each merged cell what its slots hold."""
    shown = enlarged(picture.image, scale)
    shown = Image.blend(shown, Image.new("RGB", shown.size, PAPER), 0.45)
    pen, small, large = ImageDraw.Draw(shown), ImageFont.load_default(4 * scale), ImageFont.load_default(6 * scale)
    for (row, column), label in _cells(picture.layout):
        box = [scale * PATCH * number for number in (column, row, column + 1, row + 1)]
        pen.rectangle(box, outline=(190, 190, 190))
        if label:
            pen.text((sum(box[::2]) / 2, sum(box[1::2]) / 2), BRIEF[LABELS[label]], MARK, font=large, anchor="mm")
    for row in range(picture.slots.shape[0]):
        for column, labels in enumerate(picture.slots[row]):
            corner = (scale * CELL * column, scale * CELL * row)
            pen.rectangle((*corner, *(side + scale * CELL for side in corner)), outline=INK)
            held = " ".join(BRIEF[LABELS[label]] for label in labels if label)
            pen.text((corner[0] + 3, corner[1] + 1), held, (0, 90, 178), font=small)
    return shown


def _cells(layout):
    return (((row, column), int(layout[row, column])) for row, column in zip(*layout.nonzero(), strict=True))


def enlarged(image: Image.Image, scale: int) -> Image.Image:
    return image.resize((scale * image.width, scale * image.height), Image.Resampling.NEAREST)


def panel(pictures: list[Image.Image], words: str) -> Image.Image:
    """Pictures side by side, the words below."""
    width = sum(image.width + GAP for image in pictures) - GAP
    face = ImageFont.load_default(13)
    lines = [line for part in words.split("\n") for line in textwrap.wrap(part, max(16, width // 7))]
    height = max(image.height for image in pictures)
    whole = Image.new("RGB", (width, height + 17 * len(lines) + 4), PAPER)
    left = 0
    for image in pictures:
        whole.paste(image, (left, 0))
        left += image.width + GAP
    for number, line in enumerate(lines):
        ImageDraw.Draw(whole).text((0, height + 3 + 17 * number), line, INK, font=face)
    return whole


def sheet(panels: list[Image.Image]) -> Image.Image:
    """Row by row, as many side by side as there is room for."""
    room = max(WIDTH, *(image.width + 2 * GAP for image in panels))
    places, left, top, low = [], GAP, GAP, 0
    for image in panels:
        if left + image.width + GAP > room:
            left, top = GAP, low + 2 * GAP
        places.append((left, top))
        left, low = left + image.width + 2 * GAP, max(low, top + image.height)
    whole = Image.new("RGB", (room, low + GAP), PAPER)
    for image, place in zip(panels, places, strict=True):
        whole.paste(image, place)
    return whole


STREAM = "stream"
ALL = (*KINDS, STREAM)
SHORT = StreamSettings(
    distance=(16, 16), lead=(4, 16), facts=2, rewrites=1, not_shown=0
)  # few enough frames for one row


def samples(kind: str, split: str, seed: int, count: int) -> Iterator[tuple[list[Picture], str]]:
    """Pictures and words of the first samples of a kind; of streams, of one only."""
    if kind == STREAM:
        stream = TinyStreams(split, seed, SHORT)[0]
        asked = stream.questions[0]
        yield [frame.picture for frame in stream.frames], f"{kind}: {asked.question}\n{asked.answer}"
        return
    for index in range(count):
        sample = TinyWorld(split, seed).of(kind, index)
        yield list(sample.pictures), f"{kind}: {sample.question}\n{sample.answer}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a sheet of samples of the tiny world.")
    parser.add_argument("file", type=Path, metavar="FILE.png")
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0])
    parser.add_argument("--kinds", nargs="+", choices=ALL, default=ALL, metavar="KIND", help=", ".join(ALL))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=3, help="samples of each kind (default: 3)")
    parser.add_argument("--scale", type=int, default=1, help="pixels for each (default: 1)")
    parser.add_argument("--labels", action="store_true", help="lay the labels of patches and cells over the pictures")
    args = parser.parse_args()
    make_ready(args.file, ".png")
    show = labelled if args.labels else lambda picture, scale: enlarged(picture.image, scale)
    panels = [
        panel([show(picture, args.scale) for picture in pictures], words)
        for kind in args.kinds
        for pictures, words in samples(kind, args.split, args.seed, args.each)
    ]
    sheet(panels).quantize(256).save(args.file)
    print(args.file)


if __name__ == "__main__":
    main()
