"""The demo's report: each picture and each question with what the model said and the truth, and three plots.

Beside each question about the stream stand the frames around the one that showed the fact, as the model saw them.
"""

import argparse
import platform

import torch

from ..commands.html_page import grid, page, picture, section, table, text
from ..config import DecoderConfig
from ..train.tiny_streams import TinyStream
from . import plots
from .facts import lookalike
from .results import Answer, Watched, full_attention_nbytes, told

AROUND = 2  # frames before a fact and after it
STYLE = """
.lead { max-width: 44rem; }
.right { color: var(--one); white-space: nowrap; }
.wrong { color: var(--two); white-space: nowrap; }
.said { font-weight: 600; overflow-wrap: break-word; max-width: 14ch; }
.pictures, .frames, .plots { display: flex; flex-wrap: wrap; gap: 0.4rem; align-items: flex-start; }
.pictures img { max-width: 100%; height: auto; image-rendering: pixelated; }
.frames img { width: 56px; image-rendering: pixelated; }
.frames .fact { outline: 3px solid var(--three); }
.frames .old { outline: 3px dotted var(--quiet); margin-right: 0.8rem; }
.note { color: var(--quiet); font-size: 0.85rem; margin: 0.3rem 0 0; }
.plots { gap: 1.5rem; }
.plots > div { flex: 1 1 20rem; max-width: 31rem; min-width: 0; }
.numbers th { white-space: normal; vertical-align: bottom; max-width: 9rem; }
.numbers td, .numbers th { text-align: right; padding-right: 1.2rem; overflow-wrap: normal; }
.numbers { font-variant-numeric: tabular-nums; }
@media (max-width: 640px) {
  h1 { font-size: 1.6rem; }
  .frames img { width: 48px; height: 48px; }
  .numbers { font-size: 0.85rem; }
  .numbers td, .numbers th { padding-right: 0.6rem; }
}
"""


def report(
    args: argparse.Namespace,
    about: list[str],
    seen: list[Answer],
    watched: Watched,
    verdicts: list[str],
    config: DecoderConfig,
) -> str:
    parts = [
        "<h1>A small model looks, reads, watches and remembers</h1>",
        f"<p class='lead'>{text(introduction(seen, watched))}</p>",
        f"<ul>{''.join(f'<li>{text(verdict[0].upper() + verdict[1:])}.</li>' for verdict in verdicts)}</ul>",
        *section("Pictures", [grid(("", "Question", "Said", "Truth", ""), [about_picture(one) for one in seen])]),
        *section("The stream", stream_part(watched)),
        *section("Memory and time", memory_part(watched, config)),
        *section("This run", [table(settings(args, about))]),
    ]
    return page("MiniVL's demo", parts, style=STYLE)


def introduction(seen: list[Answer], watched: Watched) -> str:
    cells, window = watched.stream.settings.cells, watched.stream.settings.window
    return (
        f"The model looked at {len(seen)} pictures, and then watched {len(watched.stream):,} "
        f"frames, one after the other, {cells} tokens each. Its window is {window} tokens; whatever came "
        f"before lives on in a state of constant size, or is gone. Every answer on this page is the model's own, as it "
        f"was given, right or wrong. Pictures and frames were drawn when it ran, and hold combinations that its "
        f"training never had."
    )


def about_picture(answer: Answer) -> list[str]:
    images = answer.of.images
    words = f"of {len(images)}, {answer.of.kind}; the right answer is {answer.truth}"
    shown = (picture(image, f"picture {number} {words}", kind="PNG") for number, image in enumerate(images, start=1))
    asked = f"{text(answer.question)}{letters(answer.of.record)}"
    return [f"<div class='pictures'>{''.join(shown)}</div>", asked, *said_and_truth(answer)]


def letters(record: dict) -> str:
    """How large the letters are that are to be read, and in which font; nothing where none are."""
    if "lines" not in record:
        return ""
    line = record["lines"][record.get("asked", 1) - 1]
    return f"<p class='note'>Letters of {line['size']} pixels, {text(line['font'])}.</p>"


def said_and_truth(answer: Answer) -> list[str]:
    mark = "<span class='right'>✓ right</span>" if answer.right else "<span class='wrong'>✗ wrong</span>"
    return [f"<span class='said'>{text(answer.said or '(nothing)')}</span>", text(answer.truth), mark]


def stream_part(watched: Watched) -> list[str]:
    names = ("After frame", "Question", "Said", "Truth", "", "What it saw")
    return [
        "<p class='lead'>After each third of the stream five boxes were asked for. What is in a box was shown in one "
        "frame, framed here, between others that show something else; a dotted frame is what the box held before. A "
        "disc with a letter is no box. A question goes to a copy of the memory, so the stream never knows that it was "
        "asked.</p>",
        grid(names, [about_fact(answer, watched) for answer in watched.answers]),
        *section("Right and wrong, by distance", [f"<div class='plots'><div>{plots.distances(watched)}</div></div>"]),
    ]


def about_fact(answer: Answer, watched: Watched) -> list[str]:
    question, stream, note = answer.of, watched.stream, told(watched, answer)
    at, look = question.asked.frame, "fact"
    if at is None:
        at, look = lookalike(stream, question), ""
        note += "" if at is None else f"; frame {at + 1:,} has a disc with its letter"
    shown = [frame(stream, question.before.frame, "old")] if question.before else []
    if at is not None:
        places = range(max(0, at - AROUND), min(question.after, at + AROUND + 1))
        shown += [frame(stream, place, look if place == at else "") for place in places]
    return [
        f"{question.after:,}",
        text(answer.question),
        *said_and_truth(answer),
        f"<div class='frames'>{''.join(shown)}</div><p class='note'>{text(note[0].upper() + note[1:])}.</p>",
    ]


def frame(stream: TinyStream, at: int, look: str) -> str:
    number = int(stream.numbers[at])
    words = f"frame {at + 1:,}: {content(stream.pool.record(number))}"
    return picture(stream.pool[number].image, words, kind="PNG", look=look)


def content(record: dict) -> str:
    """What is on a frame, in words."""
    match record["what"]:
        case "box" | "disc" as what:
            return f"a {what}, in it {record['letter']}:{record['value']}"
        case "text":
            return f"text: {', '.join(record['lines'])}"
        case "scene":
            return ", ".join(f"a {colour} {shape}" for colour, shape in record["things"])
        case _:
            return f"stripes, {' and '.join(record['colours'])}"


def memory_part(watched: Watched, config: DecoderConfig) -> list[str]:
    cells = [
        [
            f"{x.frames:,}",
            f"{x.tokens:,}",
            f"{x.nbytes:,}",
            f"{full_attention_nbytes(config, x.tokens):,}",
            f"{1e3 * x.seconds:.1f}",
        ]
        for x in watched.readings
    ]
    names = ("frames", "tokens", "bytes of memory", "with full attention (computed)", "ms a frame")
    return [
        f"<div class='plots'><div>{plots.memory(watched, config)}</div><div>{plots.times(watched)}</div></div>",
        "<p class='lead'>The memory was measured after every frame and after every question. The other curve was not: "
        "it is what the keys and values of a model of this shape would take if each of its layers had full attention. "
        "A question works on a copy, which is as large again, whenever it comes.</p>",
        grid(names, cells, look="numbers"),
    ]


def settings(args: argparse.Namespace, about: list[str]) -> dict[str, object]:
    return {
        "command": f"python -m minivl demo --model {args.model} --frames {args.frames} --seed {args.seed}",
        "model": "; ".join(about),
        "run with": f"Python {platform.python_version()}, PyTorch {torch.__version__}, one thread of a CPU",
    }
