"""The tiny model before it has learnt anything, the dense lesson of its eyes, and examples that are kept."""

import json
import math
from string import ascii_uppercase

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from minivl.checkpoint import load, load_model, save_model
from minivl.fake_tokenizer import CONTROL
from minivl.model import InfiniteVL
from minivl.processor import load_processor
from minivl.train import freezing, kept, saving, tiny, tiny_model, trainer
from minivl.train.drawing import CELL, HUES, LABELS, PATCH, Canvas, Picture
from minivl.train.encoded import with_vectors
from minivl.train.examples import collate, example_of
from minivl.train.kept import drawn, seen
from minivl.train.layout import EACH, Alike, DrawnConversations, DrawnFrames, Layout, cells_of
from minivl.train.lessons import Lessons
from minivl.train.sources import Conversations
from minivl.train.splits import ALPHABET, SPLITS, TRAIN
from minivl.train.student import student_config, student_from
from minivl.train.tiny_frames import BOXES, VALUES, fact_held_out
from minivl.train.tiny_streams import StreamSettings, TinyStreams
from minivl.train.tiny_world import KINDS, TinyWorld

from .tolerances import close
from .training import settings


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    tiny_model.write_start(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(start):
    return load_model(start, device="cpu")


@pytest.fixture(scope="module")
def processor(start):
    return load_processor(start)


# The vocabulary


def test_the_vocabulary_has_640_entries_and_the_control_tokens_come_last_in_order(start):
    told = json.loads((start / "tokenizer.json").read_text())
    words = told["model"]["vocab"] | {token["content"]: token["id"] for token in told["added_tokens"]}
    assert sorted(words.values()) == list(range(640))
    assert [words[name] for name in CONTROL] == list(range(640 - len(CONTROL), 640))
    config = tiny_model.teacher_config()
    ids = (config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id)
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|endoftext|>", "<|im_end|>")
    assert [words[name] for name in names] == [*ids, config.bos_token_id, config.eos_token_id]


def test_the_vocabulary_is_the_same_each_time(start):
    assert tiny_model.vocabulary() == (start / "tokenizer.json").read_bytes()


@given(text=st.text(st.sampled_from(ALPHABET), min_size=1, max_size=12))
def test_capitals_and_digits_stay_single_whatever_stands_beside_them(processor, text):
    """After a space the first of them may be one with it, as in questions about a box."""
    single = [
        [processor.tokenizer.decode([token]) for token in processor.tokenizer.encode(x)] for x in (text, f" {text}")
    ]
    assert single[0] == list(text)
    assert single[1] in ([" ", *text], [f" {text[0]}", *text[1:]])


@pytest.mark.parametrize("kind", KINDS)
def test_no_question_has_more_than_14_tokens(processor, kind):
    for split in SPLITS:
        asked = {TinyWorld(split, seed=5).of(kind, index).question for index in range(6)}
        assert max(len(processor.tokenizer.encode(question)) for question in asked) <= 14


@given(letter=st.sampled_from(ascii_uppercase))
def test_a_question_about_a_box_is_as_short(processor, letter):
    assert len(processor.tokenizer.encode(f"What is in box {letter}?")) <= 14


# The model


def test_the_student_is_small_and_its_checkpoint_is_too(teacher, start, tmp_path):
    student = student_from(teacher, student_config(teacher.config))
    assert student.config.layer_types == ("sliding_attention", *["linear_attention"] * 3) * (tiny_model.LAYERS // 4)
    assert sum(x.numel() for x in student.parameters()) <= 5_000_000
    save_model(student.to(torch.bfloat16), tmp_path, processor_from=start)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000_000
    model, own = load(tmp_path, device="cpu", dtype=torch.float32)
    ids = torch.tensor([own.tokenizer.encode("What is in box A?")])
    assert model(ids).shape == (1, ids.shape[1], 640)
    assert model(ids).isfinite().all()


def test_the_start_is_a_teacher_of_the_released_form_in_float32(start, teacher):
    assert teacher.config.is_teacher
    assert teacher.config == tiny_model.teacher_config()
    assert {x.dtype for x in teacher.parameters()} == {torch.float32}
    with torch.device("meta"):
        names = set(InfiniteVL(tiny_model.teacher_config()).state_dict())
    assert set(teacher.state_dict()) == names
    assert {path.name for path in start.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_start_depends_on_its_seed(start, tmp_path):
    tiny_model.write_start(tmp_path, seed=1)
    assert (tmp_path / "model.safetensors").read_bytes() != (start / "model.safetensors").read_bytes()
    assert (tmp_path / "tokenizer.json").read_bytes() == (start / "tokenizer.json").read_bytes()


# Cells


def marked(rows: int, columns: int, patch: tuple[int, int]) -> Picture:
    """White, but for one patch with a black star in its middle."""
    canvas = Canvas(columns * CELL, rows * CELL, (255, 255, 255))
    middle = (patch[1] * PATCH + PATCH / 2, patch[0] * PATCH + PATCH / 2)
    canvas.shape("star", middle, 5.0, (0, 0, 0))
    return canvas.labelled(canvas.image)


@given(rows=st.integers(2, 4), columns=st.integers(2, 4), seed=st.integers(0, 10**6))
def test_cells_come_in_the_order_of_the_towers_patches(processor, rows, columns, seed):
    """The one patch that is not white is the one that has a label: its cell's, and inside of the cell its own."""
    at = np.random.default_rng(seed).integers(0, (2 * rows, 2 * columns))
    picture, star = marked(rows, columns, at), LABELS.index("star")
    cells = cells_of([picture])
    assert cells.shape == (rows * columns, EACH)
    messages = [{"role": "user", "content": [{"type": "image", "image": picture.image}]}]
    pixels = example_of(processor, [*messages, {"role": "assistant", "content": "?"}]).pixels
    levels = pixels.reshape(len(pixels), 3, -1)
    (inked,) = (levels.amax(-1) - levels.amin(-1)).amax(-1).gt(0.1).nonzero().flatten().tolist()
    labels = cells[:, :4].flatten()
    assert labels.nonzero().flatten().tolist() == [inked]
    assert labels[inked] == star
    slots, inks, hues = cells[:, 4:8], cells[:, 8:12], cells[:, 12:]
    assert slots.nonzero().tolist() == hues.nonzero().tolist() == [[inked // 4, 0]]
    assert slots[inked // 4, 0] == star
    assert HUES[hues[inked // 4, 0]] == "black"
    assert inks.flatten().nonzero().flatten().tolist() == [inked]


def test_cells_of_several_pictures_stand_one_after_another():
    one, other = marked(1, 2, (0, 0)), marked(2, 1, (3, 1))
    assert cells_of([one, other]).equal(torch.cat([cells_of([one]), cells_of([other])]))


def test_drawn_sources_give_a_row_of_labels_for_each_vector_of_the_tower(processor, teacher):
    pool = TinyStreams("train", 0, StreamSettings(looks=1, others=8)).pool
    frames = DrawnFrames(pool, processor)
    for source in (DrawnConversations(TinyWorld("train", 0, ["same"]), processor), frames):
        example = source[1]
        assert len(example.cells) == len(example.pixels) // 4
        assert len(with_vectors(teacher, [example])[0].vectors) == len(example.cells)
    assert example.cells.equal(cells_of([pool[frames.numbers[1]]]))


@pytest.mark.parametrize("split", SPLITS)
def test_drawn_frames_are_those_that_a_split_may_show(processor, split):
    """In train no held-out fact, of which eyes would otherwise have seen each."""
    pool = TinyStreams(split, 0, StreamSettings(looks=2, others=8)).pool
    found = DrawnFrames(pool, processor)
    facts = {pool.fact(number) for number in found.numbers} - {None}
    assert facts == {
        (box, value) for box in BOXES for value in VALUES if split != TRAIN or not fact_held_out(box, value)
    }
    assert len(found) == 2 * len(facts) + 8 == len(set(found.numbers))


def test_a_step_of_the_eyes_has_pictures_of_one_size_and_all_sizes_come_as_often_as_there_are_pictures(processor):
    world = TinyWorld("train", 0, {"reading": 2, "same": 1, "colour": 1})
    examples = drawn(DrawnConversations(world, processor), 40)
    steps = Alike(examples, batch=3, seed=1)
    sizes = [tuple(example.grids.flatten().tolist()) for example in examples]
    counts = dict.fromkeys(sizes, 0)
    for step in range(200):
        found = {tuple(steps[3 * step + row].grids.flatten().tolist()) for row in range(3)}
        assert len(found) == 1
        counts[found.pop()] += 1
    assert len(counts) == 3
    for size, count in counts.items():
        assert abs(count / 200 - sizes.count(size) / 40) < 0.12


# The lesson


@pytest.fixture(scope="module")
def batch(processor):
    source = DrawnConversations(TinyWorld("train", 0, ["colour", "same"]), processor)
    return collate([source[number] for number in range(3)], processor.config)


def lesson(teacher) -> Layout:
    """With a map that has learnt something, so that no gradient is zero."""
    objective = Layout(teacher)
    torch.manual_seed(0)
    torch.nn.init.normal_(objective.beside.weight, std=0.2)
    torch.nn.init.normal_(objective.beside.bias)
    return objective


def test_the_loss_is_what_is_written_out_by_hand(teacher, batch):
    objective = lesson(teacher)
    with torch.no_grad():
        found = objective(batch)
        said = objective.beside(teacher.model.visual(batch.pixels, batch.grids)).double().tolist()
    pixels = batch.pixels.double().reshape(-1, 4, 3, batch.pixels.shape[1] // 3)
    total = 0.0
    for cell, row in enumerate(said):
        for number, label in enumerate(batch.cells[cell].tolist()):
            scores = row[number * len(LABELS) : (number + 1) * len(LABELS)]
            total += (math.log(sum(map(math.exp, scores))) - scores[label]) / EACH
        levels = row[EACH * len(LABELS) :]
        for patch in range(4):
            for colour in range(3):
                true = pixels[cell, patch, colour].mean().item()
                total += (levels[3 * patch + colour] - true) ** 2 / 12
    close(found, torch.tensor(total), tolerance=1e-5)
    assert objective.units(batch) == len(batch.cells) == len(said)


def test_only_eyes_and_the_map_beside_them_get_gradients(start, batch):
    student = load_model(start, device="cpu").requires_grad_(True)
    objective = lesson(student)
    objective(batch).backward()
    reached = {name for name, x in student.named_parameters() if x.grad is not None}
    assert reached == {name for name, _ in student.named_parameters() if name.startswith("model.visual.")}
    assert all(x.grad.norm() > 0 for x in objective.beside.parameters())
    assert reached == {name for name, _ in student.named_parameters() if objective.reaches(name)}
    freezing.freeze(student, tiny.EYES)
    assert set(freezing.learning(student)) == reached


def test_what_the_lesson_cannot_teach_is_told(start, processor, batch, tmp_path):
    student = load_model(start, device="cpu").requires_grad_(True)
    with pytest.raises(ValueError, match=r"Layout teaches nothing to model.language_model.*which should learn"):
        trainer.train(Layout(student), [], tmp_path / "out", settings(), quiet=True)
    assert not (tmp_path / "out").exists()
    plain = collate([Conversations(TinyWorld("train", 0, ["colour"]), processor)[0]], processor.config)
    with pytest.raises(ValueError, match="have no cells; their examples should come from DrawnConversations"):
        Layout(student).units(plain)


def test_the_map_learns_and_the_decoder_stays_as_it_was(start, processor, tmp_path):
    student = load_model(start, device="cpu")
    before = {name: x.clone() for name, x in student.state_dict().items()}
    freezing.freeze(student, tiny.EYES)
    objective = Layout(student)
    data = DrawnConversations(TinyWorld("train", 0, ["colour"]), processor)
    trainer.train(objective, data, tmp_path, settings(steps=2), quiet=True)
    assert objective.beside.weight.norm() > 0
    moved = {name for name, x in student.state_dict().items() if not torch.equal(x, before[name])}
    assert moved
    assert all(name.startswith("model.visual.") for name in moved)


# Kept examples


class Few:
    """A word or two about one or two pictures each, drawn on the way."""

    def __init__(self, processor):
        self.source = DrawnConversations(TinyWorld("train", 3, ["colour", "same", "reading"]), processor)

    def __getitem__(self, number):
        return self.source[number]


@pytest.mark.parametrize(("workers", "at_once"), [(0, 2), (2, 3), (0, 100)])
def test_drawn_examples_are_the_sources_own_with_pixels_to_half_precision(processor, workers, at_once):
    source = Few(processor)
    found = drawn(source, 5, workers=workers, at_once=at_once)
    assert len(found) == 5
    for number, one in enumerate(found):
        assert one.pixels.equal(source[number].pixels.half())
        assert one.cells.equal(source[number].cells)
        for name in ("ids", "positions", "labels", "grids"):
            assert getattr(one, name).equal(getattr(source[number], name)), name
    assert len({len(one.ids) for one in found}) > 1, "examples of other lengths"
    assert len({len(one.grids) for one in found}) > 1, "one picture and two"


@pytest.mark.parametrize("at_once", [2, 100])
def test_seen_examples_have_what_eyes_see_in_place_of_pixels(teacher, processor, at_once):
    source = Few(processor)
    examples = drawn(source, 5)
    wanted = with_vectors(teacher, [source[number] for number in range(5)])
    for one, other in zip(seen(teacher, examples, at_once=at_once), wanted, strict=True):
        assert one.pixels is None
        assert one.cells is None
        assert one.vectors.dtype == torch.float16
        close(one.vectors.float(), other.vectors, tolerance=2e-3)
        for name in ("ids", "positions", "labels", "grids"):
            assert getattr(one, name).equal(getattr(other, name)), name


def test_what_is_kept_takes_no_more_room_than_it_shows(teacher, processor):
    """Nothing holds on to what all came in, neither pixels nor vectors."""
    examples = drawn(Few(processor), 3)
    for one, other in zip(examples, seen(teacher, examples), strict=True):
        assert one.pixels.untyped_storage().nbytes() == one.pixels.nbytes
        assert other.vectors.untyped_storage().nbytes() == other.vectors.nbytes


def test_a_file_gives_back_what_was_kept_to_those_who_ask_for_just_this(teacher, processor, tmp_path):
    parts = {"some": seen(teacher, drawn(Few(processor), 5)), "one": seen(teacher, drawn(Few(processor), 1))}
    path = tmp_path / "seen.safetensors"
    assert kept.load(path, told="few") is None
    kept.save(path, parts, told="few")
    found = kept.load(path, told="few")
    assert {part: len(examples) for part, examples in found.items()} == {"some": 5, "one": 1}
    for part, examples in parts.items():
        for one, other in zip(examples, found[part], strict=True):
            for name in ("ids", "positions", "labels", "grids", "vectors"):
                assert getattr(one, name).equal(getattr(other, name)), name
    assert kept.load(path, told="others") is None
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_leaves_no_half_of_a_file_and_is_told(teacher, processor, tmp_path, monkeypatch):
    def full(*_, **__):
        (tmp_path / "seen.safetensors.draft").write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(saving, "save_file", full)
    with pytest.raises(OSError, match=r"seen.safetensors could not be written \(No space left.*make room and"):
        kept.save(tmp_path / "seen.safetensors", {"some": seen(teacher, drawn(Few(processor), 1))}, told="few")
    assert not list(tmp_path.iterdir())


def test_lessons_of_streams_without_any_are_told():
    with pytest.raises(ValueError, match="there are no streams; there should be at least one"):
        Lessons([], [], batch=2, every=3)
