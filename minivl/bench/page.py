"""Tables that a measurement puts into a page of the documentation, between two marks that readers do not see.

<!-- figures of NAME -->
the tables of the last run
<!-- end of NAME -->
"""

from pathlib import Path


def marks(name: str) -> tuple[str, str]:
    return f"<!-- figures of {name} -->", f"<!-- end of {name} -->"


def check(page: Path, name: str) -> str:
    """The page's text, if it has the marks."""
    text, (begin, end) = page.read_text(encoding="utf-8"), marks(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"{page} has no place for figures; it should have one line {begin} and, later, one line {end}")
    return text


def with_figures(text: str, name: str, figures: str) -> str:
    begin, end = marks(name)
    before, rest = text.split(begin)
    return f"{before}{begin}\n```text\n{figures}\n```\n{end}{rest.split(end)[1]}"


def fill(page: Path, name: str, figures: str) -> None:
    """Put the tables between the page's marks, in the place of what stood there."""
    page.write_text(with_figures(check(page, name), name, figures), encoding="utf-8")
