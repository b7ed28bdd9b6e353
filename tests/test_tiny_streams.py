"""The tiny world's streams: what is asked for was shown at the distance that is told and not overwritten since, and
what was not shown was not. The truth is found here by reading what is on each frame."""

import hashlib
import pickle
from collections import Counter
from itertools import islice, pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minivl.processor import load_processor
from minivl.stream import Stream
from minivl.train import blind, fonts, tiny_frames, tiny_streams
from minivl.train.drawing import LABELS
from minivl.train.splits import SPLITS, TRAIN, text_held_out, thing_held_out
from minivl.train.tiny_frames import BOXES, VALUES, fact_held_out, rim_held_out, stripes_held_out
from minivl.train.tiny_streams import ANSWERS, NOT_SHOWN, StreamSettings, TinyStreams

from . import tiny_truths
from .fakes import tiny_folder, tiny_model

SHORT = StreamSettings(distance=(0, 512), lead=(0, 64))
each_split = pytest.mark.parametrize("split", SPLITS)
indices = st.integers(0, 10**6)
settings = st.builds(
    StreamSettings,
    frame=st.sampled_from([(56, 56), (56, 84), (84, 56)]),
    window=st.sampled_from([64, 96]),
    distance=st.tuples(st.integers(0, 300), st.integers(300, 1200)),
    lead=st.tuples(st.integers(0, 50), st.integers(50, 400)),
    facts=st.integers(1, 15),
    rewrites=st.integers(0, 3),
    not_shown=st.sampled_from([0, 0.5, 1]),
    looks=st.integers(1, 3),
    others=st.integers(1, 50),
)
WORLDS = {split: TinyStreams(split, settings=SHORT) for split in SPLITS}


def shown(stream) -> list[tuple[str, str] | None]:
    """The fact on each frame, as its record tells it, not its number."""
    records = [stream.pool.record(number) for number in stream.numbers]
    return [(record["letter"], record["value"]) if record["what"] == "box" else None for record in records]


@given(index=indices, split=st.sampled_from(SPLITS), own=settings)
def test_what_is_asked_for_was_shown_so_long_ago_and_not_overwritten_since(index, split, own):
    stream = TinyStreams(split, settings=own)[index]
    facts = shown(stream)
    for asked in stream.questions:
        seen = [at for at, fact in enumerate(facts) if fact and fact[0] == asked.box]
        if asked.answer == NOT_SHOWN:
            assert not seen
            assert asked.frame is asked.passed is stream.windows(asked) is None
        else:
            assert (asked.frame, facts[asked.frame]) == (seen[-1], (asked.box, asked.answer))
            frames_between = len(stream) - asked.frame - 1
            assert asked.passed == frames_between * own.cells
            assert stream.windows(asked) == asked.passed / own.window


@given(index=indices, split=st.sampled_from(SPLITS), own=settings)
def test_the_first_question_has_the_distance_that_was_asked_for_and_facts_are_as_many(index, split, own):
    stream = TinyStreams(split, settings=own)[index]
    first, known = stream.questions[0], {fact[0] for fact in shown(stream) if fact}
    assert len(known) == own.facts
    assert known == {asked.box for asked in stream.questions if asked.answer != NOT_SHOWN}
    assert all(asked.answer != NOT_SHOWN for asked in stream.questions[1:])
    assert {0: True, 1: False}.get(own.not_shown, first.answer != NOT_SHOWN) == (first.answer != NOT_SHOWN)
    if first.answer != NOT_SHOWN:
        assert own.distance[0] - own.cells < first.passed <= own.distance[1]
        earlier = first.frame - (own.facts + 1) * (own.rewrites + 1)
        assert own.lead[0] - own.cells < earlier * own.cells <= own.lead[1]


@given(index=indices, split=st.sampled_from(SPLITS), own=settings)
def test_a_box_that_changes_holds_something_else(index, split, own):
    facts = [fact for fact in shown(TinyStreams(split, settings=own)[index]) if fact]
    for box in {fact[0] for fact in facts}:
        values = [value for of, value in facts if of == box]
        assert len(values) <= 1 + own.rewrites
        assert all(before != after for before, after in pairwise(values))


@given(index=indices, own=settings, data=st.data())
def test_a_question_may_come_after_any_frame(index, own, data):
    stream = TinyStreams(settings=own)[index]
    after, box = data.draw(st.integers(0, len(stream))), data.draw(st.sampled_from(BOXES))
    facts = [(at, fact[1]) for at, fact in enumerate(shown(stream)[:after]) if fact and fact[0] == box]
    asked = stream.ask(box, after=after)
    assert (asked.frame, asked.answer) == (facts[-1] if facts else (None, NOT_SHOWN))


def test_there_are_enough_answers_and_all_occur_and_distances_reach_64_windows():
    world = TinyStreams(settings=StreamSettings(others=1))
    firsts = [(stream, stream.questions[0]) for stream in map(world.__getitem__, range(1200))]
    count = Counter(asked.answer for _, asked in firsts)
    assert set(count) == set(ANSWERS)
    assert len(ANSWERS) == 33
    assert 80 < count[NOT_SHOWN] < 160
    windows = np.array([stream.windows(asked) for stream, asked in firsts if asked.answer != NOT_SHOWN])
    assert windows.min() == 0
    assert 60 < windows.max() <= 64
    assert {asked.box for _, asked in firsts} == set(BOXES)
    old = [_shows(stream, asked.box) > 1 for stream, asked in firsts if asked.answer != NOT_SHOWN]
    assert 0.6 < np.mean(old) < 0.73  # two in three held something else before
    octaves = np.histogram(windows, [1, 2, 4, 8, 16, 32, 64])[0]
    assert octaves.min() > 60  # each doubling is as likely


def _shows(stream, box: str) -> int:
    """How often the stream shows what is in a box."""
    facts = [stream.pool.fact(number) for number in stream.numbers[stream.numbers < stream.pool.facts].tolist()]
    return [fact[0] for fact in facts].count(box)


def test_a_distance_of_a_million_tokens_draws_no_frame():
    stream = TinyStreams(settings=StreamSettings(distance=(10**6, 10**6)))[0]
    assert stream.questions[0].passed == 10**6
    assert not stream.pool._drawn


# The floor


def test_who_does_not_look_or_sees_one_window_only_stays_at_chance():
    """Guesses learnt from other streams; and the best guess from a window: a fact that is seen there, if not of the
    box that is asked for, then of any."""
    own = StreamSettings(distance=(64, 512), others=1)
    train, test = ([TinyStreams(seed=seed, settings=own)[index] for index in range(1000)] for seed in (1, 2))
    floor = blind.floors(*([_told(stream) for stream in part] for part in (train, test)))["stream"]
    assert floor.chance == 1 / 33
    assert floor.question < floor.most + 0.02
    assert floor.most == sum(stream.questions[0].answer == NOT_SHOWN for stream in test) / len(test) < 0.13

    recalls = [stream for stream in test if stream.questions[0].answer != NOT_SHOWN]
    known = [_told(stream) for stream in train if stream.questions[0].answer != NOT_SHOWN]
    floor = blind.floors(known, [_told(stream) for stream in recalls])["stream"]
    right = [stream.questions[0].answer in _in_window(stream)[-1:] for stream in recalls]
    assert max(floor.most, floor.question, np.mean(right)) < 1 / 28 + 4 * (1 / 28 / len(recalls)) ** 0.5


def _told(stream) -> tuple[str, str, str]:
    return "stream", stream.questions[0].question, stream.questions[0].answer


def _in_window(stream) -> list[str]:
    frames = stream.settings.window // stream.settings.cells
    facts = [stream.pool.fact(int(number)) for number in stream.numbers[-frames:]]
    assert stream.questions[0].box not in [fact[0] for fact in facts if fact]
    return [fact[1] for fact in facts if fact]


# Frames


def test_numbers_and_facts_are_each_others_inverse():
    pool = WORLDS[TRAIN].pool
    numbers = [pool.number(*x) for x in product(BOXES, VALUES, range(pool.looks))]
    assert numbers == list(range(pool.facts))
    assert [pool.fact(number) for number in numbers] == [x[:2] for x in product(BOXES, VALUES, range(pool.looks))]
    assert {pool.fact(number) for number in range(pool.facts, len(pool))} == {None}


@pytest.fixture(scope="module")
def records():
    """Of every sixteenth frame of each split: what is on it."""
    return {split: [world.pool.record(n) for n in range(0, len(world.pool), 16)] for split, world in WORLDS.items()}


def test_a_fact_is_a_box_and_nothing_else_is(records):
    for split, found in records.items():
        pool = WORLDS[split].pool
        for at, record in enumerate(found):
            fact = pool.fact(16 * at)
            assert (record["what"] == "box") == (fact is not None)
            assert fact is None or fact == (record["letter"], record["value"])
        assert {record["what"] for record in found} == {"box", "disc", "text", "scene", "stripes"}


def _held_out(record: dict) -> bool:
    """Whether there is a combination on the frame that train does not have."""
    if "rim" in record:
        return rim_held_out(record["rim"], record["value"])
    if record["what"] == "text":
        return any(text_held_out(*pair) for pair in tiny_truths.neighbours(record["lines"]))
    if record["what"] == "scene":
        return any(thing_held_out(*look) for look in record["things"])
    return stripes_held_out(*record["colours"])


def test_no_frame_of_a_held_out_split_can_be_drawn_in_train(records):
    for split, found in records.items():
        assert {_held_out(record) for record in found} == {split != TRAIN}
        names = {record["font"] for record in found if "font" in record}
        assert names == set(fonts.UNSEEN if split == SPLITS[2] else fonts.SEEN)


@given(index=indices)
def test_boxes_and_discs_never_hold_in_train_what_is_held_out(index):
    stream = WORLDS[TRAIN][index]
    held = [record for record in map(stream.pool.record, stream.numbers) if "letter" in record]
    assert not any(fact_held_out(record["letter"], record["value"]) for record in held)


def test_held_out_facts_come_in_held_out_streams_as_often_as_others():
    told = [asked for index in range(300) for asked in WORLDS[SPLITS[1]][index].questions]
    share = np.mean([fact_held_out(asked.box, asked.answer) for asked in told if asked.answer != NOT_SHOWN])
    assert 0.09 < share < 0.16  # an eighth
    assert {sum(fact_held_out(box, value) for value in VALUES) for box in BOXES} == {4}
    assert {sum(rim_held_out(colour, value) for colour in tiny_frames.COLOURS) for value in VALUES} == {2}


@each_split
def test_letter_and_value_stand_in_one_row_of_cells_and_are_labelled(split):
    pool = WORLDS[split].pool
    for number in range(0, pool.facts, 41):
        picture = pool[number]
        rows = [[LABELS[label] for label in row.ravel() if label] for row in picture.slots]
        assert sorted(map(len, rows)) == [0, 2]
        assert tuple(max(rows)) == pool.fact(number)
        assert {LABELS[label] for label in picture.layout.ravel() if label} == set(pool.fact(number))


# One stream whoever asks


def digest(stream) -> str:
    told = repr([(frame.number, frame.seconds) for frame in stream.frames][::7]) + repr(stream.questions)
    return hashlib.sha256(told.encode() + next(stream.frames).picture.image.tobytes()).hexdigest()


@given(index=indices, seed=st.integers(0, 2**63), split=st.sampled_from(SPLITS))
def test_a_stream_depends_on_seed_split_and_index_alone(index, seed, split):
    streams = TinyStreams(split, seed, SHORT)
    first = digest(streams[index])
    list(islice(streams.samples(), 2))
    assert digest(pickle.loads(pickle.dumps(streams))[index]) == first == digest(TinyStreams(split, seed, SHORT)[index])
    assert digest(TinyStreams(split, seed + 1, SHORT)[index]) != first


def test_ranks_share_the_streams():
    shares = [[x.index for x in islice(WORLDS[TRAIN].samples(start=3, rank=rank, ranks=3), 3)] for rank in range(3)]
    assert shares == [[3, 6, 9], [4, 7, 10], [5, 8, 11]]


# What the model gets


def test_a_stream_is_watched_and_asked():
    """Frames go into Stream as they are, and tokens are counted as Stream counts them."""
    folder = tiny_folder()
    stream = TinyStreams(settings=StreamSettings(distance=(16, 16), lead=(0, 0), facts=1, rewrites=0, fps=2.0))[0]
    watching = Stream(tiny_model(), load_processor(folder), fps=2.0, size=stream.settings.frame)
    asked, before = stream.questions[0], 0
    for at, frame in enumerate(stream.frames):
        watching.watch(frame.picture.image, seconds=frame.seconds)
        before = watching.tokens_seen if at == asked.frame else before
    assert watching.tokens_seen - before == asked.passed == 16
    assert isinstance("".join(watching.ask(asked.messages, max_new_tokens=2)), str)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame": (50, 56)}, "frame is \\(50, 56\\); it should be height and width: multiples of 28 from 56 on"),
        ({"frame": 56}, "frame is 56"),
        (
            {"distance": (5, 2)},
            "distance is \\(5, 2\\); it should be two whole numbers of at least 0, the",
        ),
        ({"lead": (-1, 2)}, "lead is \\(-1, 2\\)"),
        ({"facts": 16}, "facts is 16; it should be a whole number from 1 to 15"),
        ({"window": 0}, "window is 0"),
        ({"looks": 0}, "looks is 0"),
        ({"not_shown": 1.5}, "not_shown is 1.5; it should be from 0 to 1"),
        ({"fps": 0}, "fps is 0; it should be above 0"),
    ],
)
def test_mistakes_get_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        StreamSettings(**changes)


def test_a_frame_that_is_not_in_the_pool_is_named():
    with pytest.raises(IndexError, match="the frame is 99999; it should be from 0 to 4095"):
        WORLDS[TRAIN].pool[99999]
    assert tiny_streams.PATH != tiny_frames.POOL
