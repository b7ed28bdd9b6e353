"""The demo's stream: which boxes are shown when, and what is asked about them, after each third of it.

It is a stream of the tiny world (see train/tiny_streams.py), from the held-out part, but with its facts in chosen
places, so that each run asks for new ones and for old ones. Each time all four boxes are asked for, and one that never
comes. Two boxes change their content from third to third, one changes it once, and one keeps it to the end.

    box       first third    second third    last third
    first     0              1               0              twelfths of a third that lie between fact and questions
    second    1              0               8
    third     4              –               –              –: not shown again, so further and further back
    fourth    8              4               –
    fifth     –              –               –              never shown
"""

from dataclasses import dataclass

from ..train.splits import HELD_OUT, Draw
from ..train.tiny_streams import BOXES, Asked, StreamSettings, TinyStream, TinyStreams

THIRDS, SHARES = 3, 12
SHOWN = ((0, 1, 0), (1, 0, 8), (4, None, None), (8, 4, None), (None, None, None))
SHORTEST = THIRDS * SHARES  # frames
PATH = 1002  # where the random numbers of these streams begin; see Draw.of


@dataclass(frozen=True)
class Question:
    """What is asked when `after` frames have been seen. `before`: what the box held until then, if anything."""

    asked: Asked
    after: int
    before: Asked | None


def stream_of_facts(frames: int, *, seed: int, window: int) -> tuple[TinyStream, dict[int, list[Question]]]:
    """The stream, and its questions by the number of frames after which they are asked."""
    streams = TinyStreams(HELD_OUT, seed, StreamSettings(window=window))
    pool, draw, third = streams.pool, Draw.of(seed, HELD_OUT, PATH), frames // THIRDS
    ends = range(frames - (THIRDS - 1) * third, frames + 1, third)
    numbers = draw.rng.integers(pool.facts, len(pool), size=frames)  # no facts yet
    boxes = draw.some(BOXES, len(SHOWN))
    for box, shares in zip(boxes, SHOWN, strict=True):
        given = [(end, share) for end, share in zip(ends, shares, strict=True) if share is not None]
        streams.show(draw, numbers, box, [end - 1 - share * third // SHARES for end, share in given])
    stream = TinyStream(HELD_OUT, 0, numbers, (), pool, streams.settings)
    return stream, {end: [question(stream, box, end) for box in boxes] for end in ends}


def question(stream: TinyStream, box: str, after: int) -> Question:
    asked = stream.ask(box, after=after)
    before = None if asked.frame is None else stream.ask(box, after=asked.frame)
    return Question(asked, after, before if before and before.frame is not None else None)


def lookalike(stream: TinyStream, question: Question) -> int | None:
    """The last frame that might be taken for the box: a disc that bears its letter."""
    for at in reversed(range(question.after)):
        record = stream.pool.record(int(stream.numbers[at]))
        if record["what"] == "disc" and record["letter"] == question.asked.box:
            return at
    return None
