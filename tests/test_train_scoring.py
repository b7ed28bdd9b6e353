"""What is told to be said exactly is what generate says; and what the tiny model's scores are made of."""

import dataclasses
import json
import math
import re

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from minivl.generate import generate
from minivl.processor import Inputs, load_processor
from minivl.train import scoring, tiny_scores
from minivl.train.encoded import EncodedStreams, with_vectors
from minivl.train.examples import IGNORED, Example, example_of
from minivl.train.scoring import exactly
from minivl.train.sources import Streams
from minivl.train.splits import HELD_OUT, HELD_OUT_FONTS
from minivl.train.tiny_scores import Score, Scores, recall_scores, scores, table, world_scores
from minivl.train.tiny_streams import NOT_SHOWN, StreamSettings, TinyStreams
from minivl.train.tiny_world import KINDS, TinyWorld

from .fakes import tiny_folder, tiny_model
from .tolerances import close, tolerance

STREAMS = StreamSettings(looks=1, others=16, lead=(0, 40), facts=2)


@pytest.fixture(scope="module")
def model():
    """In float64, where no two scores are so near that a batch's rounding could turn them round."""
    return tiny_model(torch.float64)


@pytest.fixture(scope="module")
def processor():
    return load_processor(tiny_folder())


@pytest.fixture(scope="module")
def small():
    return tiny_model()


def prompts(processor, seed: int) -> list[Example]:
    """Rows without their answers: about words, two pictures, and a stream."""
    answer = {"role": "assistant", "content": "?"}
    sample = TinyWorld(seed=seed).of("same", seed)
    text = [{"role": "user", "content": f"What is {seed}?"}, answer, {"role": "user", "content": "And then?"}, answer]
    streams = TinyStreams(settings=dataclasses.replace(STREAMS, distance=(0, 16), lead=(0, 0), rewrites=0))
    rows = [
        example_of(processor, text),
        example_of(processor, [*sample.messages, answer]),
        Streams(streams, processor, size=(56, 56), questions=1)[seed],
    ]
    return [cut(row) for row in rows]


def cut(row: Example) -> Example:
    """What comes before the last answer, without labels."""
    said = (row.labels != IGNORED).nonzero().flatten().tolist()
    end = next(t for t in reversed(said) if t - 1 not in said)
    return dataclasses.replace(
        row, ids=row.ids[:end], positions=row.positions[:, :end], labels=torch.full((end,), IGNORED)
    )


def longer(row: Example, tokens: list[int], *, labelled: bool = True) -> Example:
    """The row with these tokens after it."""
    more = torch.tensor(tokens, dtype=torch.int64)
    places = row.positions.max() + 1 + torch.arange(len(tokens)).expand(3, -1)
    labels = more if labelled else torch.full_like(more, IGNORED)
    return dataclasses.replace(
        row,
        ids=torch.cat([row.ids, more]),
        positions=torch.cat([row.positions, places], dim=1),
        labels=torch.cat([row.labels, labels]),
    )


def says(model, row: Example, count: int, end: int | None = None) -> list[int]:
    """What greedy decoding says after this row, of `count` tokens at most, until it says `end`."""
    mask = torch.ones(1, len(row.ids), dtype=torch.bool)
    inputs = Inputs(row.ids[None], row.positions[:, None], row.pixels, row.grids, mask)
    return list(generate(model, inputs, max_new_tokens=count, stop_tokens=() if end is None else {end}))


def no_pads(model, tokens: list[int]) -> bool:
    """A model with random weights may say a picture's pad, which no true answer has."""
    return not {model.config.image_token_id, model.config.video_token_id} & set(tokens)


@given(seed=st.integers(0, 999), length=st.integers(0, 4), data=st.data())
def test_an_answer_is_exact_when_and_only_when_generate_says_it(model, processor, seed, length, data):
    rows, wanted = [], []
    for prompt in prompts(processor, seed):
        greedy = says(model, prompt, 5)
        assume(no_pads(model, greedy))
        *answer, end = greedy[: greedy.index(greedy[length]) + 1]
        changed, place = [*answer, end], data.draw(st.integers(0, len(answer)))
        changed[place] = (changed[place] + 1) % model.config.bos_token_id
        for *true, last in ([*answer, end], changed, [*answer, end, end]):  # the last is one more than is said
            rows.append(longer(prompt, [*true, last]))
            wanted.append([says(model, prompt, len(true) + 1, last) == true])
    assert wanted[0] == [True]
    assert [False] in wanted
    assert exactly(model, iter(rows), tokens_at_once=400) == wanted
    assert exactly(model, with_vectors(model, rows[:3]) + rows[3:], tokens_at_once=500) == wanted


@pytest.mark.parametrize("wrong", [None, 0, 1])
def test_each_of_a_rows_answers_is_told_after_true_ones(model, processor, wrong):
    row, told = prompts(processor, 1)[1], []
    for number in range(2):
        said = says(model, row, 3)
        assert no_pads(model, said)
        if number == wrong:
            said[1] = (said[1] + 1) % model.config.bos_token_id
        told.append(number != wrong)
        row = longer(longer(row, said), processor.tokenizer.encode("And then?"), labelled=False)
    assert exactly(model, [row]) == [told]


def test_rows_of_any_length_are_told_in_their_own_order(small, processor, monkeypatch):
    """Also more rows than are sorted together, one of them without an answer."""
    prompt, rows = prompts(processor, 0)[0], []
    wanted = [[number % 3 == 0] for number in range(19)]
    for number, (right,) in enumerate(wanted):
        row = longer(prompt, [7] * (number * 7 % 5), labelled=False)
        (best,) = says(small, row, 1)
        rows.append(longer(row, [best if right else 7 + (best == 7)]))
    rows[5], wanted[5] = prompt, []
    for sorted_together, tokens in ((4, 1), (5, 160), (128, 400), (128, None)):
        monkeypatch.setattr(scoring, "SORTED", sorted_together)
        assert exactly(small, rows, tokens_at_once=tokens) == wanted
    assert exactly(small, [rows[0], rows[1], rows[0]]) == [[True], [False], [True]]
    assert exactly(small, rows[5:6]) == [[]]
    assert exactly(small, []) == []


def test_scores_that_are_not_finite_are_told(processor):
    broken = tiny_model()
    with torch.no_grad():
        broken.model.language_model.norm.weight[3] = math.nan
    row = longer(prompts(processor, 0)[0], [5])
    with pytest.raises(ValueError, match="the model's scores are not finite"):
        exactly(broken, [row])
    with pytest.raises(ValueError, match="tokens_at_once is 0; it should be at least 1"):
        exactly(broken, [row], tokens_at_once=0)


# The interval


@given(asked=st.integers(1, 10**5), data=st.data())
def test_the_interval_holds_every_share_from_which_the_score_is_within_its_noise(asked, data):
    """Wilson's definition: at either end p, the score is just z standard deviations of p's own away."""
    score = Score(data.draw(st.integers(0, asked)), asked)
    low, high = score.bounds
    assert 0 <= low <= score.share <= high <= 1
    for end in (low, high):
        deviation = math.sqrt(end * (1 - end) / asked)
        if 0 < end < 1:
            assert abs(score.share - end) == pytest.approx(tiny_scores.Z * deviation, rel=1e-6, abs=1e-9)


def test_known_intervals():
    assert Score(8, 10).bounds == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert Score(0, 10).bounds == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert str(Score(190, 200)) == "95.0% (91% to 97%)"
    for right, asked, said in ((1, 0, "number of questions is 0"), (3, 2, "right answers is 3; .* from 0 to 2")):
        with pytest.raises(ValueError, match=said):
            Score(right, asked)


# The tiny model's scores


def test_a_model_that_has_learnt_nothing_scores_nothing(small, processor):
    kinds, number = ("reading", "colour", "same"), 4
    found = scores(small, processor, HELD_OUT, number=number, kinds=kinds, windows=(0, 2), settings=STREAMS)
    assert list(found.world) == ["reading < 22 px", "reading ≥ 22 px", "colour", "same"]
    assert list(found.recall) == list(found.blind) == [0, 2, NOT_SHOWN]
    for score in (*found.world.values(), *found.recall.values(), *found.blind.values()):
        assert (score.right, score.asked) == (0, number)


def oracle(processor, answer: str):
    """In the place of `exactly`: whoever always gives this answer."""

    def told(_, examples):
        said = ([processor.tokenizer.decode(x.labels[x.labels != IGNORED].tolist())] for x in examples)
        return [[text == answer for text in answers] for answers in said]

    return told


def test_not_shown_is_scored_apart(small, processor, monkeypatch):
    monkeypatch.setattr(tiny_scores, "exactly", oracle(processor, NOT_SHOWN))
    found = recall_scores(small, processor, HELD_OUT, number=5, windows=(0, 1), settings=STREAMS)
    assert found == {0: Score(0, 5), 1: Score(0, 5), NOT_SHOWN: Score(5, 5)}


def test_large_and_small_letters_are_scored_apart_and_settings_of_ones_own_are_used(small, processor, monkeypatch):
    worlds = []
    monkeypatch.setattr(tiny_scores, "exactly", lambda _, examples: [[True] for _ in examples])
    monkeypatch.setattr(tiny_scores, "TinyWorld", lambda *of: worlds.append(TinyWorld(*of)) or worlds[-1])
    assert world_scores(small, processor, HELD_OUT, number=3, kinds=("reading",)).keys() == tiny_scores.SIZES.keys()
    for world, (low, high) in zip(worlds, tiny_scores.SIZES.values(), strict=True):
        sizes = [world.of("reading", at).record["lines"][0]["size"] for at in range(60)]
        assert low <= min(sizes) <= max(sizes) <= high
    easy = tiny_scores.Settings(variation=0)
    found = world_scores(small, processor, HELD_OUT, number=3, kinds=("reading", "count"), settings=easy)
    assert list(found) == ["reading", "count"]
    assert worlds[-1].settings == easy
    assert [list(world.kinds) for world in worlds] == [*3 * [["reading"]], ["count"]]
    assert {world.split for world in worlds} == {HELD_OUT}


@pytest.fixture
def watched(monkeypatch):
    """The sources that recall_scores makes, and that were asked."""
    made = []

    class Kept(EncodedStreams):
        def __init__(self, *given, **options):
            super().__init__(*given, **options)
            made.append(self)

    monkeypatch.setattr(tiny_scores, "EncodedStreams", Kept)
    monkeypatch.setattr(tiny_scores, "exactly", lambda _, examples: [[True] for _ in examples])
    return made


@pytest.mark.parametrize("facts", [1, 15])
def test_facts_are_asked_for_at_exactly_the_distance_that_is_told(small, processor, watched, facts):
    own = dataclasses.replace(STREAMS, facts=facts, lead=(200, 200))
    windows = (0, 1, 3, 64)
    recall_scores(small, processor, HELD_OUT, number=1, windows=windows, settings=own)
    assert len(watched) == len(windows) + 1
    for count, source in zip(windows, watched[:-1], strict=True):
        for at in range(5):
            stream = source.streams[at]
            asked = stream.questions[0]
            assert stream.windows(asked) == count
            assert asked.passed == count * small.config.sliding_window
            assert len({box for box, _ in filter(None, map(stream.pool.fact, stream.numbers.tolist()))}) == facts
            text = processor.tokenizer.decode(source[at].ids.tolist())
            assert re.findall(r"in box (\w)", text) == [asked.box]
    for at in range(5):
        assert watched[-1].streams[at].questions[0].answer == NOT_SHOWN
    assert {source.streams.split for source in watched} == {HELD_OUT}


def test_who_is_blind_sees_the_last_window_and_the_question(small, processor, watched):
    seen = tiny_scores.pool_vectors(small, processor, HELD_OUT, settings=STREAMS)
    settings = {"number": 1, "windows": (0, 1, 5), "settings": STREAMS, "vectors": seen}
    recall_scores(small, processor, HELD_OUT, **settings)
    recall_scores(small, processor, HELD_OUT, **settings, blind=True)
    window = small.config.sliding_window
    for count, whole, blind in zip((0, 1, 5, None), watched[:4], watched[4:], strict=True):
        for at in range(4):
            stream, all_of_it, rest = whole.streams[at], whole[at], blind[at]
            shown = min(len(stream) * 4, window)
            assert len(rest.vectors) == shown
            assert rest.vectors.equal(all_of_it.vectors[-shown:])
            assert rest.ids[1 + shown :].equal(all_of_it.ids[len(all_of_it.vectors) + 1 :])
            frames = stream.numbers[-shown // 4 :].tolist()
            asked = stream.questions[0]
            assert ((asked.box, asked.answer) in map(stream.pool.fact, frames)) == (count == 0)


@pytest.mark.parametrize("blind", [False, True])
def test_only_frames_that_are_shown_are_looked_at(small, processor, watched, blind):
    options = {"number": 3, "windows": (0, 5), "settings": STREAMS, "blind": blind}
    recall_scores(small, processor, HELD_OUT, **options)
    shown = {int(at) for own in watched for n in range(3) for at in own.streams[n].numbers[-(own.frames or 0) :]}
    whole = tiny_scores.pool_vectors(small, processor, HELD_OUT, settings=STREAMS)
    for source in watched:
        looked = {at for at, x in enumerate(source.vectors) if x.any()}
        assert looked == shown
        for at in looked:
            close(source.vectors[at], whole[at], tolerance=tolerance(torch.float32))
    assert len(shown) < len(whole) / 2


def test_of_no_pictures_nothing_is_looked_at(small, processor):
    assert not tiny_scores.pool_vectors(small, processor, HELD_OUT, settings=STREAMS, only=[]).any()


def test_a_window_that_is_no_number_of_frames_is_told(small, processor):
    wide = dataclasses.replace(STREAMS, frame=(56, 28 * 5))
    with pytest.raises(ValueError, match="a frame has 10 tokens; a window, 96, should be a number of whole frames"):
        recall_scores(small, processor, HELD_OUT, number=1, settings=wide)
    with pytest.raises(ValueError, match="the number of questions is 0; it should be a whole number of at least 1"):
        world_scores(small, processor, HELD_OUT, number=0, kinds=("colour",))


def told(split: str, right: int) -> Scores:
    world = dict.fromkeys(["reading < 22 px", "reading ≥ 22 px", *KINDS[2:]], Score(right, 200))
    recall = dict.fromkeys([*tiny_scores.WINDOWS, NOT_SHOWN], Score(right, 200))
    return Scores(split, world, recall, recall)


def test_the_table_has_every_score_and_every_aim_beside_it():
    text = table([told(HELD_OUT, 180), told(HELD_OUT_FONTS, 150)])
    lines = {re.split(r"\s{2,}", line)[0]: line for line in text.splitlines()}
    seen, unseen = "90.0% (85% to 93%)", "75.0% (69% to 80%)"
    for name, aims in {
        "reading ≥ 22 px": ("95% missed", "70% reached"),
        "colour": ("95% missed", "95% missed"),
        "larger": ("90% reached", "90% missed"),
        "recall, 8 windows back": ("90% reached", "90% missed"),
        "recall, 64 windows back": ("80% reached", "80% missed"),
    }.items():
        assert re.sub(r"\s+", " ", lines[name]).endswith(f"{seen} {aims[0]} {unseen} {aims[1]}"), name
    for name in ("reading < 22 px", "value", "recall, 1 window back", "last window only, 64 windows back"):
        assert re.sub(r"\s+", " ", lines[name]).endswith(f"{seen} {unseen}"), name
    assert "of 200 questions each; chance in a stream is 3%" in text
    assert HELD_OUT_FONTS not in table([told(HELD_OUT, 180)])


def test_all_scores_are_in_the_file():
    several = [told(HELD_OUT, 180), told(HELD_OUT_FONTS, 150)]
    found = json.loads(json.dumps(tiny_scores.as_dict(several)))
    large = found[HELD_OUT_FONTS]["world"]["reading ≥ 22 px"]
    assert large == {**large, "right": 150, "asked": 200, "share": 0.75, "aim": 0.7, "reached": True}
    assert (large["low"], large["high"]) == Score(150, 200).bounds
    assert found[HELD_OUT]["recall"]["64"]["aim"] == 0.8
    assert "aim" not in found[HELD_OUT]["blind"]["64"]
    assert found[HELD_OUT]["recall"].keys() == {str(name) for name in (*tiny_scores.WINDOWS, NOT_SHOWN)}
