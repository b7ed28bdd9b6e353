"""Files of conversations in the ShareGPT form: read row by row, bad rows skipped, counted and listed."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from minivl.processor import load_processor
from minivl.train.conversation_files import ConversationFile, rows
from minivl.train.examples import example_of

from .fakes import tiny_folder


@pytest.fixture(scope="module")
def processor():
    return load_processor(tiny_folder())


@pytest.fixture
def place(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def row(question: str = "What is it?", answer: str = "A cat.", **more) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def written(place, made, *, lines: bool = False):
    path = place / ("rows.jsonl" if lines else "rows.json")
    text = "\n".join(map(json.dumps, made)) if lines else json.dumps(made, indent=2, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


TRICKY = [row(f'{i} {{[ "quoted\\" ]}} Größe 世界 \\') for i in range(5)] + [row(extra={"deep": [{"er": {}}]})]


@pytest.mark.parametrize("lines", [False, True])
def test_rows_are_found_wherever_brackets_and_quotes_stand(place, lines):
    path = written(place, TRICKY, lines=lines)
    content = path.read_bytes()
    assert [json.loads(content[start:end]) for start, end in rows(path)] == TRICKY


def test_a_row_becomes_the_messages_that_it_means(place, processor):
    both = row("<image>Which?<image>And now", images=["a.png", "a.png"], system="Be short.")
    older = {
        "conversations": [{"from": "human", "value": "Look: <image>"}, {"from": "gpt", "value": "A cat."}],
        "image": "a.png",
    }
    data = ConversationFile(written(place, [both, older]), processor)
    picture = {"type": "image", "image": str(place / "a.png")}
    asked = [picture, {"type": "text", "text": "Which?"}, picture, {"type": "text", "text": "And now"}]
    answer = {"role": "assistant", "content": "A cat."}
    wanted = [{"role": "system", "content": "Be short."}, {"role": "user", "content": asked}, answer]
    assert data.messages(1) == wanted
    assert data.messages(2) == [{"role": "user", "content": [{"type": "text", "text": "Look: "}, picture]}, answer]
    made = [data[number] for number in range(2)]
    assert sorted(len(one.grids) for one in made) == [1, 2]
    longer = max(made, key=lambda one: len(one.grids))
    assert longer.ids.equal(example_of(processor, wanted).ids)


BAD = {
    "no list of messages": {"text": "?"},
    "its image .*gone.png is not there": row("<image>?", images=["gone.png"]),
    "message 1 has a <image> for which there is no image": row("<image>?"),
    "it has 1 images more than tags": row("?", images=["a.png"]),
    "should end with the assistant's answer": {"messages": row()["messages"][:1]},
    "message 1 has the role 'tool'": {"messages": [{"role": "tool", "content": "x"}]},
    "message 2 has a NoneType as its content": {"messages": [row()["messages"][0], {"role": "assistant"}]},
    "its videos are dict; they should be a list of paths": row("?", videos={"a": 1}),
    "message 1 is a str; it should be an object": {"messages": ["hello"]},
}


@pytest.mark.parametrize("said", BAD)
def test_a_bad_row_is_skipped_counted_and_listed(place, processor, said):
    data = ConversationFile(written(place, [row(), BAD[said], row("Which?")]), processor)
    assert data.good == [1, 3]
    assert data.told().startswith("1 of 3 rows skipped: row 2: ")
    assert re.search(said, data.told()), data.told()


def test_a_broken_picture_is_found_late_and_another_row_takes_its_place(place, processor):
    data = ConversationFile(written(place, [row("<image>?", images=["broken.png"]), row()]), processor)
    assert data.told() == "all 2 rows are good"
    made = [data[number] for number in range(4)]
    assert all(one.ids.equal(made[0].ids) for one in made)
    assert "1 of 2 rows skipped: row 1: message 1, part 1: " in data.told()
    again = ConversationFile(data.path, processor)
    assert again.description == data.description
    assert again[3].ids.equal(made[3].ids)


def test_a_row_that_is_too_long_is_skipped(place, processor):
    data = ConversationFile(written(place, [row("word " * 400), row()]), processor, longest=200)
    assert all(len(data[number].ids) <= 200 for number in range(4))
    assert "row 1: it has" in data.told()
    assert "it should have at most 200" in data.told()


def test_a_round_has_every_row_once(place, processor):
    data = ConversationFile(written(place, [row(f"{i}?") for i in range(7)]), processor, seed=3)
    rounds = [[tuple(data[7 * turn + i].ids.tolist()) for i in range(7)] for turn in range(2)]
    assert len(set(rounds[0])) == 7
    assert set(rounds[0]) == set(rounds[1])
    assert rounds[0] != rounds[1]


def test_files_that_are_none_are_told(place, processor):
    with pytest.raises(FileNotFoundError, match="is not there; it should be a file of conversations"):
        ConversationFile(place / "none.json", processor)
    for content in ("", "[]", "hello", '[{"messages": 3}]', json.dumps([row()])[:-20]):
        (place / "rows.json").write_text(content)
        with pytest.raises(ValueError, match="has no row that can be used"):
            ConversationFile(place / "rows.json", processor)


def test_a_file_that_is_cut_off_gives_the_rows_before_the_cut(place, processor):
    path = written(place, [row("One?"), row("Two?")])
    path.write_bytes(path.read_bytes()[:-30])
    data = ConversationFile(path, processor)
    assert data.good == [1]
    assert "row 2: it is not readable as JSON" in data.told()
