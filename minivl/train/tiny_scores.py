"""What the tiny model is held to: shares of answers that are exactly right on held-out data, each with its aim.

    world     each kind of question about pictures; reading apart for small letters and large ones
    recall    facts of a stream, asked for so many windows after they were shown; and boxes that were never shown
    blind     the same streams with nothing of them but the last window, where no fact is that was shown before it

The last is the control: a model whose window is all that it has can do no better, which is chance, one in 33.

    share = right / asked     interval (Wilson): (share + z²/2n ± z √(share (1 − share)/n + z²/4n²)) / (1 + z²/n)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..model import InfiniteVL
from ..processor import Processor
from .drawing import CELL
from .encoded import EncodedStreams, encoded
from .scoring import exactly
from .sources import Conversations
from .splits import HELD_OUT_FONTS
from .tiny_settings import Settings, whole
from .tiny_streams import ANSWERS, NOT_SHOWN, StreamSettings, TinyStreams
from .tiny_world import KINDS, TinyWorld

Z = 1.959964  # 95 of 100 draws of a normal distribution lie within so many deviations
WINDOWS = (0, 1, 2, 4, 8, 16, 32, 64)
SIZES = {"reading < 22 px": (15, 21), "reading ≥ 22 px": (22, 32)}  # of letters, in pixels to the em
ATTRIBUTES, COMPARISONS = ("colour", "shape", "count", "corner", "side"), ("same", "more", "larger")

AIMS = {"reading ≥ 22 px": 0.95, **dict.fromkeys(ATTRIBUTES, 0.95), **dict.fromkeys(COMPARISONS, 0.9), 8: 0.9, 64: 0.8}
AIMS_OF_UNSEEN_FONTS = {"reading ≥ 22 px": 0.7}  # where they differ


@dataclass(frozen=True)
class Score:
    """How many answers are right, of how many."""

    right: int
    asked: int

    def __post_init__(self):
        whole("the number of questions", self.asked, 1)
        whole("the number of right answers", self.right, 0, self.asked)

    @property
    def share(self) -> float:
        return self.right / self.asked

    @property
    def bounds(self) -> tuple[float, float]:
        """Where the share of endlessly many questions lies, at 95%."""
        share, n = self.share, self.asked
        middle, half = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
        low, high = ((middle + side) / (1 + Z**2 / n) for side in (-half, half))
        return max(0.0, min(low, share)), min(1.0, max(high, share))  # rounding leaves the share itself inside

    @property
    def interval(self) -> str:
        low, high = self.bounds
        return f"{low:.0%} to {high:.0%}"

    def __str__(self) -> str:
        return f"{self.share:.1%} ({self.interval})"


@dataclass(frozen=True)
class Scores:
    """Of one split: what is asked about pictures, by kind; of streams, by windows or NOT_SHOWN."""

    split: str
    world: dict[str, Score]
    recall: dict[int | str, Score]
    blind: dict[int | str, Score]


def scores(
    model: InfiniteVL,
    processor: Processor,
    split: str,
    *,
    seed: int = 0,
    number: int = 200,
    kinds: Sequence[str] = KINDS,
    windows: Sequence[int] = WINDOWS,
    settings: StreamSettings | None = None,
) -> Scores:
    """All of one split. Nearly every frame of the pool is shown by so many streams, so all are looked at."""
    settings = settings or StreamSettings()
    check_shape(model, processor, settings)
    vectors = pool_vectors(model, processor, split, seed=seed, settings=settings)
    streams = {"seed": seed, "number": number, "windows": windows, "settings": settings, "vectors": vectors}
    return Scores(
        split,
        world_scores(model, processor, split, seed=seed, number=number, kinds=kinds),
        recall_scores(model, processor, split, **streams),
        recall_scores(model, processor, split, **streams, blind=True),
    )


def world_scores(
    model: InfiniteVL,
    processor: Processor,
    split: str,
    *,
    seed: int = 0,
    number: int = 200,
    kinds: Sequence[str] = KINDS,
    settings: Settings | None = None,
) -> dict[str, Score]:
    """`number` questions of each kind. Without settings of your own, reading is scored for each range of SIZES."""
    asked = {kind: (kind, settings or Settings()) for kind in kinds if settings or kind != "reading"}
    if not settings and "reading" in kinds:
        asked = {name: ("reading", Settings(sizes=sizes)) for name, sizes in SIZES.items()} | asked
    found = {}
    for name, (kind, own) in asked.items():
        samples = Conversations(TinyWorld(split, seed, [kind], own), processor)
        found[name] = score(model, samples, number)
    return found


def recall_scores(
    model: InfiniteVL,
    processor: Processor,
    split: str,
    *,
    seed: int = 0,
    number: int = 200,
    windows: Sequence[int] = WINDOWS,
    settings: StreamSettings | None = None,
    vectors: Tensor | None = None,
    blind: bool = False,
) -> dict[int | str, Score]:
    """Facts asked for at exactly so many of the model's windows, and, as NOT_SHOWN, boxes that were never shown.

    `settings` says all but the distance and how often a box was not shown: how many facts are held at once, what comes
    before. `vectors` are those of the streams' pool, where they are at hand; otherwise those frames are looked at that
    are shown. `blind`: of each stream, only the frames of the last window are seen.
    """
    window = model.config.sliding_window
    settings = replace(settings or StreamSettings(), window=window)
    check_shape(model, processor, settings)
    asked = {count: replace(settings, distance=(count * window, count * window), not_shown=0) for count in windows}
    asked[NOT_SHOWN] = replace(settings, distance=(0, max(windows, default=0) * window), not_shown=1)
    streams = {name: TinyStreams(split, seed, own) for name, own in asked.items()}
    frames = window // settings.cells if blind else None
    if vectors is None:
        last = slice(-frames if blind else None, None)
        shown = {int(at) for own in streams.values() for index in range(number) for at in own[index].numbers[last]}
        vectors = pool_vectors(model, processor, split, seed=seed, settings=settings, only=sorted(shown))
    found = {}
    for name, own in streams.items():
        found[name] = score(model, EncodedStreams(own, processor, vectors, questions=1, frames=frames), number)
    return found


def pool_vectors(
    model: InfiniteVL,
    processor: Processor,
    split: str,
    *,
    seed: int = 0,
    settings: StreamSettings | None = None,
    only: Sequence[int] | None = None,
) -> Tensor:
    """What the model sees on the pictures of these streams, whatever their distances; on `only` these, if they are
    named: the vectors of the rest are zeros."""
    return encoded(model, processor, TinyStreams(split, seed, settings or StreamSettings()).pool, only=only)


def check_shape(model: InfiniteVL, processor: Processor, settings: StreamSettings) -> None:
    """The model's cells are those of the tiny world, and its window is a number of frames."""
    cell, window = processor.settings.cell, model.config.sliding_window
    if cell != CELL:
        raise ValueError(f"the model's cells have sides of {cell} pixels; the tiny world's have {CELL}")
    if window % settings.cells:
        raise ValueError(f"a frame has {settings.cells} tokens; a window, {window}, should be a number of whole frames")


def score(model: InfiniteVL, source, number: int) -> Score:
    """Of the first so many of a source's examples, which have one answer each."""
    right = [told for (told,) in exactly(model, (source[at] for at in range(number)))]
    return Score(sum(right), number)


def aim(name: str | int, split: str) -> float | None:
    """The share that a row of a split is held to; None where there is no aim."""
    return (AIMS | AIMS_OF_UNSEEN_FONTS if split == HELD_OUT_FONTS else AIMS).get(name)


def rows(found: Scores) -> dict[str, tuple[Score, float | None]]:
    """What a table tells of a split: each row's score and aim."""
    world = {name: (value, aim(name, found.split)) for name, value in found.world.items()}
    recall = {f"recall, {told(name)}": (value, aim(name, found.split)) for name, value in found.recall.items()}
    blind = {f"last window only, {told(name)}": (value, None) for name, value in found.blind.items()}
    return world | recall | blind


def told(name: int | str) -> str:
    return name if isinstance(name, str) else f"{name} window{'' if name == 1 else 's'} back"


def table(several: Sequence[Scores]) -> str:
    """A row for each thing that is asked, a column for each split, and the aims."""
    columns = [rows(found) for found in several]
    width = max(len(name) for column in columns for name in column)
    head = " ".join(f"{found.split:>34}" for found in several)
    lines = [f"{'':{width}} {head}", f"{'':{width}} " + " ".join(f"{'right (95%)':>22} {'aim':>11}" for _ in several)]
    for name in dict.fromkeys(name for column in columns for name in column):
        cells = [cell(*column[name]) if name in column else " " * 34 for column in columns]
        lines.append(f"{name:{width}} {' '.join(cells)}")
    asked = sorted({value.asked for column in columns for value, _ in column.values()})
    lines.append(f"of {', '.join(map(str, asked))} questions each; chance in a stream is {1 / len(ANSWERS):.0%}")
    return "\n".join(line.rstrip() for line in lines)


def cell(value: Score, aimed: float | None) -> str:
    reached = "" if aimed is None else f"{aimed:.0%} {'reached' if value.share >= aimed else 'missed'}"
    return f"{value!s:>22} {reached:>11}"


def as_dict(several: Sequence[Scores]) -> dict:
    """All of it for a JSON file."""

    def plain(name: int | str, value: Score, aimed: float | None) -> dict:
        low, high = value.bounds
        known = {"right": value.right, "asked": value.asked, "share": value.share, "low": low, "high": high}
        return known if aimed is None else known | {"aim": aimed, "reached": value.share >= aimed}

    return {
        found.split: {
            "world": {name: plain(name, value, aim(name, found.split)) for name, value in found.world.items()},
            "recall": {str(name): plain(name, value, aim(name, found.split)) for name, value in found.recall.items()},
            "blind": {str(name): plain(name, value, None) for name, value in found.blind.items()},
        }
        for found in several
    }
