"""`train claims`: arms differ in what they say and in nothing else; runs go on; verdicts follow from the numbers."""

import argparse
import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minivl.bench import page
from minivl.checkpoint import load_model
from minivl.memory import LinearState
from minivl.processor import load_processor
from minivl.train import (
    claims,
    claims_ages,
    claims_data,
    claims_plots,
    claims_running,
    claims_runs,
    claims_scoring,
    resuming,
)
from minivl.train.claims_arms import ARMS, LAYERS, PARTS, Protocol, as_told, quick
from minivl.train.claims_data import KINDS, LESSONS, make, of_kind, streams_of
from minivl.train.claims_lessons import EVERY, LINES, Data
from minivl.train.claims_report import report, scores_of, verdicts
from minivl.train.claims_runs import Place, Run, arm_config, first_weight, untaught
from minivl.train.claims_scoring import characters, share_right
from minivl.train.claims_verdicts import ABSENT, APPEARS, BELOW, NOISE, REVERSED, UNKNOWN, Claim, judged
from minivl.train.encoded import EncodedStreams, with_vectors
from minivl.train.examples import IGNORED, collate
from minivl.train.not_finite import NotFinite
from minivl.train.sources import Conversations
from minivl.train.splits import ALPHABET

from .fakes import tiny_folder, tiny_model
from .tolerances import close, tolerance

DOCS = Path(__file__).resolve().parents[1] / "docs"
SMALL = quick(
    steps=6, batch=2, pictures=12, streams=4, tests=4, others=8, windows=(0, 1), facts=(1, 2), ages=(64, 128), piece=64
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The data of one small protocol, made once, with few frames."""
    folder = tmp_path_factory.mktemp("claims")
    with pytest.MonkeyPatch.context() as patch:
        # A frame is as good as another here: the first ones in the place of all.
        patch.setattr(claims_data, "frames", few_frames)
        make(tiny_folder(), folder / "data", SMALL, device="cpu")
    return folder


def few_frames(model, pool, *, workers) -> torch.Tensor:
    torch.manual_seed(len(pool))
    return torch.randn(len(pool.pool), 4, model.config.hidden_size).half()


@pytest.fixture(scope="module")
def data(home) -> Data:
    return Data(home / "data", load_processor(tiny_folder()), SMALL)


def place_at(home: Path, folder: Path) -> Place:
    """A folder of its own, with the data of all."""
    folder.mkdir(exist_ok=True)
    if not (folder / "data").exists():
        (folder / "data").symlink_to(home / "data")
    return Place(folder, tiny_folder(), SMALL)


def run_of(name: str, place: Place, seed: int = 0) -> Run:
    return Run(ARMS[name], seed, place, "cpu", quiet=True)


# The arms


def test_the_arms_are_what_they_say():
    windows = {name: arm.layer_types.count("sliding_attention") for name, arm in ARMS.items()}
    assert {name: windows[name] for name in PARTS["How many window layers"]} == {
        "window": 8, "hybrid-2": 4, "hybrid-4": 2, "hybrid-8": 1, "linear": 0, "full": 0,
    }  # fmt: skip
    assert set(ARMS["full"].layer_types) == {"full_attention"}
    assert {name: arm.mixer for name, arm in ARMS.items() if arm.mixer != "gated_delta"} == {
        "rule-linear": "linear", "rule-delta": "delta",
    }  # fmt: skip
    differing = {"rule-linear": {"mixer"}, "rule-delta": {"mixer"}, "data-4": {"examples"}, "data-2": {"examples"}}
    for name, fields in differing.items():
        one, other = vars(ARMS[name]), vars(ARMS["hybrid-4"])
        assert {key for key in one if one[key] != other[key]} - {"name", "told", "ages"} == fields
    one, other = vars(ARMS["with-stage-1"]), vars(ARMS["without-stage-1"])
    assert {key for key in one if one[key] != other[key]} == {"name", "told", "course"}
    assert all(len(arm.layer_types) == LAYERS for arm in ARMS.values())


def test_every_arm_is_in_the_report_and_looks_like_no_other():
    assert {arm for arms in PARTS.values() for arm in arms} == set(ARMS) == set(claims_plots.STYLES)
    marks = [mark for _, mark, _ in claims_plots.STYLES.values()]
    assert len(set(marks)) == len(marks)


@given(steps=st.integers(4, 5000), name=st.sampled_from(list(ARMS)))
def test_every_arm_takes_all_steps_and_no_more(steps, name):
    course = Protocol(steps=steps).steps_of(ARMS[name])
    assert sum(own for _, own in course) == steps
    assert all(own > 0 for _, own in course)


@pytest.mark.parametrize("fault", [{"steps": 0}, {"learning_rate": -1.0}, {"start": "somewhere"}, {"reading": 1.5}])
def test_odd_protocols_are_told(fault):
    (name,) = fault
    with pytest.raises(ValueError, match=f"{name} is .* it should be"):
        Protocol(**fault)


@given(seed=st.integers(0, 99), name=st.sampled_from(list(ARMS)), other=st.sampled_from(list(ARMS)))
def test_arms_of_a_seed_start_alike_wherever_they_are_alike(seed, name, other):
    eyes = tiny_model()
    found = []
    for arm in (ARMS[name], ARMS[other]):
        config = arm_config(eyes.config, arm, SMALL)
        model = untaught(eyes, config, seed)
        assert model.config.layer_types == arm.layer_types
        assert model.config.mixer == arm.mixer
        assert model.config.sliding_window == SMALL.window
        found.append(model.state_dict())
    common = [key for key in found[0] if key in found[1] and found[0][key].shape == found[1][key].shape]
    assert any(".mlp." in key for key in common)
    assert all(found[0][key].equal(found[1][key]) for key in common)
    assert all(found[0][key].equal(x) for key, x in eyes.state_dict().items() if key.startswith("model.visual."))
    matrix = "model.language_model.layers.0.mlp.up_proj.weight"
    shape = found[0][matrix].shape
    assert not first_weight(matrix, shape, seed).equal(first_weight(matrix, shape, seed + 1))


# What they read


def same_example(one, other) -> bool:
    names = ("ids", "positions", "labels", "grids", "vectors")
    return all(getattr(one, name).equal(getattr(other, name)) for name in names)


@given(number=st.integers(0, 60), seed=st.integers(0, 5), first=st.integers(0, 9))
def test_arms_read_the_same_in_the_same_order_and_later_stages_go_on(data, number, seed, first):
    one = data.lessons(ARMS["hybrid-4"], seed)
    assert same_example(one[number], data.lessons(ARMS["window"], seed)[number])
    assert same_example(data.lessons(ARMS["hybrid-4"], seed, first=first)[number], one[number + first * SMALL.batch])
    taught = data.lessons(ARMS["without-stage-1"], seed)
    later = data.lessons(ARMS["with-stage-1"], seed, first=first)
    assert same_example(later[number], taught[number + first * SMALL.batch])


def test_pictures_take_turns_with_all_streams_and_lines_to_read_with_other_questions(data):
    lessons = data.lessons(ARMS["hybrid-4"], 0)
    streams = [lesson for lesson in LESSONS if lesson[0] <= SMALL.longest]
    alone, lengths, lines = SMALL.steps_alone(ARMS["hybrid-4"]), [], []
    for step in range(alone + 2 * EVERY * len(streams)):
        rows = [lessons[step * SMALL.batch + row] for row in range(SMALL.batch)]
        if step < alone or (step - alone) % EVERY < EVERY - 1:
            lines += [is_line(data, row) for row in rows]
        else:
            assert collate(rows, data.processor.config).mask.all()
            lengths.append(len(rows[0].ids))
    assert len(set(lengths)) == len(streams)
    assert lengths[: len(streams)] == lengths[len(streams) :]
    alone *= SMALL.batch
    assert all(lines[:alone])
    assert lines[alone:] == [number % LINES == LINES - 1 for number in range(len(lines) - alone)]


def is_line(data, row) -> bool:
    said = data.processor.tokenizer.decode([x for x in row.labels.tolist() if x != IGNORED])
    line = said.partition("<")[0]
    return len(line) == 8 and set(line) <= set(ALPHABET)


@pytest.mark.parametrize(("name", "start"), [("with-stage-1", "nothing"), ("hybrid-4", "teacher")])
def test_who_has_a_teacher_reads_all_kinds_from_the_first_step_on(name, start):
    protocol = Protocol(steps=100, start=start)
    assert protocol.steps_alone(ARMS[name]) == 0
    assert Protocol(steps=100).steps_alone(ARMS["hybrid-4"]) == 25


def test_seeds_have_orders_of_their_own(data):
    one, other = (data.lessons(ARMS["hybrid-4"], seed) for seed in (0, 1))
    assert not all(same_example(one[number], other[number]) for number in range(12))


@pytest.mark.parametrize(("name", "share"), [("hybrid-4", 1), ("data-2", 2), ("data-4", 4)])
def test_an_arm_sees_its_share_of_the_examples(data, name, share):
    """Over many rounds: so many different ones, the first of all."""
    course = data.lessons(ARMS[name], 0)
    pictures = course.lessons.pictures
    assert course.lines is pictures.streams[0]
    sources = [course.lines, pictures.pictures, *course.lessons.streams]
    for source, whole in zip(sources, [12, 12, *len(course.lessons.streams) * [4]], strict=True):
        seen = {id_of(source[number]) for number in range(5 * whole)}
        every = {id_of(source.examples.source[number]) for number in range(whole // share)}
        assert seen == every


def id_of(example) -> bytes:
    return example.ids.numpy().tobytes() + example.vectors.numpy().tobytes()


def test_streams_are_those_of_encoded_streams_bit_for_bit(data):
    for part, (distance, facts), number in (("train", (32, 8), 3), ("test", (64, 4), 1)):
        wanted = EncodedStreams(
            streams_of(SMALL, part, distance, facts), data.processor, data.frames[part],
            questions=claims_data.QUESTIONS[part],
        )[number]  # fmt: skip
        assert same_example(data.streams(part, distance, facts)[number], wanted)
        told = [x for x in wanted.labels.tolist() if x != IGNORED]
        assert told.count(data.processor.config.eos_token_id) == claims_data.QUESTIONS[part]


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("what", KINDS)
def test_pictures_are_those_of_the_world_as_the_eyes_see_them(data, part, what):
    model, source = tiny_model(), Conversations(of_kind(part, what), data.processor)
    pictures = data.pictures[part][what]
    assert len(pictures) == (12 if part == "train" else SMALL.tests)
    rows = [source[number] for number in range(len(pictures))]
    assert len({len(row.ids) for row in rows}) > 1 or what == "reading"
    for number, (row, seen) in enumerate(zip(rows, with_vectors(model, rows), strict=True)):
        found = pictures[number]
        assert all(getattr(found, name).equal(getattr(row, name)) for name in ("ids", "positions", "labels", "grids"))
        close(found.vectors, seen.vectors.half(), tolerance=tolerance(torch.float16))


# Scores


@given(number=st.integers(0, 11), spoilt=st.sets(st.integers(0, 5)))
def test_what_is_read_is_counted_character_by_character(data, number, spoilt):
    """A row whose answer is what the model would say; then some of its tokens are others, and only these are wrong."""
    model, prompt = tiny_model(), data.pictures["train"]["reading"][number]
    start = int((prompt.labels != IGNORED).nonzero()[0])
    before, after = prompt.positions[:, :start], prompt.positions[:, start - 1 : start] + 1 + torch.arange(6)
    row, places, said = prompt.ids[:start], torch.cat([before, after], dim=1), []
    with torch.no_grad():
        for place in range(6):  # one after the other, each after what is to be said, be it right or wrong
            arguments = {"positions": places[:, None, : start + place], "vectors": prompt.vectors}
            first = int(model(row[None], **arguments)[0, -1].argmax())
            if first >= model.config.bos_token_id:  # a control token, which is no part of an answer
                spoilt.add(place)
            said.append((first + 1) % 600 if place in spoilt else first)
            row = torch.cat([row, torch.tensor(said[-1:])])
    labels = torch.cat([torch.full((start,), IGNORED), torch.tensor(said)])
    example = dataclasses.replace(prompt, ids=row, labels=labels, positions=places)
    assert characters(model, [example]) == pytest.approx(1 - len(spoilt) / 6)
    assert share_right(model, [example]) == (not spoilt)

    end = torch.tensor([model.config.eos_token_id])  # it must be said, but is no character
    assert first_choice(model, example) != end
    ended = dataclasses.replace(
        example,
        ids=torch.cat([row, end]),
        labels=torch.cat([labels, end]),
        positions=torch.cat([places, places[:, -1:] + 1], dim=1),
    )
    assert characters(model, [ended]) == characters(model, [example])
    assert share_right(model, [ended]) == 0


def first_choice(model, example) -> int:
    with torch.no_grad():
        row = model(example.ids[None], positions=example.positions[:, None], vectors=example.vectors)
    return int(row[0, -1].argmax())


def test_scores_do_not_depend_on_how_many_rows_are_asked_together(data, monkeypatch):
    model, found = tiny_model(), []
    for rows in (1, 3):
        monkeypatch.setattr(claims_scoring, "ROWS", rows)
        found.append(claims_scoring.scores(model, data, SMALL))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["hybrid-4", "linear", "rule-delta"])
def test_a_stream_in_pieces_is_asked_as_one_row_would_be(data, name, monkeypatch):
    """At the last age: the logits at the questions are those of one row of all frames, read at once."""
    arm = ARMS[name]
    model = untaught(tiny_model(), arm_config(tiny_model().config, arm, SMALL), 0)
    seen = []

    def recorded(model, batch):
        seen.append((batch, model.read(batch.ids, **batch.arguments)))
        return [[True]]

    monkeypatch.setattr(claims_ages, "of_batch", recorded)
    with torch.no_grad():
        claims_ages.ages(model, data, SMALL)
        watching = claims_ages.Watching(model, data, SMALL)
        assert len(seen) == 3 * len(SMALL.ages)
        frames = claims_ages.FACTS + SMALL.ages[-1] // 4
        for (batch, found), questions, more in ((seen[3], "old", 0), (seen[4], "new", watching.between - 1)):
            for number, stream in enumerate(watching.streams):
                shown = stream.numbers[: frames + more]
                if questions == "new":
                    shown = np.concatenate(
                        [shown[: frames - 1], stream.new_frames, stream.numbers[frames - 1 :][: more + 1]]
                    )
                row = watching.row(shown, getattr(stream, questions), 0)
                whole = collate([row], model.config)
                wanted = model.read(whole.ids, **whole.arguments)
                T = batch.ids.shape[1]
                assert batch.ids[number].equal(row.ids[-T:])
                assert batch.positions[:, number].equal(row.positions[:, -T:])
                close(found[number], wanted[0, -T:], tolerance=tolerance(torch.float32))


def test_facts_lie_as_far_back_as_it_says(data):
    watching = claims_ages.Watching(tiny_model(), data, SMALL)
    for stream in watching.streams:
        facts = [watching.pool.fact(int(number)) for number in stream.numbers]
        assert [fact for fact in facts if fact] == [(asked.box, asked.answer) for asked in stream.old]
        assert all(facts[: claims_ages.FACTS])
        assert [watching.pool.fact(int(n)) for n in stream.new_frames] == [(x.box, x.answer) for x in stream.new]
        assert len({asked.box for asked in stream.old + stream.new}) == 2 * claims_ages.FACTS


def test_a_reset_empties_the_states_and_leaves_the_windows():
    model = tiny_model()
    memory = model.new_memory(2)
    with torch.no_grad():
        model(torch.randint(0, 600, (2, 40)), memory=memory)
    before = {name: x.clone() for name, x in memory.tensors().items()}
    claims_ages.reset(memory)
    emptied = {f"layers.{i}." for i, layer in enumerate(memory.layers) if isinstance(layer, LinearState)}
    assert len(emptied) == 6
    for name, x in memory.tensors().items():
        assert before[name].any() or name.endswith("next_position")
        assert not x.any() if name.startswith(tuple(emptied)) else x.equal(before[name])


# Runs


def test_a_run_is_whole_is_not_run_again_and_goes_on_after_a_kill_to_the_same(home, tmp_path, monkeypatch):
    monkeypatch.setattr("minivl.train.progress.plot", lambda *arguments, **named: None)
    monkeypatch.setattr(claims_runs, "SAVE_EVERY", 3)
    place = place_at(home, tmp_path / "one")
    run = run_of("hybrid-4", place)
    run.perform()
    path = place.result("hybrid-4", 0)
    found, when = json.loads(path.read_text()), path.stat().st_mtime_ns
    ages = {f"{task}/{age}" for task in ("age", "fresh", "after a reset") for age in SMALL.ages}
    pictures = {"reading", "characters", "attributes", "average"}
    assert set(found["scores"]) == ages | pictures | {"recall/0", "recall/1", "facts/1", "facts/2"}
    assert all(0 <= score <= 1 for score in found["scores"].values())
    assert len(found["losses"]["answers"]) == SMALL.steps

    with monkeypatch.context() as patch:
        patch.setattr(claims_runs.Run, "learn", lambda self: pytest.fail("a run that is done was run again"))
        claims_running.perform_all([run], at_once=1, places=["cpu"], say=lambda line: None)
        run.perform()
    assert path.stat().st_mtime_ns == when

    class Killed(BaseException):
        pass

    kept = resuming.keep

    def kill(out, step, *arguments):
        kept(out, step, *arguments)
        if step == 3:
            raise Killed

    other = place_at(home, tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr("minivl.train.trainer.keep", kill)
        with pytest.raises(Killed):
            run_of("hybrid-4", other).perform()
    assert not other.result("hybrid-4", 0).exists()
    run_of("hybrid-4", other).perform()
    again = json.loads(other.result("hybrid-4", 0).read_text())
    assert {name: again[name] for name in ("scores", "losses")} == {name: found[name] for name in ("scores", "losses")}


def test_both_courses_start_from_the_same_student_of_the_full_arm(home, tmp_path, monkeypatch):
    monkeypatch.setattr("minivl.train.progress.plot", lambda *arguments, **named: None)
    place = place_at(home, tmp_path)
    for name in ("full", "with-stage-1", "without-stage-1"):
        run_of(name, place).learn()
    starts = [load_model(place.run(name, 0) / "start", device="cpu") for name in ("with-stage-1", "without-stage-1")]
    weights = [model.state_dict() for model in starts]
    teacher = load_model(place.run("full", 0) / "answers" / "result", device="cpu").state_dict()
    first = load_model(place.run("full", 0) / "start", device="cpu").state_dict()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert all(x.equal(teacher[name]) for name, x in weights[0].items() if ".mlp." in name)
    assert not any(teacher[name].equal(first[name]) for name in teacher if ".mlp." in name and "visual" not in name)
    stages = [path.name for path in sorted(place.run("with-stage-1", 0).iterdir())]
    assert stages == ["layers", "logits", "start", "tuning"]


def test_with_a_teacher_to_start_from_every_arm_is_its_student(home, tmp_path):
    eyes = tiny_folder(layer_types=LAYERS * ("full_attention",))
    place = dataclasses.replace(
        place_at(home, tmp_path), eyes=eyes, protocol=dataclasses.replace(SMALL, start="teacher")
    )
    taught = load_model(eyes, device="cpu").state_dict()
    for name in ("window", "hybrid-4"):
        run = run_of(name, place)
        begun = load_model(run.begin(), device="cpu")
        assert begun.config.layer_types == ARMS[name].layer_types
        kept = [key for key, x in begun.state_dict().items() if key in taught and x.equal(taught[key])]
        assert any("embed_tokens" in key for key in kept)
        assert any(".self_attn.q_proj" in key for key in kept)
        assert place.protocol.waits_for(ARMS["with-stage-1"]) is None


def test_a_run_whose_numbers_run_away_is_a_result_and_is_told(home, tmp_path, monkeypatch):
    place = place_at(home, tmp_path)

    def diverge(self):
        raise NotFinite("step 3: the loss is nan; layers.1 is the first; the last good checkpoint is here")

    monkeypatch.setattr(claims_runs.Run, "learn", diverge)
    run_of("rule-linear", place).perform()
    found = json.loads(place.result("rule-linear", 0).read_text())
    assert found["stopped"] == "step 3: the loss is nan; layers.1 is the first"
    text = report(made_up() | {"runs": [*made_up()["runs"], found]})
    assert "1/4, linear attention, seed 0, stopped: step 3: the loss is nan" in text


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["hybrid-4", "window", "rule-linear", "rule-delta", "full"])
def test_each_kind_of_arm_runs_on_a_gpu(home, tmp_path, name):
    place = place_at(home, tmp_path)
    dataclasses.replace(run_of(name, place), device="cuda:0").perform()
    found = json.loads(place.result(name, 0).read_text())
    assert found["stopped"] is None
    assert len(found["losses"]["answers"]) == SMALL.steps
    assert any(task.startswith("age/") for task in found["scores"]) == ARMS[name].ages


def test_a_folder_takes_one_protocol_and_one_pair_of_eyes_only(tmp_path):
    place = Place(tmp_path, tiny_folder(), SMALL)
    claims.settle(place)
    claims.settle(place)
    with pytest.raises(ValueError, match="another configuration: steps was 6 and is now 7"):
        claims.settle(dataclasses.replace(place, protocol=dataclasses.replace(SMALL, steps=7)))
    with pytest.raises(ValueError, match="another configuration: eyes was"):
        claims.settle(dataclasses.replace(place, eyes=tiny_folder(layer_types=LAYERS * ("full_attention",))))


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--quick", "--docs", "docs"], "--quick shows nothing, so its tables are not for --docs"),
        (["--docs", "nowhere"], "nowhere/claims.md"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--eyes", "nowhere"], "nowhere is not a folder"),
        (["--steps", "3"], "steps is 3; it should be a whole number of at least 4"),
        (["--again", "nowhere.json"], "nowhere.json is not a file; it should be the claims.json"),
        (["--again", "other.json"], "other.json is not what this command writes"),
        (["--start", "teacher"], "it should have full_attention in every layer"),
    ],
)
def test_what_can_be_wrong_is_told_before_anything_is_made(tmp_path, monkeypatch, words, fault):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "make", lambda *arguments, **named: pytest.fail("something was made"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "other.json").write_text('{"runs": 3}')
    parser = argparse.ArgumentParser()
    claims.add_arguments(parser)
    with pytest.raises((ValueError, FileNotFoundError), match=fault):
        claims.run(parser.parse_args(["--eyes", str(tiny_folder()), *words]))


# Side by side


@pytest.mark.parametrize("failing", [None, "window", "full"])
def test_side_by_side_a_teacher_comes_first_and_a_failure_stops_no_other(tmp_path, monkeypatch, failing):
    place, done = Place(tmp_path, tiny_folder(), SMALL), []
    runs = [run_of(name, place, seed) for name in ("with-stage-1", "full", "window") for seed in (0, 1)]

    def perform(run):
        if run.arm.name == "with-stage-1":
            assert any(name == "full" for name, seed in done if seed == run.seed)
        done.append((run.arm.name, run.seed))
        if run.arm.name == failing:
            raise ValueError("a reason")

    monkeypatch.setattr(claims_running, "_perform", perform)
    faults, left, told = [], list(runs), []

    def finished(run, fault):
        left.remove(run)
        faults.extend([(run.arm.name, str(fault))] if fault else [])

    with ThreadPoolExecutor(4) as threads:
        claims_running.side_by_side(left, threads, finished, told.append)
    assert sorted(done) == sorted((run.arm.name, run.seed) for run in runs)
    assert faults == ([(failing, "a reason")] * 2 if failing else [])


def test_while_nothing_ends_the_steps_are_counted(tmp_path, monkeypatch):
    place, told = Place(tmp_path, tiny_folder(), SMALL), []
    runs = [run_of(name, place) for name in ("window", "linear")]
    log = place.run("window", 0) / "answers" / "log.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,loss,rate,gradient,units,seconds\n1,1.0,0.1,1.0,2,0.5\n2,1.0,0.1,1.0,2,0.5\n")
    enough = Event()

    def tell(line):
        told.append(line)
        enough.set()

    monkeypatch.setattr(claims_running, "_perform", lambda run: enough.wait(10))
    monkeypatch.setattr(claims_running, "HEARTBEAT", 0.01)
    left = list(runs)
    with ThreadPoolExecutor(2) as threads:
        claims_running.side_by_side(left, threads, lambda run, fault: left.remove(run), tell)
    assert told[0] == "2 runs under way or waiting for a process: 2 of 12 steps"


def test_a_failure_is_told_at_the_end_with_its_run(tmp_path, monkeypatch):
    place, said = Place(tmp_path, tiny_folder(), SMALL), []

    def perform(self):
        if self.arm.name == "window":
            raise ValueError("a reason")

    monkeypatch.setattr(claims_runs.Run, "perform", perform)
    runs = [run_of(name, place) for name in ("window", "linear")]
    with pytest.raises(ValueError, match=r"1 of 2 runs failed \(window, seed 0: a reason\); run again to go on"):
        claims_running.perform_all(runs, at_once=1, places=["cpu"], say=said.append)
    assert any("linear, seed 0 done" in line for line in said)


def test_runs_are_spread_over_all_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert claims_running.homes(None) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    assert claims_running.homes("cuda") == claims_running.homes(None)
    assert claims_running.homes("cuda:2") == ["cuda:2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert claims_running.homes(None) == ["cpu"]


# Verdicts and report


@pytest.mark.parametrize(
    ("form", "one", "other", "outcome"),
    [
        ("above", [0.8, 0.9], [0.6, 0.65], APPEARS),
        ("above", [0.8, 0.9], [0.7, 0.8], ABSENT),  # means differ by the larger range exactly
        ("above", [0.6, 0.65], [0.8, 0.9], REVERSED),
        ("above", [0.5, 0.5], [0.48, 0.48], ABSENT),  # no range at all: less than questions tell apart
        ("above", [0.5], [], UNKNOWN),
        (BELOW, [0.8, 0.85], [0.82, 0.84], APPEARS),
        (BELOW, [0.9, 0.92], [0.5, 0.52], APPEARS),
        (BELOW, [0.5, 0.52], [0.9, 0.92], REVERSED),
        (BELOW, [0.0, 0.0], [0.0, 0.0], ABSENT),  # neither has learnt it: nothing is as good as anything
        (BELOW, [], [0.5], UNKNOWN),
    ],
)
def test_the_rule(form, one, other, outcome):
    claim = Claim("so it is", ("hybrid-4", "reading"), ("linear", "reading"), form)
    assert judged(claim, {"hybrid-4": {"reading": one}, "linear": {"reading": other}}).outcome == outcome


@given(one=st.lists(st.floats(0, 1), min_size=1, max_size=4), other=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_the_other_claim_has_the_other_verdict_and_a_wider_spread_never_makes_one(one, other):
    def outcome(a, b):
        claim = Claim("so it is", ("hybrid-4", "reading"), ("linear", "reading"))
        return judged(claim, {"hybrid-4": {"reading": a}, "linear": {"reading": b}}).outcome

    mirrored = {APPEARS: REVERSED, REVERSED: APPEARS, ABSENT: ABSENT}
    assert outcome(other, one) == mirrored[outcome(one, other)]
    mean, width = sum(one) / len(one), max(one) - min(one) + NOISE
    if outcome(one, other) == ABSENT:
        assert outcome([mean - width, mean + width], other) == ABSENT


def made_up() -> dict:
    """Two seeds of a few arms."""
    own = as_told(Protocol(steps=100))
    tasks = ["reading", "characters", "attributes", "average"]
    tasks += [f"recall/{n}" for n in own["windows"]] + [f"facts/{n}" for n in own["facts"]]
    tasks += [f"{task}/{age}" for task in ("age", "fresh", "after a reset") for age in own["ages"]]
    runs = [
        {
            "arm": arm, "seed": seed, "stopped": None, "training_seconds": 36.0, "scoring_seconds": 18.0, "losses": {},
            "parameters": 1000, "scores": dict.fromkeys(tasks, score + 0.1 * seed),
        }
        for arm, score in (("window", 0.2), ("hybrid-4", 0.7))
        for seed in (0, 1)
    ]  # fmt: skip
    on = {"gpu": None, "gpus": 0, "cpu": "a processor", "cores": 2, "python": "3", "torch": "2"}
    shape = {"layers": 8, "width": 128, "state": 4096}
    return {"protocol": own, "on": on, "at_once": 2, "minutes": 3.0, "shape": shape, "runs": runs}


def test_the_report_has_every_arm_that_ran_with_its_spread_and_a_verdict_on_every_claim():
    found = made_up()
    text = report(found)
    assert f"{'hybrid, 1/4 window':<34}{'75.0 ± 5.0':>13}" in text
    assert f"{'window only':<34}{'25.0 ± 5.0':>13}" in text
    assert "linear only" not in text.partition("Does it appear?")[0]
    assert "a window alone forgets, and a hybrid does not: APPEARS" in text
    assert "recall 16 windows back: hybrid, 1/4 window 75.0%, above window only 25.0%? spread 10.0%" in text
    assert "hybrid, 1/4 window: new facts after 500,000 tokens 75.0%, not below new facts after 1,024 tokens" in text
    assert text.count("not measured") == sum(verdict.outcome == UNKNOWN for verdict in verdicts(found)) > 5
    assert "4 runs, 2 at a time, in 3.0 minutes by the clock: 0.04 hours of steps, 0.02 of scoring" in text
    assert "100 steps of 64 rows" in text
    assert scores_of(found)["window"]["recall/64"] == [0.2, pytest.approx(0.3)]


def test_the_page_and_the_pictures_are_made_of_the_numbers(tmp_path, monkeypatch):
    (tmp_path / "claims.md").write_text((DOCS / "claims.md").read_text(encoding="utf-8"), encoding="utf-8")
    claims.leave(made_up(), tmp_path, tmp_path)
    page.fill(tmp_path / "claims.md", claims.MARKS, report(made_up()))
    claims.show(tmp_path / "claims.md")  # what stood between the marks is gone, pictures too
    text = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert report(made_up()) in text
    assert "not run yet" not in text
    assert [text.count(f"({name})") for name in claims_plots.PICTURES.values()] == [1, 1, 1]
    begin, _ = page.marks(claims.MARKS)
    assert text.partition(begin)[0] == (DOCS / "claims.md").read_text(encoding="utf-8").partition(begin)[0]
    assert json.loads((tmp_path / "claims.json").read_text()) == made_up()
    assert len(digests(tmp_path)) == 1
    changed, before = made_up(), digests(tmp_path)
    changed["runs"][0]["scores"]["reading"] = 0.5
    monkeypatch.setattr(claims_plots, "PICTURES", {"ages": "claims-ages.png"})
    claims_plots.draw(changed, tmp_path)
    assert len(digests(tmp_path) | before) == 2


def digests(folder: Path) -> set[str]:
    """What the pictures say that they show."""
    found = set()
    for name in claims_plots.PICTURES.values():
        with Image.open(folder / name) as picture:
            found.add(picture.info["Source"])
    return found
