"""Captured steps without a GPU: by a recorder that goes stale where a CUDA graph would."""

import gc
import threading
import time
import weakref
from collections import deque
from functools import partial
from itertools import zip_longest

import numpy as np
import pytest
import torch

from minivl import frames
from minivl.captured import EAGER, Captured, CapturedStep
from minivl.generate import generate
from minivl.generate import step as eager_step
from minivl.stream import Stream

from .fakes import tiny_model
from .layer_claims import same
from .recorder import in_software
from .stream_claims import LIMIT, QUESTIONS, SIZE, WINDOW, StreamCase, alike, asked, model, processor, watched

CASE = StreamCase(frames=3 * (WINDOW + 5) // 6 + 6, stamped=True)  # over three times round the ring of W − 1 + 6 slots


def new_stream() -> Stream:
    return Stream(model(), processor(), size=SIZE)


def test_captured_frames_equal_uncaptured_ones_over_three_windows_with_questions_between(monkeypatch):
    expected = [watched(new_stream(), CASE, 0, number) for number in range(1, CASE.frames + 1)]
    answers = [asked(stream) for stream in expected]
    graphs, stream = in_software(monkeypatch), new_stream()
    monkeypatch.setattr("minivl.asking.feeder", lambda model, memory: partial(eager_step, model, memory))
    for number, oracle in enumerate(expected):
        watched(stream, CASE, number, number + 1)
        assert alike(stream, oracle), number
        assert stream.memory._taken == oracle.memory._taken
        if number % 3 != 1:
            assert asked(stream) == answers[number]
            assert same(stream.memory, oracle.memory)
    assert [graph.replays for graph in graphs.made] == [CASE.frames - 1]


def test_the_recorder_knows_a_graph_that_has_gone_stale(monkeypatch):
    """The released demo's fault: a place in the ring that is a number in Python's hands."""
    in_software(monkeypatch)
    memory = model().new_memory(longest_write=4)
    written, place = torch.zeros(10), [0]

    def run(memory):
        written[place[0]] += 1
        place[0] += 1

    step = Captured(run, memory, eager=1)
    for _ in range(4):
        step()
    assert written.tolist() == [1, 3] + 8 * [0]
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        Captured(lambda memory: memory.tokens_seen, memory, eager=0)()


@pytest.mark.parametrize("rows", [1, 3])
def test_captured_tokens_equal_eager_ones_past_the_wrap(monkeypatch, rows):
    """Rows that end before others are masked from then on: a graph of its own."""
    model = tiny_model(torch.float64, sliding_window=5)
    memory = model.new_memory(rows, longest_write=3)
    graphs, eager = in_software(monkeypatch, strict=False), memory.clone()
    step, slots = CapturedStep(eager_step, model, memory), memory.layers[0].keys.shape[1]
    with torch.no_grad():
        for turn in range(4 * slots):
            token = torch.randint(0, 20, (rows,), generator=torch.Generator().manual_seed(turn))
            mask = torch.tensor([True] + (rows - 1) * [turn < 3 * slots]) if rows > 1 and turn > slots else None
            assert torch.equal(step(token, mask), eager_step(model, eager, token, mask)), turn
            assert same(memory, eager)
            assert memory._taken == eager._taken
    assert [graph.replays for graph in graphs.made] == (
        [4 * slots - EAGER] if rows == 1 else [slots + 1 - EAGER, 3 * slots - 1 - EAGER]
    )


def test_a_room_that_is_full_is_refused_by_a_captured_step_too(monkeypatch):
    in_software(monkeypatch, strict=False)
    model = tiny_model(layer_types=("full_attention",))
    memory = model.new_memory(room=EAGER + 2)
    step = CapturedStep(eager_step, model, memory)
    for _ in range(EAGER + 2):
        step(torch.tensor([3]))
    with pytest.raises(ValueError, match="memory has room for 5 tokens"):
        step(torch.tensor([3]))


def test_questions_share_one_token_graph_and_a_frame_s_graph_is_made_once(monkeypatch):
    expected = watched(new_stream(), CASE)
    said = [asked(expected, question) for question in QUESTIONS]
    options = {"max_new_tokens": EAGER + 3, "stop_tokens": ()}
    longer = ["".join(expected.ask(question, **options)) for question in QUESTIONS]
    graphs, stream = in_software(monkeypatch, strict=False), watched(new_stream(), CASE)
    monkeypatch.setattr("minivl.asking.feeder", partial(CapturedStep, eager_step))
    assert len(graphs.made) == 1
    assert ["".join(stream.ask(question, **options)) for question in QUESTIONS] == longer
    assert len(graphs.made) == 2
    assert [asked(stream, question) for question in QUESTIONS] == said
    assert len(graphs.made) == 2
    assert alike(stream, expected)


def test_a_copy_is_lent_to_one_answer_at_a_time_and_comes_back_however_that_ends():
    stream = watched(new_stream(), StreamCase())
    said = [asked(stream, question) for question in QUESTIONS[:2]]
    kept = stream._copies.kept
    places = [x.data_ptr() for x in kept.tensors().values()]

    def lent() -> bool:
        return stream._copies.lent() is not None

    one, other = (stream.ask(question, max_new_tokens=LIMIT) for question in QUESTIONS[:2])
    assert lent()
    in_turn = zip_longest(one, other, fillvalue="")
    assert ["".join(pieces) for pieces in zip(*in_turn, strict=True)] == said
    assert not lent()
    next(one := stream.ask(QUESTIONS[0]))
    assert lent()
    one.close()
    assert not lent()
    never = stream.ask(QUESTIONS[0])
    assert lent()
    del never
    assert not lent()
    with pytest.raises(ValueError, match="max_new_tokens"):
        stream.ask(QUESTIONS[0], max_new_tokens=0)
    assert stream._copies.kept is kept
    assert [x.data_ptr() for x in kept.tensors().values()] == places


def test_a_resumed_stream_captures_its_own_memory(monkeypatch, tmp_path):
    expected = watched(new_stream(), CASE)
    graphs, stream = in_software(monkeypatch), watched(new_stream(), CASE, 0, 4)
    stream.save(tmp_path / "stream")
    resumed = Stream.resume(tmp_path / "stream", model(), processor())
    before = stream.memory.clone()
    watched(resumed, CASE, 4)
    assert alike(resumed, expected)
    assert [graph.replays for graph in graphs.made] == [3, CASE.frames - 5]
    assert same(stream.memory, before)
    watched(stream, CASE, 4)
    assert alike(stream, expected)


def test_streams_on_one_model_have_a_graph_each(monkeypatch):
    other = StreamCase(CASE.frames, 1)
    expected = [watched(new_stream(), case) for case in (CASE, other)]
    graphs, streams = in_software(monkeypatch), [new_stream(), new_stream()]
    for number in range(CASE.frames):
        for stream, case in zip(streams, (CASE, other), strict=True):
            watched(stream, case, number, number + 1)
    assert len(graphs.made) == 2
    assert all(alike(*pair) for pair in zip(streams, expected, strict=True))


@pytest.mark.parametrize("hidden", [False, True], ids=["told", "hidden behind a recording that does not end"])
def test_no_room_for_the_graph_is_told_and_leaves_the_stream_whole(monkeypatch, hidden):
    in_software(monkeypatch)
    stream, expected = watched(new_stream(), CASE, 0, 1), watched(new_stream(), CASE, 0, 1)
    good, left = torch.cuda.graph, []

    class Full:
        def __init__(self, graph, **options): ...

        def __enter__(self): ...

        def __exit__(self, *_):
            if hidden:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def no_room(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "graph", Full)
        patch.setattr(torch.cuda, "set_stream", left.append)
        patch.setattr(frames, "still_patches", no_room)
        with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 2\.00 GiB"):
            watched(stream, CASE, 1, 2)
        assert left == ["here"]
    assert torch.cuda.graph is good
    assert alike(stream, expected)
    assert stream.memory._taken == expected.memory._taken
    assert alike(watched(stream, CASE, 1), watched(expected, CASE, 1))


def test_a_stream_that_is_let_go_is_gone_at_once():
    """No circle of references keeps its tensors until Python looks for such."""
    stream = watched(new_stream(), StreamCase(frames=2))
    asked(stream)
    gone = [weakref.ref(stream.memory.seen), weakref.ref(stream._copies.kept.seen), weakref.ref(stream._absorb.pixels)]
    gc.disable()
    try:
        del stream
        assert [there() for there in gone] == [None] * 3
    finally:
        gc.enable()
    memory = model().new_memory()
    step, gone = CapturedStep(eager_step, model(), memory), weakref.ref(memory)
    gc.disable()
    try:
        del step, memory
        assert gone() is None
    finally:
        gc.enable()


def test_a_feed_of_ones_own_is_fed_every_token_of_the_answer():
    model, fed = tiny_model(torch.float64), []
    inputs, memory = processor()([{"role": "user", "content": "Hello"}]), tiny_model(torch.float64).new_memory()

    def feed(token, mask):
        fed.append(int(token))
        return eager_step(model, memory, token, mask)

    said = list(generate(model, inputs, memory=memory, feed=feed, max_new_tokens=5, stop_tokens=()))
    assert said == fed == list(generate(model, inputs, max_new_tokens=5, stop_tokens=()))


# Frames on their way --------------------------------------------------------------------------------------------------


class Event:
    """In place of torch.cuda.Event: what was asked of which, in order."""

    def __init__(self, name: str, told: list):
        self.name, self.told = name, told

    def synchronize(self) -> None:
        self.told.append(f"{self.name} waited for")

    def record(self) -> None:
        self.told.append(f"{self.name} recorded")


def test_two_buffers_take_turns_and_only_the_frame_before_last_is_waited_for(monkeypatch):
    stream, expected, told = new_stream(), watched(new_stream(), CASE, 0, 3), []
    step = stream._absorb
    step.buffers = deque((torch.zeros_like(step.pixels), Event(name, told)) for name in ("one", "two"))
    watched(stream, CASE, 0, 3)
    turns = [f"{name} {what}" for name in ("one", "two", "one") for what in ("waited for", "recorded")]
    assert told == turns
    assert alike(stream, expected)


def test_ahead_keeps_the_order_and_looks_only_a_few_items_ahead():
    taken, done = [], []

    def items():
        for number in range(40):
            taken.append(number)
            yield number

    def slow_at_first(number: int) -> int:
        time.sleep(0.002 * (3 - number % 4))
        return number

    for number in frames.ahead(slow_at_first, items(), workers=3):
        done.append(number)
        assert len(taken) - len(done) < 3 * frames.AHEAD
    assert done == list(range(40))


def test_what_breaks_the_source_off_comes_after_all_that_came_before_it():
    def items():
        yield from range(10)
        raise OSError("the cable")

    looking = frames.ahead(lambda number: number, items(), workers=2)
    assert [next(looking) for _ in range(10)] == list(range(10))
    with pytest.raises(OSError, match="the cable"):
        next(looking)


def test_ahead_may_be_left_early_and_leaves_no_threads():
    made = []
    looking = frames.ahead(made.append, iter(range(10**9)), workers=2)
    next(looking)
    looking.close()
    assert len(made) <= 2 * frames.AHEAD
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    assert list(frames.ahead(made.append, [], workers=2)) == []


def test_a_frame_made_ready_for_another_size_or_by_no_workers_is_refused():
    stream, other = new_stream(), Stream(model(), processor(), size=56)
    made = other.ready(np.zeros((90, 90, 3), np.uint8))
    with pytest.raises(ValueError, match="made ready at 56×56 pixels; this stream's frames are 84×56"):
        stream.watch(made)
    for workers in (0, -1, 1.5):
        with pytest.raises((ValueError, TypeError), match="workers"):
            stream.ahead([], workers=workers)
