"""The tiny world's pictures: they show what the record says, whole and legible, with labels on the right cells."""

import dataclasses
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minivl.train import contact_sheet, drawing, fonts, lettering, splits, texts
from minivl.train.drawing import CELL, HUES, LABELS, PATCH
from minivl.train.lettering import Line
from minivl.train.splits import COLOURS, SPLITS, Draw
from minivl.train.tiny_settings import Settings
from minivl.train.tiny_world import KINDS, TinyWorld

PLAIN = Settings(variation=0)
each_kind = pytest.mark.parametrize("kind", KINDS)
indices = st.integers(0, 10**6)


@pytest.fixture
def canvases(monkeypatch):
    """The canvases of whatever is drawn, as they were when they were finished."""
    kept, finished = [], drawing.Canvas.finished
    monkeypatch.setattr(drawing.Canvas, "finished", lambda self, *rest: kept.append(self) or finished(self, *rest))
    return kept


@pytest.mark.parametrize("kind", ["colour", "count", "same", "more", "larger"])
@given(index=indices, split=st.sampled_from(SPLITS))
def test_what_the_record_says_is_in_the_picture_and_nothing_else(kind, index, split):
    sample = TinyWorld(split, settings=PLAIN).of(kind, index)
    for picture, scene in zip(sample.pictures, sample.record["scenes"], strict=True):
        pixels = np.asarray(picture.image).astype(int)
        painted = pixels.min(-1) < 235
        for thing in scene:
            middle = pixels[int(thing["y"]), int(thing["x"])]
            off = {name: np.abs(middle - drawing.RGB[name]).sum() for name in COLOURS}
            assert min(off, key=off.get) == thing["colour"]
            rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
            near = (rows + 0.5 - thing["y"]) ** 2 + (columns + 0.5 - thing["x"]) ** 2 <= (thing["radius"] + 1) ** 2
            assert (painted & near).sum() > 0.25 * near.sum()
            painted &= ~near
        assert not painted.any()


@given(index=indices, split=st.sampled_from(SPLITS))
def test_bars_are_as_high_as_the_record_says(index, split):
    sample = TinyWorld(split, settings=PLAIN).of("value", index)
    pixels = np.asarray(sample.images[0]).astype(int)
    coloured = np.ptp(pixels, axis=-1) > 60
    coloured |= pixels.max(-1) < 25  # black bars; the axis and the letters are lighter than that, or are below
    heights = coloured[:94, 20:108].sum(0)
    bars = [int(run[0]) for run in np.split(heights, np.flatnonzero(np.diff(heights)) + 1) if run[0]]
    assert len(bars) == len(sample.record["heights"])
    assert [round(bar / 9) for bar in bars] == sample.record["heights"]
    assert bars == [9 * height for height in sample.record["heights"]]


# Labels


def without(line: Line, at: int) -> Line:
    """The same line with the ink of one character gone."""
    glyphs = list(line.glyphs)
    ink, *rest = glyphs[at]
    glyphs[at] = (Image.new("L", ink.size), *rest)
    return dataclasses.replace(line, glyphs=tuple(glyphs))


@given(index=indices, split=st.sampled_from(SPLITS))
def test_erasing_a_character_changes_its_own_cells_and_no_others(index, split):
    """Labels are found once more, from the picture alone: which character's going changes a patch most?"""
    draw = Draw.of(0, split, 99, index)
    text = draw.text(8)
    line, pose, _ = texts.fitting(draw, text, draw.pick(draw.fonts), draw.between(15, 32), (220, 26), 1.0)

    def drawn(line: Line) -> tuple[np.ndarray, np.ndarray]:
        canvas = drawing.Canvas(224, 28, (255, 255, 255))
        canvas.write(line, (112, 14), (0, 0, 0), pose)
        return np.asarray(canvas.image)[:, :, 0].astype(int), canvas.layout()

    whole, layout = drawn(line)
    changes = np.stack([np.abs(drawn(without(line, at))[0] - whole) for at in range(len(text))])
    ink = changes.reshape(len(text), 2, PATCH, 16, PATCH).sum((2, 4)) / 255
    for row, column in np.ndindex(layout.shape):
        label, most = int(layout[row, column]), ink[:, row, column].max()
        if label:
            own = max(ink[at, row, column] for at in range(len(text)) if text[at] == LABELS[label])
            assert own > 0.6 * most
        else:
            assert most < 3 * drawing.LEAST_INK
    for at in range(len(text)):
        gone = drawn(without(line, at))[1]
        assert ((gone == layout) | (ink[at] > 0)).all()


@pytest.mark.parametrize("kind", ["reading", "lines"])
@given(index=indices, split=st.sampled_from(SPLITS), low=st.integers(8, 32), characters=st.integers(4, 16))
def test_the_slots_of_a_row_of_cells_spell_its_line(kind, index, split, low, characters):
    settings = Settings(sizes=(low, 32), characters=characters)
    sample = TinyWorld(split, settings=settings).of(kind, index)
    (picture,) = sample.pictures
    assert picture.image.size == (CELL * characters, CELL * len(sample.record["lines"]))
    for row, line in enumerate(sample.record["lines"]):
        assert "".join(LABELS[label] for label in picture.slots[row].ravel() if label) == line["text"]
        labels = {LABELS[label] for label in picture.layout[2 * row : 2 * row + 2].ravel() if label}
        assert labels <= set(line["text"])


@each_kind
@given(index=indices, split=st.sampled_from(SPLITS))
def test_labels_have_the_shape_of_their_picture_and_name_what_is_on_it(kind, index, split):
    sample = TinyWorld(split).of(kind, index)
    for at, picture in enumerate(sample.pictures):
        width, height = picture.image.size
        assert width % CELL == height % CELL == 0
        assert picture.layout.shape == (height // PATCH, width // PATCH)
        assert picture.inks.shape == picture.layout.shape
        assert picture.slots.shape == picture.hues.shape == (height // CELL, width // CELL, drawing.SLOTS)
        assert ((picture.slots == 0) == (picture.hues == 0)).all()
        assert picture.inks[picture.layout > 0].all(), "whoever has the most ink, a colour has as much"
        if "scenes" in sample.record:
            said = sorted((thing["shape"], thing["colour"]) for thing in sample.record["scenes"][at])
            pairs = zip(picture.slots.ravel(), picture.hues.ravel(), strict=True)
            assert said == sorted((LABELS[label], HUES[hue]) for label, hue in pairs if label)
            assert {shape for shape, _ in said} == {LABELS[label] for label in picture.layout.ravel() if label}
            assert {colour for _, colour in said} == {HUES[label] for label in picture.inks.ravel() if label}


@each_kind
@given(index=indices, split=st.sampled_from(SPLITS))
def test_nothing_is_cut_off_and_nothing_hidden(kind, index, split, canvases):
    canvases.clear()
    TinyWorld(split).of(kind, index)
    for canvas in canvases:
        owners = np.asarray(canvas.owners)
        for edge in (owners[0], owners[-1], owners[:, 0], owners[:, -1]):
            assert not edge.any()
        assert np.bincount(owners.ravel(), minlength=len(canvas.things) + 1)[1:].min() >= 8


@each_kind
@given(index=indices, split=st.sampled_from(SPLITS))
def test_the_middle_of_a_thing_is_where_its_ink_is(kind, index, split, canvases):
    canvases.clear()
    TinyWorld(split).of(kind, index)
    for canvas in canvases:
        owners = np.asarray(canvas.owners)
        for number, (*_, x, y) in enumerate(canvas.things, start=1):
            for at, ink in ((y, (owners == number).any(1)), (x, (owners == number).any(0))):
                first, last = np.flatnonzero(ink)[[0, -1]]
                assert first <= at <= last + 1
                assert abs((first + last + 1) / 2 - at) < 0.2 * (last - first) + 2


@given(index=indices, split=st.sampled_from(SPLITS))
def test_letters_are_as_large_as_the_settings_ask_up_to_22_pixels(index, split):
    sample = TinyWorld(split, settings=Settings(sizes=(22, 32))).of("reading", index)
    assert 22 <= sample.record["lines"][0]["size"] <= 32


# Fonts, colours, sheets


@pytest.mark.parametrize("name", [*fonts.SEEN, *fonts.UNSEEN])
def test_every_font_has_the_whole_alphabet_and_no_two_characters_look_alike(name):
    inks = [lettering.glyph(name, 24, character, 0.0)[0] for character in splits.ALPHABET + ":"]
    assert len({(ink.size, ink.tobytes()) for ink in inks}) == len(inks)
    assert all(np.asarray(ink).sum() > 255 * 6 for ink in inks)
    assert fonts.font(name, 32).getlength("M") > 1.7 * fonts.font(name, 16).getlength("M")


def test_colours_differ_in_grey_too_and_grounds_are_lighter():
    levels = [drawing.brightness(drawing.RGB[name]) for name in COLOURS]
    assert all(after - before >= 25 for before, after in pairwise(levels))
    assert max(levels) + 25 < drawing.brightness((240, 240, 240))


@given(index=indices)
def test_text_stands_out_from_its_ground(index):
    record = TinyWorld().of("lines", index).record
    assert record["contrast"] >= texts.CONTRAST


def test_a_font_that_is_not_there_is_named(monkeypatch, tmp_path):
    import matplotlib

    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"DejaVuSans\.ttf is not there; it should have come with matplotlib"):
        fonts.font.__wrapped__("DejaVuSans", 20)


@pytest.mark.parametrize("labels", [False, True])
def test_a_contact_sheet_shows_every_kind(labels, tmp_path, monkeypatch, capsys):
    path = tmp_path / "new" / "sheet.png"
    arguments = ["contact_sheet", str(path), "--each", "1", *(["--labels", "--scale", "3"] if labels else [])]
    monkeypatch.setattr(sys, "argv", arguments)
    contact_sheet.main()
    with Image.open(path) as sheet:
        assert sheet.height > len(KINDS) * 28
    assert capsys.readouterr().out.strip() == str(path)
