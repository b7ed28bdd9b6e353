"""A report as one HTML file that needs nothing beside itself and runs no scripts, on light screens and on dark ones.

Whatever was asked, answered or named is text in it, also where it looks like HTML. Pictures and plots are in the file.
A wide table becomes a list of cards on a phone.
"""

import base64
import contextlib
import html
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --quiet: #666; --line: #ddd; --fault: #b00;
  --one: #007a59; --two: #b84f00; --three: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e6e6e6; --quiet: #a0a0a0; --line: #3a3d42;
  --fault: #ff8a80; --one: #3dc29b; --two: #f08c4a; --three: #6bb8e8; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: 0.2rem 1.5rem 0.2rem 0; vertical-align: top; overflow-wrap: anywhere; }
th { font-weight: normal; color: var(--quiet); white-space: nowrap; }
figure { display: inline-block; margin: 0 0.6rem 0.6rem 0; }
figcaption { color: var(--quiet); font-size: 0.85rem; }
img { display: block; max-width: 240px; }
svg { max-width: 100%; height: auto; }
svg text { font-family: inherit !important; }
.asked { display: flex; gap: 1.2rem; margin-bottom: 1.5rem; align-items: flex-start; }
.asked > div { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.asked p { margin: 0 0 0.5rem; white-space: pre-wrap; }
.asked figure { flex: none; width: 240px; }
.question { font-weight: 600; }
.fault { color: var(--fault); }
.rows { width: 100%; }
.rows td, .rows th { padding: 0.6rem 1rem 0.6rem 0; border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
@media (max-width: 640px) {
  .asked { flex-direction: column; gap: 0; }
  .rows thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
  .rows tr { display: block; padding: 0.6rem 0; border-bottom: 1px solid var(--line); }
  .rows td { display: block; padding: 0.1rem 0; border: 0; }
  .rows td[data-label]::before { content: attr(data-label) ": "; color: var(--quiet); }
}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

# A plot is drawn in these and shown in the page's own, which a dark screen changes.
INK, ONE, TWO, THREE = "#222222", "#009e73", "#d55e00", "#0072b2"
SHOWN = {INK: "var(--ink)", ONE: "var(--one)", TWO: "var(--two)", THREE: "var(--three)"}
PLOTS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "page",  # the same drawing, the same words
    "font.size": 11,
    "legend.framealpha": 0,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def page(title: str, parts: list[str], *, style: str = "") -> str:
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<meta name='viewport' content='width=device-width'>"
        f"<title>{text(title)}</title><style>{STYLE}{style}</style></head>\n<body>\n" + "\n".join(parts) + "\n"
        "</body></html>\n"
    )


def write(path: Path, page: str) -> None:
    path.write_text(page, encoding="utf-8", errors="replace")


def text(words: object) -> str:
    return html.escape(str(words))


def section(title: str, parts: list[str]) -> list[str]:
    return [f"<h2>{title}</h2>", *parts] if parts else []


def table(rows: dict[str, object]) -> str:
    """A name and a value to a row."""
    cells = (f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(cells)}</table>"


def grid(names: Sequence[str], cells: Sequence[Sequence[str]], *, look: str = "rows") -> str:
    """A table with names above its columns; its cells are HTML. With the look of "rows" it is cards on a phone."""
    labels = [f" data-label='{text(name)}'" if name else "" for name in names]
    head = "".join(f"<th scope='col'>{text(name)}</th>" for name in names)
    lines = ("".join(f"<td{label}>{cell}</td>" for label, cell in zip(labels, row, strict=True)) for row in cells)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table class='{look}'><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def picture(image: Image.Image, words: str, *, kind: str = "JPEG", look: str = "") -> str:
    """The picture itself; `words` stand for it where it can't be seen."""
    file = io.BytesIO()
    image.save(file, kind, quality=80)
    data = base64.b64encode(file.getvalue()).decode()
    about = f"class='{look}' " * bool(look) + f"alt='{text(words)}' width='{image.width}' height='{image.height}'"
    return f"<img {about} src='data:image/{kind.lower()};base64,{data}'>"


def figure(image: Image.Image, caption: str) -> str:
    """A picture and what is to be said about it."""
    return f"<figure>{picture(image, '')}<figcaption>{text(caption)}</figcaption></figure>"


@contextlib.contextmanager
def drawing(width: float, height: float) -> Iterator:
    """A figure of matplotlib's, in inches, that has the page's colours; to be drawn on within the block."""
    import matplotlib  # takes a second to import
    from matplotlib.figure import Figure

    with matplotlib.rc_context(PLOTS):
        yield Figure(figsize=(width, height), layout="constrained")


def svg(drawn, name: str, words: str) -> str:
    """The drawing for the page. `name` is its own among the page's drawings, `words` stand for it."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context(PLOTS):
        drawn.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :]  # without the head of a file of its own
    drawn = re.sub(r'<style type="text/css">.*?</style>|\s+xmlns(:xlink)?="[^"]*"', "", drawn)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', drawn))
    drawn = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", drawn)
    drawn = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", drawn)
    for colour, shown in SHOWN.items():
        drawn = drawn.replace(colour, shown)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{text(words)}" stroke-linejoin="round"', 1)
