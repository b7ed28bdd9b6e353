"""The demo itself: the model looks at pictures, watches a stream, is asked about it, and its memory is measured.

All that it sees is drawn on the spot from a seed, and held out: none of it can have been in the training. Each answer
is the model's own, is printed with the truth, and may be wrong; that is no fault of the program. What must hold, or
else the exit code is 1: the memory has the same number of bytes from the first frame to the last, and a question leaves
every number in it as it was.
"""

import argparse
import statistics
import time
from collections import deque

import torch

from ..bench.files import make_ready
from ..checkpoint import load
from ..commands.html_page import write
from ..commands.stream_terminal import Live
from ..config import DecoderConfig
from ..generate import chat
from ..model import InfiniteVL
from ..source import checkpoint_folder
from ..stream import Stream
from ..train.splits import HELD_OUT
from ..train.tiny_streams import TinyStream
from ..train.tiny_world import Sample, TinyWorld
from .facts import SHORTEST, Question, stream_of_facts
from .report import report
from .results import Answer, Reading, Watched, full_attention_nbytes, memory_verdict, scores, told

KINDS = ("reading", "lines", "colour", "shape", "count", "side", "more", "value")
LONGEST = 16  # tokens of an answer; the longest right one has fewer
STEP = 50  # frames between two readings of the memory, or a multiple of it where a stream is long
READINGS = 16  # of them at most
REDRAWN = 0.2  # seconds between two live lines


def run(args: argparse.Namespace) -> int:
    make_ready(args.report, ".html", ".htm")
    if args.frames < SHORTEST:
        raise ValueError(f"--frames is {args.frames}; it should be at least {SHORTEST}")
    world = TinyWorld(HELD_OUT, args.seed)
    torch.set_num_threads(1)  # the tensors are tiny: a second thread is mostly waited for
    start = time.perf_counter()
    model, processor = load(args.model, device="cpu", dtype=torch.float32)
    stream = Stream(model, processor, size=(56, 56))
    about = described(args.model, model, time.perf_counter() - start)
    print("MiniVL's demo: a small trained model looks, reads, watches and remembers. No GPU, no network.")
    print("\n1. The model", *about, sep="\n  ", flush=True)
    model.fuse()

    print(f"\n2. Pictures that were not in its training (seed {args.seed})", flush=True)
    seen = [look(model, processor, world.of(kind, 0)) for kind in KINDS]

    facts, rounds = stream_of_facts(args.frames, seed=args.seed, window=model.config.sliding_window)
    print(
        f"\n3. A stream of {args.frames:,} frames, {stream.cells} tokens each: "
        f"{args.frames * stream.cells / facts.settings.window:.1f} times its window of {facts.settings.window} tokens",
        flush=True,
    )
    watched = watch(stream, facts, rounds)

    print("\n4. Memory and time", *measured(model.config, watched), sep="\n  ", flush=True)

    verdicts = [*scores(seen, watched), memory_verdict(model.config, watched)]
    write(args.report, report(args, about, seen, watched, verdicts, model.config))
    print("\n5. In all", *verdicts, sep="\n  ")
    if not all(answer.right for answer in (*seen, *watched.answers)):
        print("  A wrong answer is the model's own and stands here as it was given; the program did its work.")
    print(f"  {time.perf_counter() - start:.0f} s, without Python's own start\nreport: {args.report}")
    return 0 if watched.constant else 1


def described(source: str, model: InfiniteVL, seconds: float) -> list[str]:
    config, files = model.config, checkpoint_folder(source).glob("*.safetensors")
    windows = config.layer_types.count("sliding_attention")
    parameters = sum(x.numel() for x in model.parameters())
    return [
        f"{source}: {parameters:,} parameters, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB",
        f"{len(config.layer_types)} layers: {windows} see a window of {config.sliding_window} tokens, "
        f"{len(config.layer_types) - windows} keep a state of constant size",
        f"loaded in {seconds:.1f} s, in float32 on one core",
    ]


def plain(pieces) -> str:
    """An answer in one line, of characters that can be printed: random weights may say anything."""
    words = " ".join("".join(pieces).split())
    return "".join(character if character.isprintable() else "\ufffd" for character in words)


def look(model: InfiniteVL, processor, sample: Sample) -> Answer:
    said = plain(chat(model, processor, sample.messages, max_new_tokens=LONGEST))
    answer = Answer(sample, sample.question, said, sample.answer)
    tell(answer, f"{sample.kind}: {sample.question}")
    return answer


def tell(answer: Answer, question: str, note: str = "") -> None:
    print(f"  {'ok   ' if answer.right else 'WRONG'} {question}  {answer.said or '(nothing)'}")
    print(f"        truth: {answer.truth}{note}", flush=True)


def watch(stream: Stream, facts: TinyStream, rounds: dict[int, list[Question]]) -> Watched:
    watched, live, redrawn = Watched(facts), Live(), 0.0
    lately, since = deque(maxlen=30), []  # seconds of the last frames, and of those since the last reading
    watched.sizes.add(stream.memory.nbytes)
    step = STEP * -(-len(facts) // (STEP * READINGS))
    for frame in facts.frames:
        start = time.perf_counter()
        stream.watch(frame.picture.image, seconds=frame.seconds)
        end = time.perf_counter()
        for times in (lately, since):
            times.append(end - start)
        watched.times.add(end - start)
        watched.sizes.add(stream.memory.nbytes)
        if end - redrawn > REDRAWN:
            live.show(progress(stream, lately))
            redrawn = end
        if stream.frames_seen % step == 0 or stream.frames_seen == len(facts):
            seconds = statistics.median(since)
            watched.readings.append(Reading(stream.frames_seen, stream.tokens_seen, stream.memory.nbytes, seconds))
            since.clear()
        if stream.frames_seen in rounds:
            live.clear()
            print(f"  after {progress(stream, lately)}", flush=True)
            ask(stream, rounds[stream.frames_seen], watched)
    live.clear()
    return watched


def progress(stream: Stream, lately: deque[float]) -> str:
    return (
        f"{stream.frames_seen:,} frames, {1 / statistics.median(lately):.0f} a second, {stream.tokens_seen:,} tokens, "
        f"memory {stream.memory.nbytes:,} bytes"
    )


def ask(stream: Stream, questions: list[Question], watched: Watched) -> None:
    """The questions of one moment; the memory before and after them."""
    before, size = {name: x.clone() for name, x in stream.memory.tensors().items()}, stream.memory.nbytes
    for question in questions:
        asked = question.asked
        said = plain(stream.ask(asked.messages, max_new_tokens=LONGEST))
        watched.sizes.add(stream.memory.nbytes)
        watched.answers.append(Answer(question, asked.question, said, asked.answer))
        tell(watched.answers[-1], asked.question, f", {told(watched, watched.answers[-1])}")
    after = stream.memory.tensors()
    same = before.keys() == after.keys() and all(torch.equal(x, after[name]) for name, x in before.items())
    watched.untouched &= same
    print(
        f"  memory before the questions {size:,} bytes, after them {stream.memory.nbytes:,}: "
        f"{'the same' if same else 'NOT THE SAME'}, bit for bit",
        flush=True,
    )


def measured(config: DecoderConfig, watched: Watched) -> list[str]:
    lines = ["frames  tokens  bytes of memory  with full attention (computed)  ms a frame"]
    for x in watched.readings:
        full = full_attention_nbytes(config, x.tokens)
        lines.append(f"{x.frames:6,}  {x.tokens:6,}  {x.nbytes:15,}  {full:30,}  {1e3 * x.seconds:10.1f}")
    return lines
