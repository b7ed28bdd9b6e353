"""Counts, sizes and times in README and docs can't grow false: each is computed, looked up, or said with its machine.

A sentence that states a count or a size is in the table of tests/sizes.py, or its number stands in a block or a checked
comment of its page (tests/pages.py), or it was measured: then its section names the machine, or the compiler run, that
it comes from. A sentence that states a time was measured. What was measured is on one page, docs/measurements.md.
Whoever writes a new number finds here which of the three it lacks.
"""

import json
import re
from pathlib import Path

import pytest

from minivl.bench import MEASUREMENTS

from . import pages
from .sizes import CLAIMS, WORDS

ROOT, DOCS = pages.ROOT, pages.ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "notebooks" / "README.md", *sorted(DOCS.glob("*.md"))]
MEASURED = DOCS / "measurements.md"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.page}: {claim.pattern}")
def test_what_a_page_says_of_a_count_or_a_size_is_so_today(claim):
    text = pages.COMMENT.sub("", (ROOT / claim.page).read_text(encoding="utf-8"))
    said = {match.groups() for match in re.finditer(claim.pattern, text)}
    assert said, f"{claim.page} no longer says this; take it out of the table, or say it in these words"
    assert said == {claim.expected}


# What stands nowhere in the table ------------------------------------------------------------------------------------

NUMBER = r"(?<![\w.,×])\d[\d,]*(?:\.\d+)?"
COUNTED = r"lines|tests|assignments|notebooks|mistakes|wrong versions|parameters|pages"
SIZE = re.compile(rf"({NUMBER})\s?(?:[KMGT]i?B|kB|bytes|{COUNTED})\b")
SPELLED = re.compile(rf"\b({'|'.join([*WORDS[2:], 'dozen'])}) ({COUNTED})\b")
TIME = re.compile(rf"(?:{NUMBER}|\b(?:{'|'.join(WORDS[2:])}))(?:\s?(?:ms|µs|s)|\s(?:seconds|minutes|hours|days))\b")
MACHINE = re.compile(r"\bH\d00\b|\bXeon\b|\bCPU core|\bon two cores|kernels\.resources\b")
CARD = re.compile(r"\bcards?\b|\bheld\b|\bfits? into\b")  # what a card is called by is no claim

# Neither measured here nor checked: words of the pages' own, each with the reason.
LET_BE = {
    "docs/course.md": ("five minutes for two questions",),  # advice
}


def sections(page: Path) -> list[tuple[list[pages.Piece], str]]:
    """(lines of prose, all text) of a page's head and of each `##` section."""
    found: list[list[pages.Piece]] = [[]]
    for piece in pages.pieces(page):
        if not piece.kind and re.match(r"## ", piece.text):
            found.append([])
        found[-1].append(piece)
    return [([x for x in section if not x.kind], "\n".join(x.text for x in section)) for section in found]


def proven(page: Path) -> set[str]:
    """Numbers in a page's blocks, and those that a checked comment ends in."""
    numbers = set()
    for piece in pages.pieces(page):
        if piece.kind:
            numbers |= set(re.findall(NUMBER, piece.text.replace("_", ",")))
        for check in pages.CHECK.finditer(piece.text) if not piece.kind else ():
            numbers |= set(re.findall(NUMBER, pages.COMMENT.sub("", piece.text[: check.start()]))[-1:])
    return numbers


def unfounded(page: Path) -> list[str]:
    """Sizes, counts and times of a page that nothing stands behind."""
    name, known, found = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else page.name, proven(page), []
    patterns = [re.compile(claim.pattern) for claim in CLAIMS if claim.page == name]
    for prose, text in sections(page):
        measured = bool(MACHINE.search(text))
        for piece in prose:
            words = pages.COMMENT.sub("", piece.text)
            held = [match.span() for pattern in patterns for match in pattern.finditer(words)]
            held += [match.span() for let in LET_BE.get(name, ()) for match in re.finditer(re.escape(let), words)]
            for kind in (SIZE, SPELLED, TIME):
                for match in kind.finditer(words):
                    number = match[1] if kind is not TIME else ""
                    if (measured and kind is not SPELLED) or any(a <= match.start() < b for a, b in held):
                        continue
                    if kind is SIZE and (number in known or ("GB" in match[0] and CARD.search(words))):
                        continue
                    found.append(f"{name}:{piece.line}: {match[0]}")
    return found


@each_page
def test_every_size_is_computed_or_measured_and_every_time_has_its_machine(page):
    assert not unfounded(page), "put it into CLAIMS, compute it on the page, or name its machine in its section"


@pytest.mark.parametrize(
    "said",
    [
        "It has 300 lines.",
        "There are seven assignments.",
        "It takes 3.1 GB.",
        "It takes 12 ms.",
        "It takes ten seconds.",
        "It is 7 MB<!-- = 7 --> and 8 MB.",
        "## One\nOn an H200.\n## Two\nIt takes 5 µs.",
        "On an H200 there are seven tests.",
        "The model takes 24 GB.",
    ],
)
def test_a_number_that_nothing_stands_behind_is_found(said, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(said + "\n", encoding="utf-8")
    assert unfounded(page)


@pytest.mark.parametrize(
    "said",
    ["On an H200 it takes 12 ms.", "7 MB<!-- = 7 -->", "```output\n7 MB\n```\nIt takes 7 MB.", "A card of 24 GB."],
)
def test_a_number_that_something_stands_behind_is_let_be(said, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(said + "\n", encoding="utf-8")
    assert not unfounded(page)


@pytest.mark.parametrize("page", LET_BE)
def test_what_is_let_be_is_still_said(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [words for words in LET_BE[page] if words not in text] == []


# The page of measurements ---------------------------------------------------------------------------------------------


def test_every_file_of_figures_is_on_the_page_of_measurements():
    text = MEASURED.read_text(encoding="utf-8")
    files = sorted(path.name for path in DOCS.glob("*.json"))
    assert files, "no figures at all"
    assert [name for name in files if name not in text] == []


def test_every_measuring_command_is_on_the_page_of_measurements():
    text = MEASURED.read_text(encoding="utf-8")
    assert [name for name in MEASUREMENTS if f"bench {name}" not in text] == []


def test_every_page_that_names_a_machine_is_linked_from_the_page_of_measurements():
    links = {target.partition("#")[0] for piece in pages.prose(MEASURED) for target in pages.LINK.findall(piece.text)}
    others = {"README.md", "measurements.md", "neighbours.md"}  # an index, the page itself, and others' machines
    measured = [page.name for page in DOCS.glob("*.md") if MACHINE.search(page.read_text(encoding="utf-8"))]
    assert sorted(set(measured) - others - links) == []


def test_runs_on_the_page_of_measurements_are_of_the_machine_that_it_names():
    """The prose speaks of one card; a run of another one needs words of its own."""
    found = {
        name: json.loads((DOCS / name).read_text(encoding="utf-8"))
        for name in ("kernels.json", "streaming-speed.json", "drift.json")
    }
    cards = {
        found["kernels.json"]["device"],
        *(found[name]["on"]["gpu"] for name in ("streaming-speed.json", "drift.json")),
    }
    assert cards == {"NVIDIA H200"}
