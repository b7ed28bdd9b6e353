"""Pictures that were looked at before: all that is read of them is what is read of their pixels, bit for bit."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minivl.ops.rotary import positions
from minivl.processor import load_processor
from minivl.stream import Stream
from minivl.train import stream_examples
from minivl.train.encoded import EncodedStreams, encoded, with_vectors
from minivl.train.examples import IGNORED, collate
from minivl.train.objectives import AnswerTuning, LayerDistillation, LogitDistillation
from minivl.train.sources import Streams
from minivl.train.tiny_frames import Pool
from minivl.train.tiny_streams import StreamSettings, TinyStreams

from .conversations import CLOSE, IMAGE, OPEN, VISION, batch, conversation
from .fakes import tiny_folder, tiny_model
from .model_claims import new_memory, small_model
from .models import PATTERNS
from .tolerances import close, tolerance
from .training import Endless, example, example_with, student, teacher

SHORT = StreamSettings(distance=(0, 64), lead=(0, 32), facts=3, looks=1, others=16, fps=0.7)


def looked_at(model, arguments: dict) -> dict:
    """The same call, with what the model's own eyes make of the pixels in their place."""
    if "pixels" not in arguments:
        return arguments
    vectors = model.model.visual(arguments["pixels"].to(model.dtype), arguments["grids"])
    return {name: x for name, x in arguments.items() if name != "pixels"} | {"vectors": vectors.detach()}


# The model


@pytest.mark.parametrize("pattern", PATTERNS)
@given(seed=st.integers(0, 999), side=st.sampled_from(["left", "right", "inside"]), last_only=st.booleans())
def test_vectors_give_bit_for_bit_what_their_pixels_give(pattern, seed, side, last_only):
    model = small_model(pattern, seed=seed, dtype=torch.float32)
    given = batch([conversation(3 * seed + row) for row in range(3)], side, seed)
    with torch.no_grad():
        assert model(**looked_at(model, given), last_only=last_only).equal(model(**given, last_only=last_only))


@given(seed=st.integers(0, 999), longest=st.integers(1, 9))
def test_vectors_go_into_a_memory_as_pixels_do(seed, longest):
    model, row = small_model(seed=seed, dtype=torch.float32), conversation(seed, ("image", "video"))
    memories = [new_memory(model, longest_write=longest) for _ in range(2)]
    with torch.no_grad():
        wanted = model(**row.arguments(), memory=memories[0])
        assert model(**looked_at(model, row.arguments()), memory=memories[1]).equal(wanted)
    assert memories[0].next_position.equal(memories[1].next_position)


def test_positions_that_are_given_need_no_grids_and_stored_vectors_come_in_any_dtype():
    model, row = small_model(dtype=torch.float32), conversation(1, ("image", "image"))
    arguments = looked_at(model, row.arguments())
    with torch.no_grad():
        wanted = model(**arguments)
        placed, _ = positions(arguments["ids"], arguments["grids"], config=model.config)
        assert model(arguments["ids"], vectors=arguments["vectors"], positions=placed).equal(wanted)
        rounded = arguments | {"vectors": arguments["vectors"].bfloat16()}
        assert model(**rounded).equal(model(**rounded | {"vectors": rounded["vectors"].float()}))
        assert model(**arguments | {"vectors": arguments["vectors"].double()}).equal(wanted)


def test_the_vectors_a_gradient_is_wanted_of_get_it():
    model, row = small_model(), conversation(1, ("image",))
    arguments = looked_at(model, row.arguments())
    arguments["vectors"].requires_grad_()
    model(**arguments).square().sum().backward()
    assert (arguments["vectors"].grad.norm(dim=1) > 1e-8).all()


ROW, VECTORS, GRIDS = [OPEN, IMAGE, IMAGE, CLOSE, 5], torch.zeros(2, 24), torch.tensor([[1, 2, 4]])


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"pixels": torch.zeros(8, VISION.patch_width)}, ValueError, "pixels and vectors are both given"),
        ({"vectors": VECTORS[:1]}, ValueError, "ids has 2 picture pads and the pictures have 1 cells"),
        ({"ids": [[IMAGE]], "grids": None}, ValueError, "ids has 1 picture pads and the pictures have 2 cells"),
        ({"vectors": torch.zeros(2, 7)}, ValueError, r"vectors has shape \[2, 7\]; it should be \[cells, 24\]"),
        ({"vectors": torch.zeros(1, 2, 24)}, ValueError, r"vectors has shape \[1, 2, 24\]"),
        ({"vectors": torch.zeros(2, 24, dtype=torch.int64)}, TypeError, "vectors is torch.int64"),
        ({"vectors": VECTORS.to("meta")}, ValueError, "vectors is on meta; it should be on cpu, where ids is"),
        ({"grids": GRIDS * 2}, ValueError, "ids has 2 picture pads and grids has 16 merged cells"),
        ({"grids": None}, ValueError, "ids has 2 picture pads and grids has 0 merged cells"),
    ],
)
def test_wrong_vectors_are_named_and_change_nothing(arguments, kind, message):
    model = small_model()
    memory = new_memory(model)
    arguments = {"ids": [ROW], "vectors": VECTORS, "grids": GRIDS, "memory": memory, **arguments}
    arguments["ids"] = torch.tensor(arguments["ids"])
    with pytest.raises(kind, match=message):
        model(**arguments)
    assert memory.next_position.tolist() == [0]


# Examples and batches


def test_all_stages_learn_the_same_from_vectors():
    taught = teacher(dtype=torch.float32)
    learner = student(taught)
    plain = [example(taught.config, number, picture=number != 1) for number in range(4)]
    rows = collate(plain, taught.config)
    seen = collate(with_vectors(taught, plain, at_once=3), taught.config)
    assert seen.pixels is None
    for objective in (AnswerTuning(learner), LayerDistillation(learner, taught), LogitDistillation(learner, taught)):
        close(objective(seen), objective(rows), tolerance=tolerance(torch.float32))
        assert objective.units(seen) == objective.units(rows)
    looked = dataclasses.replace(rows, pixels=None, vectors=taught.model.visual(rows.pixels, rows.grids))
    assert AnswerTuning(learner)(looked).equal(AnswerTuning(learner)(rows))


def test_only_examples_with_pixels_change():
    taught = teacher(dtype=torch.float32)
    plain = [Endless(taught.config)[number] for number in range(4)]
    made = with_vectors(taught, plain)
    assert [one.vectors is not None for one in made] == [False, True, False, True]
    for before, after in zip(plain, made, strict=True):
        assert after.pixels is None
        for name in ("ids", "positions", "labels"):
            assert getattr(after, name).equal(getattr(before, name))
        if after.vectors is None:
            assert after is before
            continue
        assert after.grids.equal(before.grids)
        assert after.vectors.untyped_storage().nbytes() == after.vectors.nbytes  # not a view of all
        close(after.vectors, taught.model.visual(before.pixels, before.grids), tolerance=tolerance(torch.float32))
    assert with_vectors(taught, made)[1] is made[1]


def test_vectors_of_all_rows_go_with_their_batch():
    taught = teacher(dtype=torch.float32)
    rows = with_vectors(taught, [example(taught.config, number, picture=number != 1) for number in range(3)])
    made = collate(rows, taught.config)
    assert made.vectors.equal(torch.cat([rows[0].vectors, rows[2].vectors]))
    assert made.grids.equal(torch.cat([rows[0].grids, rows[2].grids]))
    assert made.arguments["vectors"] is made.vectors
    assert made.to("meta").vectors.is_meta
    assert collate(rows[1:2], taught.config).arguments["vectors"] is None


def test_an_example_or_a_batch_of_both_forms_is_told():
    taught = teacher(dtype=torch.float32)
    plain = example(taught.config, 0, picture=True)
    (seen,) = with_vectors(taught, [plain])
    with pytest.raises(ValueError, match="a batch has rows with pixels and rows with vectors"):
        collate([plain, seen], taught.config)
    for changes, said in (
        ({"pixels": plain.pixels}, "an example has both pixels and vectors"),
        ({"grids": None}, "belong together"),
        ({"vectors": None}, "belong together"),
        ({"vectors": seen.vectors[None]}, r"vectors is torch.float32 \[1, 4, 32\]; it should be .* \[cells, D\]"),
        ({"vectors": seen.vectors.long()}, "vectors is torch.int64"),
    ):
        with pytest.raises(ValueError, match=said):
            example_with(seen, **changes)


# Pools and streams


@pytest.fixture(scope="module")
def eyes():
    """A model, its processor, streams, and their pool as the model sees it."""
    model, processor, streams = tiny_model(), load_processor(tiny_folder()), TinyStreams(settings=SHORT)
    return model, processor, streams, encoded(model, processor, streams.pool)


def test_a_pool_is_seen_as_a_stream_watches_it(eyes):
    model, processor, streams, vectors = eyes
    assert vectors.shape == (len(streams.pool), 4, model.config.hidden_size)
    assert (vectors.dtype, vectors.device.type, vectors.requires_grad) == (torch.float32, "cpu", False)
    stream, heard = Stream(model, processor, size=(56, 56)), []
    hook = model.model.language_model.layers[0].register_forward_hook(lambda _, given, out: heard.append(given[0]))
    for number in (0, 300, len(streams.pool) - 1):
        stream.watch(streams.pool[number].image)
        close(vectors[number], heard[-1][0], tolerance=tolerance(torch.float32))
    hook.remove()


def test_pictures_of_other_sizes_come_at_the_size_that_is_asked_for(eyes):
    model, processor, _, _ = eyes
    draw = np.random.default_rng(0)

    @dataclasses.dataclass
    class Drawn:
        image: Image.Image

    pictures = [Drawn(Image.fromarray(draw.integers(0, 256, (side, 60, 3), dtype=np.uint8))) for side in (60, 56, 90)]
    seen = encoded(model, processor, pictures, size=(56, 84), at_once=2)
    assert seen.shape == (3, 6, model.config.hidden_size)
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    frames = [(picture.image, 0.0) for picture in pictures]
    row = stream_examples.stream_example(processor, frames, messages, size=(56, 84))
    wanted = model.model.visual(row.pixels, row.grids).detach()
    close(seen.flatten(0, 1), wanted, tolerance=tolerance(torch.float32))
    with pytest.raises(ValueError, match=r"size is \(60, 60\); it should be height and width, multiples of 28"):
        encoded(model, processor, pictures)
    with pytest.raises(ValueError, match="there are no pictures to encode"):
        encoded(model, processor, [])
    with pytest.raises(FileNotFoundError, match=r"picture 1: .*no-such\.png"):
        encoded(model, processor, [pictures[0], Drawn("no-such.png")], size=(56, 56))


@given(number=st.integers(0, 999), questions=st.sampled_from([None, 1, 2]))
def test_an_encoded_stream_is_the_stream_but_for_its_pixels(eyes, number, questions):
    model, processor, streams, vectors = eyes
    plain = Streams(streams, processor, size=SHORT.frame, questions=questions)[number]
    made = EncodedStreams(streams, processor, vectors, questions=questions)[number]
    for name in ("ids", "positions", "labels", "grids"):
        assert getattr(made, name).equal(getattr(plain, name)), name
    assert made.vectors.equal(vectors[torch.from_numpy(streams[number].numbers)].flatten(0, 1))
    with torch.no_grad():
        from_pixels, from_vectors = (
            model(row.ids, **row.arguments) for row in (collate([one], model.config) for one in (plain, made))
        )
    close(from_vectors, from_pixels, tolerance=tolerance(torch.float32))


def test_the_first_questions_are_asked_and_no_others(eyes):
    _, processor, streams, vectors = eyes
    asked = streams[5].questions
    for questions, wanted in ((1, asked[:1]), (2, asked[:2]), (None, asked), (99, asked)):
        made = EncodedStreams(streams, processor, vectors, questions=questions)[5]
        said = processor.tokenizer.decode(made.labels[made.labels != IGNORED].tolist())
        assert said == "".join(one.answer for one in wanted)
    for questions in (0, -1):
        with pytest.raises(ValueError, match=f"questions is {questions}; it should be at least 1"):
            Streams(streams, processor, size=SHORT.frame, questions=questions)


def test_the_last_frames_alone_are_a_stream_that_began_later(eyes):
    _, processor, streams, vectors = eyes
    whole = EncodedStreams(streams, processor, vectors)[3]
    cut = EncodedStreams(streams, processor, vectors, frames=2)[3]
    later = len(whole.ids) - len(cut.ids)
    assert later == 4 * (len(streams[3]) - 2) > 0
    assert cut.vectors.equal(whole.vectors[-8:])
    assert cut.ids[1:].equal(whole.ids[1 + later :])
    assert cut.labels[1:].equal(whole.labels[1 + later :])
    assert cut.positions[0, 1:9].tolist() == 4 * [1] + 4 * [1 + 2 * int(1 / 0.7)]
    assert EncodedStreams(streams, processor, vectors, frames=10**6)[3].ids.equal(whole.ids)


def test_a_long_stream_is_looked_up_and_nothing_is_drawn_resized_or_placed_picture_by_picture(eyes, monkeypatch):
    _, processor, _, vectors = eyes
    long = TinyStreams(settings=dataclasses.replace(SHORT, distance=(4096, 4096), lead=(640, 640)))

    def never(*_, **__):
        raise AssertionError("this is work that was to be spared")

    monkeypatch.setattr(Pool, "__getitem__", never)
    monkeypatch.setattr("minivl.train.examples.find_positions", never)
    monkeypatch.setattr("minivl.train.stream_examples.ready", never)
    monkeypatch.setattr("minivl.train.stream_examples.still_patches", never)
    made = EncodedStreams(long, processor, vectors)[0]
    assert len(made.grids) > 1100
    assert len(made.vectors) == 4 * len(made.grids)


def test_other_eyes_are_another_source(eyes):
    _, processor, streams, vectors = eyes

    def told(other=vectors, **options) -> str:
        return EncodedStreams(streams, processor, other, **options).description

    changed = vectors.clone()
    changed[3, 1, 5] += 1e-3
    descriptions = [told(), told(changed), told(vectors.bfloat16()), told(questions=1), told(frames=4)]
    assert len(set(descriptions)) == len(descriptions)
    assert told(vectors.clone()) == told()
    assert repr(streams) in told()


@pytest.mark.parametrize(
    ("change", "options", "kind", "message"),
    [
        (lambda x: x[1:], {}, ValueError, r"vectors has shape \[527, 4, 64\]; it should be \[528, 4, 64\]"),
        (lambda x: x[:, :2], {}, ValueError, r"vectors has shape \[528, 2, 64\]"),
        (lambda x: x.long(), {}, TypeError, "vectors is torch.int64"),
        (lambda x: x, {"frames": 0}, ValueError, "frames is 0; it should be at least 1"),
        (lambda x: x, {"questions": 1.5}, TypeError, "questions is 1.5; it should be a whole number"),
    ],
)
def test_vectors_of_another_pool_are_refused(eyes, change, options, kind, message):
    _, processor, streams, vectors = eyes
    with pytest.raises(kind, match=message):
        EncodedStreams(streams, processor, change(vectors), **options)
