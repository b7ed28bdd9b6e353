"""README.md and docs/*.md are run, not believed: tests/pages.py says how a page is read.

Blocks run and print what the page shows; links and anchors resolve; paths and names in backticks exist; commands exist.
On the pages of the ladder every figure in prose (with a decimal point, an exponent, or from 1,000 upwards) stands in a
block, an output or a checked comment of the same page.
"""

import importlib.util

import pytest
import torch

from . import pages

DOCS = pages.ROOT / "docs"
PAGES = [page for page in [pages.ROOT / "README.md", *sorted(DOCS.glob("*.md"))] if page.exists()]
RUNGS = ("linear-attention", "delta-rule", "wy", "gated-delta-rule", "sliding-window", "short-convolution", "rotary")
LADDER = [DOCS / f"{name}.md" for name in (*RUNGS, "hybrid-block", "vision", "stream", "conventions-and-traps")]


@pytest.fixture(autouse=True)
def _as_it_was():
    """A page may choose its own default dtype, seed and gradient mode; none of it outlives the page."""
    dtype, random, gradients = torch.get_default_dtype(), torch.get_rng_state(), torch.is_grad_enabled()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_rng_state(random)
    torch.set_grad_enabled(gradients)


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(pages.ROOT)))


def missing_commands(page):
    for place, words in pages.commands(page):
        pages.assert_command_exists(place, words)


@each_page
def test_every_block_runs_and_every_figure_is_computed(page):
    evidence = pages.run(page)
    if page in LADDER:
        assert not pages.unproven_figures(page, evidence)


@each_page
def test_every_link_leads_somewhere(page):
    assert not pages.dead_links(page)


@each_page
def test_every_name_in_backticks_exists(page):
    assert not pages.missing_names(page)


@each_page
def test_every_command_exists(page):
    missing_commands(page)


def test_the_ladder_is_complete_and_every_page_is_in_the_index():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in LADDER if not page.exists()] == []
    unlisted = [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"]({page.name}" not in index]
    assert unlisted == []


def test_the_pictures_are_what_their_script_draws():
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, drawing in script.pictures().items():
        assert (DOCS / name).read_text(encoding="utf-8") == drawing, f"run python docs/pictures.py for {name}"


@pytest.mark.parametrize(
    ("fault", "finder"),
    [
        ("```python\nassert 1 == 2\n```", pages.run),
        ("```python\nprint(1)\n```\n```output\n2\n```", pages.run),
        ("```python\nprint('~3e-05')\n```\n```output\n~3e-07\n```", pages.run),
        ("```python\nprint(1)\n```", pages.run),
        ("It is 5<!-- = 2 + 2 -->.", pages.run),
        ("[there](nowhere.md)", pages.dead_links),
        ("# A heading\n[there](#another-heading)", pages.dead_links),
        ("`minivl/ops/nothing.py`", pages.missing_names),
        ("`delta_rule.nothing`", pages.missing_names),
        ("`minivl.ops.delta_rule.nothing(k)`", pages.missing_names),
        ("It is 15<!-- = 5 -->.", pages.run),
        ("It takes 1.5 seconds.", lambda page: pages.unproven_figures(page, pages.run(page))),
        ("```console\n$ python -m minivl.nothing\n```", missing_commands),
        ("```console\n$ pip install -r nothing.txt\n```", missing_commands),
    ],
)
def test_a_false_page_is_caught(fault, finder, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(fault, encoding="utf-8")
    if finder in (pages.run, missing_commands):
        with pytest.raises((AssertionError, ModuleNotFoundError)):
            finder(page)
    else:
        assert finder(page)
