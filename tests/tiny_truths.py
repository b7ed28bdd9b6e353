"""What is true of a sample of the tiny world, found without the code that made it: from its record and its question.

`truth(sample)` reads the question's words and answers from the record. `combinations(record)` lists what stands
together on one picture, so that the splits can be held against each other; `digest(sample)` is all of it in one word.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator

ORDER = ("first", "second", "third")


def truth(sample) -> str:
    return TRUTHS[sample.kind](sample.question, sample.record)


def _things(record: dict, picture: int = 0) -> list[dict]:
    return record["scenes"][picture]


def _one(found: list):
    assert len(found) == 1, f"{len(found)} things are meant"
    return found[0]


def _named(record: dict, words: str) -> dict:
    colour, shape = words.split(" ")
    return _one([thing for thing in _things(record) if (thing["colour"], thing["shape"]) == (colour, shape)])


def _reading(question: str, record: dict) -> str:
    assert question == "What is written here?"
    return _one(record["lines"])["text"]


def _lines(question: str, record: dict) -> str:
    return record["lines"][int(re.fullmatch(r"What is written in line (\d+)\?", question)[1]) - 1]["text"]


def _colour(question: str, record: dict) -> str:
    shape = re.fullmatch(r"What colour is the (\w+)\?", question)[1]
    return _one([thing for thing in _things(record) if thing["shape"] == shape])["colour"]


def _shape(question: str, record: dict) -> str:
    colour = re.fullmatch(r"What shape is the (\w+) thing\?", question)[1]
    return _one([thing for thing in _things(record) if thing["colour"] == colour])["shape"]


def _singular(words: str) -> str:
    return words.removesuffix("es") if words.endswith("crosses") else words.removesuffix("s")


def _count(question: str, record: dict) -> str:
    words = _singular(re.fullmatch(r"How many (.+) are there\?", question)[1]).split(" ")
    wanted = {word for word in words if word != "thing"}
    return str(sum(wanted <= {thing["colour"], thing["shape"]} for thing in _things(record)))


def _corner(question: str, record: dict) -> str:
    thing = _named(record, re.fullmatch(r"In which corner is the (.+)\?", question)[1])
    return f"{'top' if thing['y'] < 56 else 'bottom'} {'left' if thing['x'] < 56 else 'right'}"


def _side(question: str, record: dict) -> str:
    names = re.fullmatch(r"On which side of the (.+) is the (.+)\?", question).groups()
    base, thing = (_named(record, name) for name in names)
    across, down = thing["x"] - base["x"], thing["y"] - base["y"]
    assert max(abs(across), abs(down)) >= 2 * min(abs(across), abs(down)), "it is on two sides"
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below"


def _same(question: str, record: dict) -> str:
    first, second = ([tuple(thing.values()) for thing in _things(record, i)] for i in (0, 1))
    assert question == "Are the two pictures the same or different?"
    assert len(first) == len(second)
    assert sum(a != b for a, b in zip(first, second, strict=True)) <= 1
    return "same" if first == second else "different"


def _most(numbers: list[float]) -> str:
    assert numbers.count(max(numbers)) == 1, "two are alike"
    return ORDER[numbers.index(max(numbers))]


def _more(question: str, record: dict) -> str:
    said, words = re.fullmatch(r"Which picture has (more|the most) (\w+)\?", question).groups()
    assert (said == "more") == (len(record["scenes"]) == 2)
    return _most([sum(thing["shape"] == _singular(words) for thing in scene) for scene in record["scenes"]])


def _larger(question: str, record: dict) -> str:
    name, said = re.fullmatch(r"In which picture is the (\w+ \w+) (larger|largest)\?", question).groups()
    assert (said == "larger") == (len(record["scenes"]) == 2)
    assert {f"{_one(scene)['colour']} {_one(scene)['shape']}" for scene in record["scenes"]} == {name}
    radii = [_one(scene)["radius"] for scene in record["scenes"]]
    assert sorted(radii)[-1] > 1.29 * sorted(radii)[-2]
    return _most(radii)


def _highest(question: str, record: dict) -> str:
    assert question == "Which bar is highest?"
    bars = dict(zip(record["labels"], record["heights"], strict=True))
    return _one([label for label in bars if bars[label] == max(bars.values())])


def _value(question: str, record: dict) -> str:
    bars = dict(zip(record["labels"], record["heights"], strict=True))
    return str(bars[re.fullmatch(r"How high is bar (\w)\?", question)[1]])


TRUTHS = {
    "reading": _reading,
    "lines": _lines,
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "corner": _corner,
    "side": _side,
    "same": _same,
    "more": _more,
    "larger": _larger,
    "highest": _highest,
    "value": _value,
}


def fonts(record: dict) -> set[str]:
    return {line["font"] for line in record.get("lines", ())} | ({record["font"]} if "font" in record else set())


def combinations(record: dict) -> Iterator[set[tuple[str, str]]]:
    """For each picture of a sample: the pairs of characters side by side, or of colour and shape."""
    if "scenes" in record:
        yield from ({(thing["colour"], thing["shape"]) for thing in scene} for scene in record["scenes"])
    elif "labels" in record:
        yield neighbours([record["labels"]])
    else:
        yield neighbours([line["text"] for line in record["lines"]])


def neighbours(texts: list[str]) -> set[tuple[str, str]]:
    """In alphabetical order: the rule does not ask which comes first."""
    return {tuple(sorted(pair)) for text in texts for pair in itertools.pairwise(text)}


def digest(sample) -> str:
    told = json.dumps([sample.kind, sample.question, sample.answer, sample.record], sort_keys=True)
    arrays = (y for x in sample.pictures for y in (x.image, x.layout, x.slots, x.inks, x.hues))
    drawn = b"".join(y.tobytes() for y in arrays)
    return hashlib.sha256(told.encode() + drawn).hexdigest()
