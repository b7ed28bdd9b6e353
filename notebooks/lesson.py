"""What the notebooks share: a function's source, a function with one line broken, pictures with words and numbers.

Code is never pasted into a notebook. `show` prints it from minivl as it is; `broken` compiles it again with one piece
changed, so that an assertion can be watched as it fails (`fails`). A picture comes with what it shows in words, for
who can't see it, and with its numbers as a table (`picture`). Lines differ by mark as well as by colour.
"""

import atexit
import base64
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import io
import logging
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import matplotlib
import torch
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the project runs in place
torch.set_num_threads(1)  # products as small as these only wait for a second one
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it remarks on the first use of its fonts

# Colours that the colour-blind can tell apart, each with a mark of its own: axes.plot(..., **BLUE).
BLUE = {"color": "#0072b2", "marker": "o"}
ORANGE = {"color": "#d55e00", "marker": "s"}
GREEN = {"color": "#009e73", "marker": "^"}
PURPLE = {"color": "#aa4499", "marker": "D"}
BLACK = {"color": "#222222", "marker": "x"}

matplotlib.rcParams |= {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


class StepsAside(Exception):
    """Ends a notebook in one line, where this machine lacks what it is about."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def needs(package: str, why: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise StepsAside(f"This notebook ends here: {package} is not installed. {why}")


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> bool:
    """a and b have one shape, and differ by a part of b's size at most."""
    return a.shape == b.shape and bool((a - b).norm() <= tolerance * (1 + b.norm()))


def show(*functions: Callable) -> None:
    """The source of functions, as it stands in the project."""
    for function in functions:
        code, place = source(function), inspect.unwrap(plain(function)).__module__.replace(".", "/")
        words = f"`{place}.py`\n```python\n{code}```"
        display({"text/markdown": words, "text/plain": f"# {place}.py\n{code}"}, raw=True)


def plain(function: Callable) -> Callable:
    """The Python function inside a Triton kernel, or the function itself."""
    return getattr(function, "fn", function)


def source(function: Callable) -> str:
    return textwrap.dedent(inspect.getsource(plain(function)))


def broken(function: Callable, right: str, wrong: str, **more: object) -> Callable:
    """The function with one piece of its source changed, compiled where the original lives. Prints what changed.

    `more` are names that the wrong piece may use.
    """
    changed = replaced(source(function), right, wrong, function.__name__)
    names = {**vars(importlib.import_module(function.__module__)), **more}
    exec(compile(changed, f"<{function.__name__}, broken>", "exec"), names)
    return names[function.__name__]


def broken_module(module: ModuleType, right: str, wrong: str) -> ModuleType:
    """The same for a whole file, which Triton's kernels need: theirs are read from a file, not from a string."""
    code = inspect.getsource(module)
    changed = replaced(code, right, wrong, module.__name__)
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False, encoding="utf-8") as file:
        file.write(changed)
    atexit.register(Path(file.name).unlink)
    name = f"{module.__name__}_broken_{Path(file.name).stem}"
    spec = importlib.util.spec_from_file_location(name, file.name)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def replaced(code: str, right: str, wrong: str, name: str) -> str:
    """The code with one piece changed; prints the lines that differ."""
    if code.count(right) != 1:
        raise ValueError(
            f"{right!r} stands {code.count(right)} times in {name}; it should stand once"
        )
    changed = code.replace(right, wrong)
    for line in list(difflib.unified_diff(code.splitlines(), changed.splitlines(), n=0))[2:]:
        if not line.startswith("@@"):
            print(line[0], line[1:].strip())
    return changed


@contextlib.contextmanager
def fails() -> Iterator[None]:
    """What stands inside must fail its assertion: the sign that the assertion sees the mistake."""
    try:
        yield
    except AssertionError as fault:
        print("AssertionError, as it should be:", fault)
        return
    raise RuntimeError("the assertion holds, so it does not see the mistake")


def drawing(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **options
) -> tuple[Figure, list]:
    """An empty figure of this many inches, and its axes in reading order (one axes, if there is one)."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    axes = figure.subplots(rows, columns, **options)
    return figure, list(axes.flat) if rows * columns > 1 else axes


def picture(figure: Figure, words: str, header: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Show a figure, then what it shows in words, and its numbers in a table."""
    image = base64.b64encode(png(figure)).decode()
    metadata = {"image/png": {"alt": words}}
    display({"image/png": image, "text/plain": words}, raw=True, metadata=metadata)
    table(header, rows, above=f"**The picture in words.** {words}\n\n")


def png(figure: Figure) -> bytes:
    """The figure in 128 colours: lines and letters look the same, in a third of the room."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(128).save(small, "png", optimize=True)
    return small.getvalue()


def table(header: Sequence[str], rows: Sequence[Sequence], *, above: str = "") -> None:
    lines = (header, ["---"] * len(header), *rows)
    text = above + "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
    display({"text/markdown": text, "text/plain": text}, raw=True)
