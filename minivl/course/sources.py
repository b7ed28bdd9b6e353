"""A package as texts: function bodies taken out, edits put in, and a student's functions set among the reference's.

A tree is {path: text}, say {"minivl/ops/delta_rule.py": "…"}. A function is named as in a sentence, "ops.delta_rule.wy"
or "ops.sliding_window.Ring.write"; a file of the student's own beside the package is named alike, "properties.check".
Functions are found by the syntax tree and replaced by whole lines, so that all else keeps every comment and space.
"""

import ast
import functools
import io
import textwrap
from dataclasses import dataclass
from pathlib import Path

Tree = dict[str, str]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Edit:
    """In the function (or class, or whole file) `where`, this text, which stands there once, becomes that text."""

    where: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Lines:
    """Where a function or class stands, counted from 0: its first line, the end of its signature, its body's first line
    after the docstring, and its end."""

    first: int
    header: int
    body: int
    end: int


def read(paths: tuple[str, ...]) -> Tree:
    """These files of the installed source."""
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in paths}


def needed(*modules: str) -> tuple[str, ...]:
    """The files of these modules ("ops.delta_rule"), and of all that they import of the package, in order of names."""
    found, waiting = {"minivl/__init__.py"}, [f"minivl/{module.replace('.', '/')}.py" for module in modules]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        found |= {f"{folder}/__init__.py" for folder in map(str, Path(path).parents) if "minivl/" in f"{folder}/"}
        for node in _imported((ROOT / path).read_text(encoding="utf-8")):
            if isinstance(node, ast.ImportFrom) and node.level:
                home = "/".join(Path(path).parts[: -node.level] + tuple((node.module or "").split("."))).rstrip("/")
                beside = [f"{home}/{name.name}.py" for name in node.names]
                waiting += [file for file in (f"{home}.py", *beside) if (ROOT / file).is_file()]
    return tuple(sorted(found))


def place(tree: Tree, name: str) -> tuple[str, str]:
    """The path and the function's name in it: "ops.sliding_window.Ring.write" → ("minivl/ops/…", "Ring.write")."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        inside = "/".join(parts[:cut])
        for path in (f"minivl/{inside}.py", f"{inside}.py", f"minivl/{inside}/__init__.py"):
            if path in tree:
                return path, ".".join(parts[cut:])
    raise LookupError(f"no file of this package holds {name}")


@functools.lru_cache(maxsize=512)  # an edit changes one file of many
def functions(text: str) -> dict[str, Lines]:
    """Every function of a module and method of its classes."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = _lines(node)
        if isinstance(node, ast.ClassDef):
            inner = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            found |= {f"{node.name}.{part.name}": _lines(part) for part in inner}
    return found


@functools.lru_cache(maxsize=512)
def classes(text: str) -> dict[str, Lines]:
    return {node.name: _lines(node) for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}


def _lines(node: ast.FunctionDef | ast.ClassDef) -> Lines:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    body = node.body[0]
    told = isinstance(body, ast.Expr) and isinstance(body.value, ast.Constant) and isinstance(body.value.value, str)
    header = min([body.lineno, *(decorator.lineno for decorator in getattr(body, "decorator_list", ()))]) - 1
    return Lines(first - 1, header, body.end_lineno if told else header, node.end_lineno)


def segment(tree: Tree, name: str) -> str:
    """A function's own text; of a file's name, all of it."""
    path, function = place(tree, name)
    if not function:
        return tree[path]
    at = _find(tree[path], name, function)
    return cut(tree[path], at.first, at.end)


def cut(text: str, first: int, end: int | None) -> str:
    """These lines, from `first` to before `end`."""
    return "".join(io.StringIO(text).readlines()[first:end])  # lines as Python counts them, which ends none at a \f


def replaced(text: str, first: int, end: int, new: str) -> str:
    """The text with `new` in place of these lines."""
    return cut(text, 0, first) + new + cut(text, end, None)


def stubbed(tree: Tree, name: str, says: str) -> Tree:
    """The tree with this function's signature and docstring, and an error in place of the rest."""
    path, function = place(tree, name)
    at = _find(tree[path], name, function)
    indent = " " * (8 if "." in function else 4)
    stub = f'{indent}raise NotImplementedError("{says}")\n'
    return tree | {path: replaced(tree[path], at.body, at.end, stub)}


def edited(tree: Tree, *edits: Edit) -> Tree:
    """The tree with these edits; one whose text does not stand there exactly once is stale, and an error."""
    for edit in edits:
        path, function = place(tree, edit.where)
        text = segment(tree, edit.where)
        if (count := text.count(edit.right)) != 1:
            raise LookupError(f"{edit.where} has {edit.right!r} {count} times; the edit is stale unless it is once")
        new = text.replace(edit.right, edit.wrong)
        whole = Lines(0, 0, 0, text.count("\n") + 1)
        at = _find(tree[path], edit.where, function) if function else whole
        tree = tree | {path: replaced(tree[path], at.first, at.end, new)}
    return tree


def merged(reference: Tree, student: Tree, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> Tree:
    """The reference, but with the student's version of these functions, and with the student's helpers around them.

    The optional ones may be gone. All else in the files that hold them is the reference's, so that one mistake costs
    once, and so are files that hold none of them.
    """
    own: dict[str, set[str]] = {}
    for name in (*names, *optional):
        path, function = place(reference, name)
        own.setdefault(path, set()).add(function)
    tree = dict(reference)
    for path, wanted in own.items():
        if path not in student:
            raise LookupError(f"{path} is missing from the folder")
        there = functions(student[path])
        for name in names:
            at, function = place(reference, name)
            if at == path and function not in there:
                raise LookupError(f"{path} has no function {function} any more")
        tree[path] = _merged_file(reference[path], student[path], wanted)
    return tree


def _merged_file(reference: str, student: str, wanted: set[str]) -> str:
    """The reference's text with the student's functions in their places, and before them what else is the student's:
    imports, helpers, constants of names that the reference does not have."""
    theirs, ours = functions(student), functions(reference)
    text = reference
    for name in wanted:
        at = functions(text)[name]
        new = _method(name, _text(student, theirs[name])) if name in theirs else _gone(text, at, name)
        text = replaced(text, at.first, at.end, new)
    for name in theirs.keys() - ours.keys():
        if "." in name and (home := classes(text).get(name.split(".")[0])):
            text = replaced(text, home.end, home.end, "\n" + _method(name, _text(student, theirs[name])))
    starts = {**classes(text), **functions(text)}
    first = min(starts[name.split(".")[0]].first for name in wanted)
    text = replaced(text, first, first, "".join(f"{one}\n\n\n" for one in _additions(reference, student)))
    future = [node for node in _imported(student) if _of_the_future(node)]
    head = ast.parse(text).body[0]
    top = head.end_lineno if isinstance(head, ast.Expr) else 0  # after the docstring, where alone they may stand
    return replaced(text, top, top, "".join(f"{ast.unparse(node)}\n" for node in future))


def _additions(reference: str, student: str) -> list[str]:
    """The student's statements that are neither the reference's nor bind a name of the reference's, imports apart."""
    known = {ast.dump(node) for node in ast.parse(reference).body}
    bound = {name for node in ast.parse(reference).body for name in _names(node)}
    found = []
    for node in ast.parse(student).body:
        is_import = isinstance(node, ast.Import | ast.ImportFrom)
        told = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if told or ast.dump(node) in known or (not is_import and bound & _names(node)):
            continue
        if _of_the_future(node):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
        found.append(cut(student, first - 1, node.end_lineno).rstrip())
    return found


def _of_the_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _names(node: ast.stmt) -> set[str]:
    """The names that a statement binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    return {part.id for target in targets if target for part in ast.walk(target) if isinstance(part, ast.Name)}


def _text(text: str, at: Lines) -> str:
    return cut(text, at.first, at.end).rstrip("\n") + "\n"


def _method(name: str, text: str) -> str:
    """A function's text, indented as the reference's is."""
    indent = " " * 4 * name.count(".")
    return text if text.startswith((f"{indent}def", f"{indent}@")) else textwrap.indent(textwrap.dedent(text), indent)


def _gone(text: str, at: Lines, name: str) -> str:
    """An optional function that the student took out: its signature, and an error."""
    indent = " " * 4 * (1 + name.count("."))
    return f'{cut(text, at.first, at.body)}{indent}raise NotImplementedError("{name} was taken out")\n'


def _imported(text: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]


def _find(text: str, name: str, function: str) -> Lines:
    found = functions(text) | classes(text)
    if function not in found:
        raise LookupError(f"there is no function {name}")
    return found[function]


def shown(tree: Tree, name: str) -> str:
    """A function's signature and docstring, as a page shows them."""
    path, function = place(tree, name)
    at = _find(tree[path], name, function)
    return textwrap.dedent(cut(tree[path], at.first, at.body)).rstrip()
