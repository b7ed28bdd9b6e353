"""Conversations and streams as rows to learn from: laid out as chat and as Stream lay them out."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image

from minivl.generate import generate
from minivl.processor import load_processor
from minivl.stream import Stream
from minivl.train.examples import IGNORED, collate, example_of
from minivl.train.sources import Conversations, Mixed, Streams
from minivl.train.stream_examples import stream_example

from .fakes import tiny_folder, tiny_model
from .tolerances import close

ASKED = {"role": "user", "content": "What is it?"}
ANSWERED = {"role": "assistant", "content": "A cat."}


@pytest.fixture(scope="module")
def processor():
    return load_processor(tiny_folder())


def picture(seed: int, side: int = 56) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def with_picture(seed: int, text: str = "And this?") -> dict:
    return {"role": "user", "content": [{"type": "image", "image": picture(seed)}, {"type": "text", "text": text}]}


def test_a_conversation_with_pictures_is_placed_as_the_processor_places_it(processor):
    made = example_of(processor, [with_picture(0), ANSWERED, with_picture(1), ANSWERED])
    first = processor([with_picture(0)])
    T = first.ids.shape[1]
    assert made.ids[:T].equal(first.ids[0])
    assert made.positions[:, :T].equal(first.positions[:, 0])
    said = len(processor.tokenizer.encode("A cat."))
    start = first.positions.max() + 1 + said
    second = processor([with_picture(1)], start=start[None])
    assert made.positions[:, T + said : T + said + second.ids.shape[1]].equal(second.positions[:, 0])
    assert made.pixels.equal(torch.cat([first.pixels, second.pixels]))
    assert made.grids.equal(torch.cat([first.grids, second.grids]))


def test_rows_of_a_batch_give_the_logits_that_they_give_alone(processor):
    model = tiny_model(torch.float64)
    rows = [
        example_of(processor, messages)
        for messages in ([ASKED, ANSWERED], [with_picture(0), ANSWERED], [with_picture(1), ANSWERED, ASKED, ANSWERED])
    ]
    batch = collate(rows, processor.config)
    together = model(batch.ids, **batch.arguments)
    for row, one in enumerate(rows):
        alone = collate([one], processor.config)
        close(together[row, batch.mask[row]], model(alone.ids, **alone.arguments)[0], tolerance=1e-10)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hello", "the conversation is a str; it should be a list of messages"),
        ([ASKED], "the conversation should end with the assistant's answer"),
        ([], "the conversation should end with the assistant's answer"),
        ([ANSWERED], "message 1 is the assistant's; something to answer should come before it"),
        ([ASKED, ANSWERED, ANSWERED], "message 3 is the assistant's; something to answer should come before it"),
        ([ASKED, ANSWERED | {"content": ""}], "message 2, an answer, should be a text that is not empty"),
        ([ASKED, ANSWERED | {"content": 5}], "message 2, an answer, should be a text"),
        ([ASKED, {"role": "assistant", "content": with_picture(0)["content"]}], "message 2, an answer, should be a te"),
        ([{"role": "user"}, ANSWERED], "message 1 has no 'content'"),
        ([ASKED, ANSWERED, {"role": "clown", "content": "x"}, ANSWERED], "after message 2, message 1 has the role"),
    ],
)
def test_a_conversation_that_teaches_nothing_is_told(processor, messages, said):
    with pytest.raises((ValueError, TypeError), match=said):
        example_of(processor, messages)


def test_a_stream_is_read_as_a_stream_watches_and_answers_it(processor):
    """The logits at the answer, in one pass over the row, are those of a memory that took in frame after frame."""
    model = tiny_model(torch.float64)
    frames = [(picture(i, 60), 0.5 * i) for i in range(5)]
    messages = [ASKED, ANSWERED, {"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Two."}]
    row = stream_example(processor, iter(frames), messages, size=(56, 84))
    batch = collate([row], processor.config)
    logits = model(batch.ids, **batch.arguments)[0]
    said = processor.tokenizer.encode("A cat.")
    start = (row.labels != IGNORED).nonzero()[0].item()
    assert row.labels[start : start + len(said)].tolist() == said

    stream = Stream(model, processor, size=(56, 84))
    for frame, seconds in frames:
        stream.watch(frame, seconds=seconds)
    assert stream.tokens_seen == 1 + 5 * 6
    memory = stream.memory.clone()
    rest = row.ids[None, stream.tokens_seen :]
    with torch.no_grad():
        close(
            logits[stream.tokens_seen :].detach(),
            model(rest, positions=row.positions[:, None, stream.tokens_seen :], memory=memory)[0],
            tolerance=1e-9,
        )
        best = int(logits[start - 1].argmax())
    asked = "".join(stream.ask("What is it?", max_new_tokens=1))
    assert asked == processor.tokenizer.decode([best]), "the stream's own answer begins with another word"


def test_a_streams_row_that_cannot_be_is_told(processor):
    frames, messages = [(picture(0), 0.0)], [ASKED, ANSWERED]
    with pytest.raises(ValueError, match="the stream has no frames"):
        stream_example(processor, [], messages, size=(56, 56))
    with pytest.raises(ValueError, match=r"size is \(50, 56\); it should be height and width, multiples of 28"):
        stream_example(processor, frames, messages, size=(50, 56))
    with pytest.raises(ValueError, match="brings a picture of its own"):
        stream_example(processor, frames, [with_picture(0), ANSWERED], size=(56, 56))
    with pytest.raises(FileNotFoundError, match=r"frame 2: .*no-such\.png"):
        stream_example(processor, [*frames, ("no-such.png", 1.0)], messages, size=(56, 56))


@dataclass(frozen=True)
class Sample:
    messages: list
    answer: str


@dataclass(frozen=True)
class Samples:
    seed: int = 0

    def __getitem__(self, number: int) -> Sample:
        return Sample([ASKED | {"content": f"What is {number}?"}], str(number + self.seed))


def test_samples_with_answers_become_conversations(processor):
    data = Conversations(Samples(2), processor)
    made = data[3]
    assert processor.tokenizer.decode(made.ids.tolist()).endswith("What is 3?\nassistant\n5")
    assert "Samples(seed=2)" in data.description


def test_streams_with_questions_become_rows(processor):
    @dataclass(frozen=True)
    class Drawn:
        image: object

    @dataclass(frozen=True)
    class Frame:
        picture: Drawn
        seconds: float

    @dataclass(frozen=True)
    class Watched:
        frames: tuple
        questions: tuple

    frames = tuple(Frame(Drawn(picture(i)), float(i)) for i in range(3))
    streams = [Watched(frames, (Sample([ASKED], "A dog."), Sample([ASKED], "A cat.")))]
    made = Streams(streams, processor, size=(56, 56))[0]
    assert made.grids.tolist() == 3 * [[1, 4, 4]]
    assert made.positions[:, 1 : 1 + 3 * 4].tolist() == [
        4 * [1] + 4 * [3] + 4 * [5],
        3 * [1, 1, 2, 2],
        3 * [1, 2, 1, 2],
    ]
    labels = made.labels[made.labels != IGNORED].tolist()
    assert processor.tokenizer.decode(labels) == "A dog.A cat."


def test_sources_are_mixed_by_their_shares_and_by_number_only():
    class Named:
        def __init__(self, name: str):
            self.description = name

        def __getitem__(self, number: int) -> tuple[str, int]:
            return self.description, number

    data = Mixed([(0.8, Named("short")), (0.2, Named("long"))], seed=1)
    drawn = [data[i] for i in range(1000)]
    assert [number for _, number in drawn] == list(range(1000))
    assert 150 < sum(name == "long" for name, _ in drawn) < 250
    assert drawn[7] == Mixed([(0.8, Named("short")), (0.2, Named("long"))], seed=1)[7]
    assert "0.2 of long" in data.description
    with pytest.raises(ValueError, match="shares are"):
        Mixed([])


def test_what_was_learnt_by_heart_is_said(processor, tmp_path):
    """The whole way: an example's layout is the one that generate answers from."""
    from minivl.train import freezing
    from minivl.train.objectives import AnswerTuning
    from minivl.train.settings import Settings
    from minivl.train.trainer import train

    model = tiny_model(torch.float32)
    freezing.freeze(model, freezing.LEARNS["teacher"])
    made = example_of(processor, [ASKED, ANSWERED])
    settings = Settings(steps=30, batch=1, learning_rate=3e-3, save_every=30)
    train(AnswerTuning(model), [made] * 30, tmp_path, settings, quiet=True)
    model.requires_grad_(False)
    said = list(generate(model, processor([ASKED]), max_new_tokens=9))
    assert processor.tokenizer.decode(said) == "A cat."
