"""The claims about a stream: each takes a class of streams, the real one or an edited one, and one case.

The reference has no memory and no stream: the whole row, from <|vision_start|> to the end, in one call of the model,
with each token's three positions counted out one by one.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minivl.model import InfiniteVL
from minivl.pictures import picture_patches
from minivl.processor import Processor, load_processor
from minivl.stream import Stream

from .fakes import tiny_config, tiny_folder
from .layer_claims import BOUND, same
from .models import error

SIZE = (56, 84)  # two rows of three cells
WINDOW = 10  # less than two frames
LIMIT = 4
WORDS = 500  # of the vocabulary: those that are no control tokens
QUESTIONS = ("What happens?", "And now? Say it in one word.", "a")


def new_model(seed: int = 0) -> InfiniteVL:
    """Weights so large that every part shows in the scores, and never a pad among the words it says.

    It keeps what it scored: an answer of a few words may come out right by luck, but not its scores.
    """
    torch.manual_seed(seed)
    made = InfiniteVL(tiny_config(sliding_window=WINDOW))
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
        else:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    score, pads = made.score, torch.tensor([made.config.image_token_id, made.config.video_token_id])

    def kept(x: Tensor) -> Tensor:
        made.scored.append(score(x).index_fill(-1, pads, -torch.inf))
        return made.scored[-1]

    made.scored, made.score = [], kept
    return made.double().eval()


@functools.cache
def model() -> InfiniteVL:
    return new_model()


@functools.cache
def processor() -> Processor:
    return load_processor(tiny_folder())


@dataclass(frozen=True)
class StreamCase:
    """How many frames, at which fps, and whether they bring times of their own: some of them, whole ones or not."""

    frames: int = 5
    seed: int = 0
    fps: float = 1.0
    stamped: bool = False

    def make(self, kind: type[Stream]) -> Stream:
        return kind(model(), processor(), fps=self.fps, size=SIZE)

    def shots(self) -> list[tuple[Image.Image, float | None]]:
        """Frames of the stream's own size, with their times."""
        random, out, now = Random(self.seed), [], 0.0
        for number in range(self.frames):
            pixels = np.random.default_rng([self.seed, number]).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            stamp = None
            if self.stamped and random.random() < 0.7:
                now += random.choice((0, 0.25, 0.5, 1.0, 3.75, 40))
                stamp = now
            else:
                now += 1 / self.fps
            out.append((Image.fromarray(pixels), stamp))
        return out


class WholeRow:
    """All that a stream has seen and a question asked of it: tokens, positions and pixels in one row."""

    def __init__(self, case: StreamCase):
        config = model().config
        self.ids, self.places, self.pixels, self.grids = [config.vision_start_token_id], [(0, 0, 0)], [], []
        stamp, since = Fraction(0), -1
        for picture, seconds in case.shots():
            stamp, since = (stamp, since + 1) if seconds is None else (Fraction(seconds), 0)
            time = 1 + 2 * floor(stamp + since / Fraction(case.fps))
            self.ids += [config.image_token_id] * 6
            self.places += [(time, 1 + row, 1 + column) for row in range(2) for column in range(3)]
            pixels, grid = picture_patches(picture, processor().settings)
            assert grid == (1, 4, 6)
            self.pixels.append(pixels)
            self.grids.append(grid)

    def say(self, tokens: list[int]) -> None:
        free = 1 + max(max(place) for place in self.places)
        self.ids += tokens
        self.places += [(place, place, place) for place in range(free, free + len(tokens))]

    def ask(self, question: str) -> None:
        words, control = processor().tokenizer.encode, processor().tokenizer.special
        start, end = control("<|im_start|>"), control("<|im_end|>")
        turns = ("system\nYou are a helpful assistant.", f"user\n{question}")
        self.say([control("<|vision_end|>")])
        for turn in turns:
            self.say([start, *words(turn), end, *words("\n")])
        self.say([start, *words("assistant\n")])

    @torch.no_grad()
    def scores(self) -> Tensor:
        """[T, vocabulary]"""
        pictures = {"pixels": torch.cat(self.pixels), "grids": torch.tensor(self.grids)} if self.grids else {}
        positions = torch.tensor(self.places).T[:, None]
        return model()(torch.tensor([self.ids]), positions=positions, **pictures)[0]

    def answer(self, question: str, said: int) -> tuple[str, Tensor]:
        """The answer that the scores call for, and the scores of its first `said` words [said, vocabulary]."""
        self.ask(question)
        start = len(self.ids) - 1
        while len(self.ids) - start < said:
            self.say([int(self.scores()[-1].argmax())])
        scores, tokens = self.scores()[start:], []
        for token in scores.argmax(-1).tolist()[:LIMIT]:
            if token in model().config.stop_tokens:
                break
            tokens.append(token)
        return processor().tokenizer.decode(tokens), scores


def heard(answer: Iterator[str] | Callable) -> tuple:
    """What is said, to its end, and the scores it was drawn from [steps, B, words]."""
    model().scored.clear()
    said = answer() if callable(answer) else "".join(answer)
    return said, torch.stack([x[:, -1, :WORDS] for x in model().scored])


def watched(stream: Stream, case: StreamCase, first: int = 0, last: int | None = None) -> Stream:
    for picture, seconds in case.shots()[first:last]:
        stream.watch(picture, seconds=seconds)
    return stream


def asked(stream: Stream, question: str = QUESTIONS[0]) -> str:
    return "".join(stream.ask(question, max_new_tokens=LIMIT))


def alike(one: Stream, other: Stream) -> bool:
    """Bit for bit, and in every number."""
    numbers = [(s.tokens_seen, s.frames_seen, s.seconds, s.fps, s.size) for s in (one, other)]
    return same(one.memory, other.memory) and numbers[0] == numbers[1]


@torch.no_grad()
def watching_is_one_call_over_the_whole_row(kind: type[Stream], case: StreamCase) -> None:
    """Whatever a memory holds shows in the scores of the next few words."""
    stream, row = watched(case.make(kind), case), WholeRow(case)
    assert stream.tokens_seen == stream.memory.tokens_seen == len(row.ids)
    assert stream.frames_seen == case.frames
    words = [7, 8, 9]
    scores = model()(torch.tensor([words]), memory=stream.memory.clone())[0]
    row.say(words)
    assert error(scores[:, :WORDS], row.scores()[-3:, :WORDS]) < BOUND


def it_answers_what_the_whole_row_answers(kind: type[Stream], case: StreamCase) -> None:
    stream = watched(case.make(kind), case)
    for question in QUESTIONS[:2]:
        said, scores = heard(stream.ask(question, max_new_tokens=LIMIT))
        expected, oracle = WholeRow(case).answer(question, len(scores))
        assert said == expected
        assert error(scores[:, 0], oracle[:, :WORDS]) < BOUND


def asking_never_touches_the_stream(kind: type[Stream], case: StreamCase) -> None:
    """Answers are read to the end, broken off, never begun, or read while frames are watched."""
    expected, then = watched(case.make(kind), case), watched(case.make(kind), case, 0, 2)
    said, scores = heard(then.ask(QUESTIONS[0], max_new_tokens=LIMIT))
    stream, begun, answers = case.make(kind), [], []
    for number, (picture, seconds) in enumerate(case.shots()):
        if number == 2:
            before = stream.memory.clone()
            answers = [stream.ask(QUESTIONS[0], max_new_tokens=LIMIT) for _ in range(2)]
            first, begun = heard(functools.partial(next, answers[0]))
            broken = stream.ask(QUESTIONS[1], max_new_tokens=LIMIT)
            next(broken, None)
            broken.close()
            stream.ask(QUESTIONS[1])
            stream.ask_all(list(QUESTIONS), max_new_tokens=1)
            assert same(stream.memory, before)
        stream.watch(picture, seconds=seconds)
    rest, later = heard(answers[0])
    assert first + rest == said
    assert torch.equal(torch.cat([begun, later]), scores)
    whole, late = heard(answers[1])
    assert whole == said
    assert torch.equal(late, scores)
    assert alike(stream, expected)


def a_second_question_sees_what_came_since_the_first(kind: type[Stream], case: StreamCase) -> None:
    """Each of them on the copy that the first one left, whether that was read to its end, broken off or never begun."""
    stream = watched(case.make(kind), case, 0, 1)
    for number, leave in enumerate((list, lambda answer: next(answer, None), lambda answer: None), 1):
        leave(stream.ask(QUESTIONS[0], max_new_tokens=LIMIT))
        watched(stream, case, number, number + 1)
        fresh = watched(case.make(kind), case, 0, number + 1)
        said, scores = heard(stream.ask(QUESTIONS[1], max_new_tokens=LIMIT))
        expected, oracle = heard(fresh.ask(QUESTIONS[1], max_new_tokens=LIMIT))
        assert said == expected
        assert torch.equal(scores, oracle)


def frames_made_ready_ahead_are_those_watched_one_by_one(kind: type[Stream], case: StreamCase) -> None:
    """Also larger ones, of which the early ones take longest; one that can't be opened is refused in its turn."""
    shots = [picture.resize((84 * (case.frames - number), 56)) for number, (picture, _) in enumerate(case.shots())]
    shots.insert(2, b"no picture")
    expected, stream, refused = case.make(kind), case.make(kind), []
    for number, shot in enumerate(shots):
        if number != 2:
            expected.watch(shot)
    try:
        for number, frame in enumerate(stream.ahead(shots, workers=2)):
            try:
                stream.watch(frame)
            except ValueError:
                refused.append(number)
    except ValueError as fault:
        raise AssertionError("a frame that can't be opened ended the others") from fault
    assert refused == [2]
    assert alike(stream, expected)


def many_questions_at_once_are_answered_as_each_alone(kind: type[Stream], case: StreamCase) -> None:
    stream = watched(case.make(kind), case)
    alone = [heard(stream.ask(question, max_new_tokens=LIMIT)) for question in QUESTIONS]
    for chosen in (slice(None), slice(1, 2)):
        answers, scores = heard(lambda chosen=chosen: stream.ask_all(list(QUESTIONS[chosen]), max_new_tokens=LIMIT))
        assert answers == [said for said, _ in alone[chosen]]
        for row, (_, own) in enumerate(alone[chosen]):
            assert error(scores[: len(own), row], own[:, 0]) < BOUND


def streams_on_one_model_do_not_meet(kind: type[Stream], case: StreamCase) -> None:
    other = StreamCase(case.frames, case.seed + 1, 2 * case.fps, not case.stamped)
    together = case.make(kind), other.make(kind)
    for shots in zip(case.shots(), other.shots(), strict=True):
        for stream, (picture, seconds) in zip(together, shots, strict=True):
            stream.watch(picture, seconds=seconds)
    for stream, own in zip(together, (case, other), strict=True):
        assert alike(stream, watched(own.make(kind), own))


def saved_and_resumed_equals_uninterrupted(kind: type[Stream], case: StreamCase) -> None:
    stream, half = watched(case.make(kind), case), case.frames // 2
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stream"
        watched(case.make(kind), case, 0, half).save(path)
        resumed = kind.resume(path, model(), processor())
    assert alike(resumed, watched(case.make(kind), case, 0, half))
    assert alike(watched(resumed, case, half), stream)
    assert asked(resumed) == asked(stream)


REFUSED = {
    "no picture": ("frame", {}),
    "nothing": (None, {}),
    "floats": (np.zeros((56, 84, 3)), {}),
    "empty": (np.zeros((0, 84, 3), np.uint8), {}),
    "an empty picture": (Image.new("RGB", (0, 56)), {}),
    "odd shape": (torch.zeros(2, 56, 84, dtype=torch.uint8), {}),
    "backwards": (Image.new("RGB", (84, 56)), {"seconds": -0.5}),
    "not a time": (Image.new("RGB", (84, 56)), {"seconds": "1"}),
    "NaN": (Image.new("RGB", (84, 56)), {"seconds": float("nan")}),
    "never": (Image.new("RGB", (84, 56)), {"seconds": float("inf")}),
    "no picture, but late": (b"no picture", {"seconds": 1000}),
}


def a_refused_frame_leaves_the_stream_as_it_was(kind: type[Stream], case: StreamCase) -> None:
    stream = watched(case.make(kind), case, 0, 3)
    before = watched(case.make(kind), case, 0, 3)
    refused = [*REFUSED.values(), (Image.new("RGB", (84, 56)), {"seconds": stream.seconds - 0.01})]
    for frame, options in refused:
        said = ""
        try:
            stream.watch(frame, **options)
        except (ValueError, TypeError, OSError) as fault:
            said = str(fault)
        assert said, f"{frame!r} at {options} is watched"
        assert "\n" not in said
        assert alike(stream, before)
    assert alike(watched(stream, case, 3), watched(case.make(kind), case))
