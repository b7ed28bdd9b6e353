"""Reading a page of the documentation: its blocks and its prose, what it claims, and whether the claims hold.

The blocks of one page share a namespace, in order. Four marks tie words to numbers:

    ```python             is executed; an exception shows the page's own line number
    ```output             is, to the letter, what the block before it prints; of a number after ~ (a rounding error,
                          which differs between processors) only the order of magnitude must be right
    63%<!-- = expr -->    the words before the comment end with what the expression gives, evaluated at that place
    ```console            shows commands only, or commands after "$ "; every module, script, option of ours and
                          requirements file that a command names must exist

Every function takes a path and returns what it found; tests/test_docs.py asserts that there is nothing to find.
"""

import contextlib
import functools
import importlib
import importlib.util
import io
import itertools
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OPS = tuple(path.stem for path in (ROOT / "minivl" / "ops").glob("[a-z]*.py"))

CHECK = re.compile(r"<!-- = (.+?) -->")
COMMENT = re.compile(r"<!--.*?-->")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")
PATH = r"(?:minivl|kernels|tests|docs|notebooks)/[\w./*-]*"
NAME = re.compile(rf"({PATH}|(?:minivl|kernels|{'|'.join(OPS)})(?:\.[A-Za-z_]\w*)+)(?:\(|$)")
FIGURE = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?:e[+-−]?\d+)?(?![\w])")
ROUGHLY = re.compile(r"~(-?[\d.]+(?:e[+-]?\d+)?)")


@dataclass
class Piece:
    """A fenced block (kind: its language) or one line of prose (kind: ""), with the line it starts on."""

    line: int
    kind: str
    text: str


def pieces(page: Path) -> list[Piece]:
    found, fence = [], None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            if fence is None:
                fence = Piece(number + 1, line[3:].split(" ")[0] or "text", "")
            else:
                found.append(fence)
                fence = None
        elif fence is not None:
            fence.text += line + "\n"
        else:
            found.append(Piece(number, "", line))
    assert fence is None, f"{page.name}:{fence.line - 1}: this fence is never closed"
    return found


def prose(page: Path) -> list[Piece]:
    return [piece for piece in pieces(page) if not piece.kind]


def agrees(said: str, printed: str) -> bool:
    """The same text, each number after ~ within a factor of ten of its counterpart."""
    said, printed = (re.sub(r"[ \t]+", " ", text.strip()) for text in (said, printed))
    if ROUGHLY.sub("~", said) != ROUGHLY.sub("~", printed):
        return False
    pairs = zip(ROUGHLY.findall(said), ROUGHLY.findall(printed), strict=True)
    return all(abs(float(a)) <= 10 * abs(float(b)) and abs(float(b)) <= 10 * abs(float(a)) for a, b in pairs)


def run(page: Path) -> list[str]:
    """Execute a page from top to bottom; return all the text that its blocks and checks stand for."""
    names, printed, last = {"__name__": "page"}, "", None
    evidence = []
    for piece in pieces(page):
        place = f"{page.name}:{piece.line}"
        if piece.kind == "python":
            assert not printed, f"{place}: the block before prints {printed!r}, and the page does not show it"
            code = compile("\n" * (piece.line - 1) + piece.text, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, names)
            printed, last = out.getvalue(), piece
        elif piece.kind == "output":
            assert last is not None, f"{place}: no block before this output"
            assert agrees(piece.text, printed), f"{place}: the page says\n{piece.text}\nbut the block prints\n{printed}"
            printed = ""
        for check in CHECK.finditer(piece.text) if not piece.kind else ():
            value, said = str(eval(check[1], names)), COMMENT.sub("", piece.text[: check.start()])
            whole = rf"(?<![\w.,]){re.escape(value)}$"
            assert re.search(whole, said), f"{place}: {check[1]} is {value}, but the page says …{said[-30:]!r}"
            evidence.append(value)
        if piece.kind:
            evidence.append(piece.text)
    assert not printed, f"{page.name}: the last block prints {printed!r}, and the page does not show it"
    return evidence


def anchors(page: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    slugs, seen = set(), {}
    for piece in prose(page):
        if heading := re.match(r"#{1,6} +(.*)", piece.text):
            slug = re.sub(r"[^\w\- ]", "", heading[1].strip().lower()).replace(" ", "-")
            seen[slug] = seen.get(slug, -1) + 1
            slugs.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
    return slugs


def dead_links(page: Path) -> list[str]:
    dead = []
    for piece in prose(page):
        for target in LINK.findall(CODE.sub("", piece.text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            if not there.exists() or (anchor and (there.suffix != ".md" or anchor not in anchors(there))):
                dead.append(f"{page.name}:{piece.line}: {target}")
    return dead


def exists(name: str) -> bool:
    """Whether a path (minivl/ops/wy.py) or a dotted name (minivl.ops.delta_rule.wy, or delta_rule.wy) is there."""
    if "/" in name:
        return any(ROOT.glob(name.rstrip("/")))
    if name.split(".")[0] in OPS:
        name = f"minivl.ops.{name}"
    thing = importlib.import_module(name.split(".")[0])
    for part in name.split(".")[1:]:
        if not hasattr(thing, part) and hasattr(thing, "__path__"):
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(f"{thing.__name__}.{part}")
        if not hasattr(thing, part):
            return False
        thing = getattr(thing, part)
    return True


def missing_names(page: Path) -> list[str]:
    return [
        f"{page.name}:{piece.line}: {found[1]}"
        for piece in prose(page)
        for code in CODE.findall(piece.text)
        if (found := NAME.match(code)) and not exists(found[1])
    ]


def unproven_figures(page: Path, evidence: list[str]) -> list[str]:
    proven = {float(figure.replace(",", "")) for text in evidence for figure in FIGURE.findall(text.replace("~", " "))}
    unproven = []
    for piece in prose(page):
        words = COMMENT.sub("", LINK.sub("", CODE.sub("", piece.text)))
        for figure in FIGURE.findall(words):
            plain = figure.replace(",", "").replace("−", "-")
            if (re.search(r"[.e]", plain) or float(plain) >= 1000) and float(plain) not in proven:
                unproven.append(f"{page.name}:{piece.line}: {figure}")
    return unproven


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """(place, words) of every command in a console block."""
    found = []
    for block in pieces(page):
        if block.kind not in ("console", "sh", "bash", "shell"):
            continue
        lines = block.text.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        for line in prompted or lines:
            for command in re.split(r"&&|\|\||;|\|", line.split(" #")[0]):
                if words := command.split():
                    found.append((f"{page.name}:{block.line}", words))
    return found


@functools.cache
def help_text(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", *words, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"python -m {' '.join(words)} --help fails:\n{done.stderr[-500:]}"
    return done.stdout


def assert_command_exists(place: str, words: list[str]) -> None:
    while re.fullmatch(r"\w+=\S*", words[0]):  # settings of the environment
        words = words[1:]
    said = f"{place}: {' '.join(words)}"
    if Path(words[0]).name in ("python", "python3") and len(words) > 1:
        if words[1] == "-m":
            assert importlib.util.find_spec(words[2]), f"{said}: there is no module {words[2]}"
            if words[2].split(".")[0] in ("minivl", "kernels"):
                subcommands = itertools.takewhile(lambda word: re.fullmatch(r"[a-z][a-z0-9-]*", word), words[3:])
                text = help_text(words[2], *subcommands)
                for option in (word.split("=")[0] for word in words if word.startswith("--")):
                    assert option in text, f"{said}: its help knows no {option}"
        elif not words[1].startswith("-"):
            assert (ROOT / words[1]).exists(), f"{said}: there is no {words[1]}"
    for file in (after for before, after in itertools.pairwise(words) if before == "-r"):
        assert (ROOT / file).exists(), f"{said}: there is no {file}"
