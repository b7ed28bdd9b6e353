"""A stream: against the whole row in one call, past the window's wrap; asked, cloned, saved, refused, resumed."""

import io
import logging
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import minivl
from minivl.memory import Memory
from minivl.pictures import picture_patches
from minivl.stream import Stream

from . import stream_claims
from .fakes import tiny_config
from .layer_claims import BOUND, same
from .models import error
from .stream_claims import (
    LIMIT,
    QUESTIONS,
    SIZE,
    WINDOW,
    WORDS,
    StreamCase,
    WholeRow,
    alike,
    asked,
    heard,
    model,
    new_model,
    processor,
    watched,
)

cases = st.builds(
    StreamCase,
    frames=st.integers(3, 6),
    seed=st.integers(0, 99),
    fps=st.sampled_from([1.0, 0.5, 2, 10, 30]),
    stamped=st.booleans(),
)


def shot(height: int = SIZE[0], width: int = SIZE[1], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stream_of(frames: int = 3, **options) -> Stream:
    stream = Stream(model(), processor(), **{"size": SIZE, **options})
    for seed in range(frames):
        stream.watch(shot(seed=seed))
    return stream


@given(case=cases)
def test_watching_is_one_call_over_the_whole_row(case):
    stream_claims.watching_is_one_call_over_the_whole_row(Stream, case)


def test_watching_is_one_call_over_the_whole_row_many_times_past_the_wrap():
    """45 frames of 6 tokens: the window of 10 is passed 27 times, and the ring's 15 slots are filled 18 times."""
    case = StreamCase(frames=45, fps=10)
    assert 15 * (WINDOW + 5) < 45 * 6
    stream_claims.watching_is_one_call_over_the_whole_row(Stream, case)
    stream_claims.it_answers_what_the_whole_row_answers(Stream, case)


@given(case=cases)
def test_it_answers_what_the_whole_row_answers(case):
    stream_claims.it_answers_what_the_whole_row_answers(Stream, case)


def test_a_question_before_the_first_frame_is_answered():
    stream_claims.it_answers_what_the_whole_row_answers(Stream, StreamCase(frames=0))
    assert stream_of(0).seconds == 0
    assert stream_of(0).tokens_seen == 1


@given(case=cases)
def test_asking_never_touches_the_stream(case):
    stream_claims.asking_never_touches_the_stream(Stream, case)


@given(case=cases.filter(lambda case: case.frames >= 4))
def test_a_second_question_sees_what_came_since_the_first(case):
    stream_claims.a_second_question_sees_what_came_since_the_first(Stream, case)


@given(case=cases)
def test_frames_made_ready_ahead_are_those_watched_one_by_one(case):
    stream_claims.frames_made_ready_ahead_are_those_watched_one_by_one(Stream, case)


@given(case=cases)
def test_many_questions_at_once_are_answered_as_each_alone(case):
    stream_claims.many_questions_at_once_are_answered_as_each_alone(Stream, case)


def test_many_questions_at_once_draw_as_each_alone():
    stream, options = stream_of(), {"max_new_tokens": 6, "temperature": 1.5, "seed": 3}
    alone = ["".join(stream.ask(question, **options)) for question in QUESTIONS]
    assert stream.ask_all(QUESTIONS, **options) == alone
    assert len(set(alone)) == 3


def test_answers_of_unequal_lengths_end_where_each_ends_alone():
    """Stop tokens that end one answer at once, one early and one not at all."""
    stream = stream_of()
    tokens = [list(stream._answer([question], {"max_new_tokens": 6})) for question in QUESTIONS]
    options = {"max_new_tokens": 6, "stop_tokens": [tokens[0][0], tokens[1][2]]}
    alone = ["".join(stream.ask(question, **options)) for question in QUESTIONS]
    assert stream.ask_all(list(QUESTIONS), **options) == alone
    assert alone[0] == "" != alone[1]
    assert stream.ask_all([QUESTIONS[0]] * 2, **options) == ["", ""]


@given(case=cases)
def test_streams_on_one_model_do_not_meet(case):
    stream_claims.streams_on_one_model_do_not_meet(Stream, case)


@given(case=cases)
def test_saved_and_resumed_equals_uninterrupted(case):
    stream_claims.saved_and_resumed_equals_uninterrupted(Stream, case)


@given(case=cases)
def test_a_refused_frame_leaves_the_stream_as_it_was(case):
    stream_claims.a_refused_frame_leaves_the_stream_as_it_was(Stream, case)


def kinds() -> dict:
    array = shot()
    picture, file = Image.fromarray(array), io.BytesIO()
    picture.save(file, "PNG")
    channels_first = torch.from_numpy(array).permute(2, 0, 1)
    return {
        "a PIL picture": picture,
        "one with alpha": picture.convert("RGBA"),
        "an array": array,
        "a read-only array": np.broadcast_to(array, array.shape),
        "an array that runs backwards": np.ascontiguousarray(array[::-1, :, ::-1])[::-1, :, ::-1],
        "an array with alpha": np.concatenate([array, np.full((*SIZE, 1), 255, np.uint8)], 2),
        "a tensor": torch.from_numpy(array),
        "a tensor, channels first": channels_first,
        "a contiguous one": channels_first.contiguous(),
        "bytes of a file": file.getvalue(),
    }


@pytest.mark.parametrize("kind", kinds())
def test_a_frame_may_be_of_any_kind(kind):
    stream = stream_of(0)
    frame = kinds()[kind]
    stream.watch(frame)
    assert alike(stream, stream_of(1))


def test_grey_frames_and_a_file_by_its_path(tmp_path):
    grey = shot()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "frame.png")
    streams = [stream_of(0) for _ in range(3)]
    for stream, frame in zip(streams, (grey, tmp_path / "frame.png", np.stack([grey] * 3, 2)), strict=True):
        stream.watch(frame)
        assert alike(stream, streams[0])


def test_frames_of_another_size_are_resized_and_that_is_said_once(caplog):
    frame = Image.fromarray(shot(90, 200))
    stream, expected = stream_of(0), stream_of(0)
    with caplog.at_level(logging.WARNING):
        expected.watch(frame.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC))
        assert not caplog.records
        stream.watch(frame)
        assert alike(stream, expected)
        stream.watch(shot(1, 1))
    assert [record.getMessage() for record in caplog.records] == [
        "frames are resized from 200×90 to 84×56 pixels, also all that follow"
    ]


def test_a_frame_is_448_pixels_square_unless_asked_otherwise():
    stream = Stream(model(), processor())
    assert stream.size == (448, 448)
    stream.watch(shot(448, 448))
    assert stream.tokens_seen == stream.memory.tokens_seen == 257
    assert stream.memory.layers[0].keys.shape[1] == WINDOW - 1 + 256
    assert stream.memory.next_position.tolist() == [17]
    assert Stream(model(), processor(), size=56).size == (56, 56)


@pytest.mark.parametrize("size", [0, -28, 57, 56.0, True, (56,), (56, 30), (28, 28, 28), "56", None])
def test_another_size_is_refused(size):
    with pytest.raises(ValueError, match=r"size is .*; it should be a multiple of 28, or two"):
        Stream(model(), processor(), size=size)


@pytest.mark.parametrize(
    ("fps", "kind"), [(0, ValueError), (-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_another_fps_is_refused(fps, kind):
    with pytest.raises(kind, match=r"fps is .*; it should be"):
        Stream(model(), processor(), fps=fps)


def test_time_counts_on_from_the_last_stamp():
    stream, seen = stream_of(0, fps=10), []
    for seconds in (None, None, 0.1, 2.5, 2.5, None, None, 1e6, None):
        stream.watch(shot(), seconds=seconds)
        seen.append(stream.seconds)
    assert seen == [0, 0.1, 0.1, 2.5, 2.5, 2.6, 2.7, 1e6, 1e6 + 0.1]
    assert stream.memory.next_position.tolist() == [1 + 2 * 10**6 + 1]
    for seconds in (np.float32(1e6 + 1), np.int64(2_000_000), 3_000_000):
        stream.watch(shot(), seconds=seconds)
        assert stream.seconds == seconds


def test_a_stream_that_counts_too_slowly_says_so():
    stream = stream_of(1, fps=1e-300)
    with pytest.raises(ValueError, match=r"seconds is .*e\+299; it should be at least 0 and at most"):
        stream.watch(shot())


def test_memory_is_constant_to_the_byte_over_200_frames():
    stream = stream_of(0, size=28)
    size, places = stream.memory.nbytes, [x.data_ptr() for x in stream.memory.tensors().values()]
    for seed in range(200):
        stream.watch(shot(28, 28, seed % 3))
        assert stream.memory.nbytes == size
    assert [x.data_ptr() for x in stream.memory.tensors().values()] == places
    assert size == sum(x.untyped_storage().nbytes() for x in stream.memory.tensors().values())
    assert stream.tokens_seen == stream.memory.tokens_seen == 201


def test_frames_ask_for_no_word(monkeypatch):
    stream = stream_of(0)
    monkeypatch.setattr(model(), "score", None)
    stream.watch(shot())


def test_no_gradient_is_kept():
    stream = stream_of(1)
    assert torch.is_grad_enabled()
    assert not any(x.requires_grad for x in stream.memory.tensors().values())


def test_a_question_in_inference_mode_spoils_no_later_one():
    """What is kept from one question to the next must not be bound to the mode of the first."""
    stream = watched(Stream(model(), processor(), size=SIZE), StreamCase(frames=2), 0, 2)
    with torch.inference_mode():
        first = asked(stream)
    assert asked(stream) == first


def test_questions_may_be_parts_or_messages_with_pictures_of_their_own():
    """The same pixels as a question's own picture: an answer that is another than without it."""
    stream, picture = stream_of(), Image.fromarray(shot(seed=9))
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": QUESTIONS[0]}]
    messages = [{"role": "user", "content": parts}]
    system = [{"role": "system", "content": "You are a helpful assistant."}]
    answers = [asked(stream, question) for question in (parts, messages, system + messages)]
    assert len(set(answers)) == 1
    assert answers[0] != asked(stream)
    several = [QUESTIONS[1], parts, messages, QUESTIONS[0]]
    assert stream.ask_all(several, max_new_tokens=LIMIT) == [asked(stream, question) for question in several]
    assert alike(stream, stream_of())


def test_a_question_longer_than_a_frame_is_answered():
    """Its prompt goes through the memory in pieces of a frame's length."""
    case = StreamCase(frames=3)
    question = " ".join(QUESTIONS * 4)
    stream = watched(case.make(Stream), case)
    assert stream.memory.longest_write == 6
    said, scores = heard(stream.ask(question, max_new_tokens=LIMIT))
    expected, oracle = WholeRow(case).answer(question, len(scores))
    assert said == expected
    assert error(scores[:, 0], oracle[:, :WORDS]) < BOUND


@pytest.mark.parametrize(
    ("question", "said"),
    [("", "empty"), ([], "empty"), (None, "NoneType"), (3, "int"), ([{"type": "smell", "smell": 1}], "smell")],
)
def test_what_is_no_question_is_refused_at_the_call(question, said):
    stream = stream_of(1)
    with pytest.raises((ValueError, TypeError), match=said):
        stream.ask(question)
    with pytest.raises((ValueError, TypeError), match=said):
        stream.ask_all(["Yes?", question])
    assert alike(stream, stream_of(1))


def test_wrong_options_are_refused_at_the_call():
    stream = stream_of(1)
    with pytest.raises(ValueError, match="max_new_tokens"):
        stream.ask("Yes?", max_new_tokens=0)
    with pytest.raises(TypeError, match="memory is the stream's own; it cannot be given with a question"):
        stream.ask("Yes?", memory=stream.memory)
    for questions in ([], "Yes?", None):
        with pytest.raises(ValueError, match=r"questions is .*; it should be a list of at least one question"):
            stream.ask_all(questions)


def test_text_that_looks_like_a_control_token_is_text():
    case = StreamCase(frames=1)
    said, scores = heard(watched(case.make(Stream), case).ask("<|vision_start|><|image_pad|>", max_new_tokens=LIMIT))
    expected, oracle = WholeRow(case).answer("<|vision_start|><|image_pad|>", len(scores))
    assert said == expected
    assert error(scores[:, 0], oracle[:, :WORDS]) < BOUND


def test_a_frame_broken_off_in_the_middle_is_known(monkeypatch, tmp_path):
    """Ctrl-C, or no memory left, between two layers: the stream says so instead of going on with half a frame."""
    stream = stream_of(1)
    layer = model().model.language_model.layers[5]
    with monkeypatch.context() as patch:
        patch.setattr(layer, "forward", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stream.watch(shot())
    for act in (lambda: stream.watch(shot()), lambda: stream.ask("Yes?"), lambda: stream.save(tmp_path / "s")):
        with pytest.raises(ValueError, match="the last frame was broken off"):
            act()
    assert not (tmp_path / "s").exists()


def test_a_frame_broken_off_before_it_is_absorbed_leaves_the_stream_whole(monkeypatch):
    """Ctrl-C while the device is waited for, which is where a stream that is behind spends its time."""
    stream = stream_of(1)
    with monkeypatch.context() as patch:
        patch.setattr(stream._absorb, "bring", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stream.watch(shot(seed=5))
    stream.watch(shot(seed=1))
    assert alike(stream, stream_of(2))


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "stream"
    stream_of().save(path)
    content = path.read_bytes()
    for place in (
        0,
        9,
        content.index(b"frames_seen"),
        content.index(b"clock") + 12,
        len(content) // 2,
        len(content) - 1,
    ):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match=r"damaged|format|not a saved memory"):
            Stream.resume(path, model(), processor())
    for half in (b"", content[: len(content) // 2]):
        path.write_bytes(half)
        with pytest.raises(ValueError, match="damaged"):
            Stream.resume(path, model(), processor())
    path.write_bytes(content)
    assert alike(Stream.resume(path, model(), processor()), stream_of())


def test_what_is_no_stream_of_this_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not a file; it should be a saved memory"):
        Stream.resume(tmp_path / "nowhere", model(), processor())
    stream = stream_of()
    stream.save(tmp_path / "stream")
    with pytest.raises(ValueError, match="was saved by a model with other weights"):
        Stream.resume(tmp_path / "stream", new_model(1), processor())
    other = type(model())(tiny_config(sliding_window=WINDOW + 1)).double()
    with pytest.raises(ValueError, match="saved by another configuration: sliding_window is 10 there and 11 here"):
        Stream.resume(tmp_path / "stream", other, processor())
    model().new_memory(longest_write=6).save(tmp_path / "memory")
    with pytest.raises(ValueError, match="is a saved memory, but not a stream's"):
        Stream.resume(tmp_path / "memory", model(), processor())


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path, stream = tmp_path / "stream", stream_of(2)
    stream.save(path)
    stream.watch(shot())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            stream.save(path)
    assert os.listdir(tmp_path) == ["stream"]
    assert alike(Stream.resume(path, model(), processor()), stream_of(2))


def test_a_stream_s_file_is_a_memory_s_too(tmp_path):
    stream = stream_of()
    stream.save(tmp_path / "stream")
    assert same(Memory.resume(tmp_path / "stream", model()), stream.memory)


def test_full_attention_and_a_strange_processor_are_refused():
    teacher = type(model())(tiny_config(layer_types=("full_attention",)))
    with pytest.raises(ValueError, match="full attention, which keeps every token; a stream needs constant memory"):
        Stream(teacher, processor())
    other = type(model())(tiny_config(image_token_id=5))
    with pytest.raises(ValueError, match=r"its image_token_id is \d+, and the model's is 5"):
        Stream(other, processor())


def test_a_stream_of_one_frame_knows_it_as_a_picture_of_a_conversation():
    """The same pixels, once as a picture and once as a frame, at the same places after <|vision_start|>."""
    assert minivl.Stream is Stream
    stream = stream_of(1)
    together = model().new_memory(longest_write=100)
    ids = torch.tensor([[model().config.vision_start_token_id, *[model().config.image_token_id] * 6]])
    with torch.no_grad():
        pixels, grid = picture_patches(shot(), processor().settings)
        model()(ids, pixels=pixels, grids=torch.tensor([grid]), memory=together)
        probe = torch.tensor([[5, 6]])
        assert error(model().read(probe, memory=stream.memory), model().read(probe, memory=together)) < BOUND


@pytest.mark.gpu
def test_on_a_gpu_it_answers_as_on_a_cpu():
    """float64, so that both have the same digits to go by."""
    case = StreamCase(frames=9, stamped=True)
    expected = watched(case.make(Stream), case)
    answers = [asked(expected, question) for question in QUESTIONS]
    there = model().__class__(model().config)
    there.load_state_dict(model().state_dict())
    there = there.double().eval().cuda()
    score, pads = there.score, torch.tensor([there.config.image_token_id, there.config.video_token_id]).cuda()
    there.score = lambda x: score(x).index_fill(-1, pads, -torch.inf)
    stream = watched(Stream(there, processor(), size=SIZE), case)
    assert error(stream.memory.layers[-1].state.cpu(), expected.memory.layers[-1].state) < 1e-10
    assert [asked(stream, question) for question in QUESTIONS] == answers
    assert stream.ask_all(list(QUESTIONS), max_new_tokens=LIMIT) == answers
    frame = torch.from_numpy(shot()).cuda()
    stream.watch(frame)
    assert stream.frames_seen == 10
