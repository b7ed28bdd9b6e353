"""Make the notebooks from their sources, or check that they still are what the sources say.

    python -m notebooks.build [NAME …]             execute each source and write its .ipynb, with outputs
    python -m notebooks.build [NAME …] --check     execute each source, compare its cells with the .ipynb, write nothing

A source in notebooks/src is plain Python. `# %%` opens a cell of code, `# %% [drawing]` one whose code is folded
away, and `# %% [markdown]` one of words, whose lines are comments. Outputs are never compared, since pictures and
rounding differ between machines. What a notebook must keep: no cell fails or writes a warning, it takes less than a
minute on two cores, and its file stays below 500 KB. Nothing in the file tells where or when it was made.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FOLDER = Path(__file__).resolve().parent
LARGEST, LONGEST = 500_000, 60  # bytes of a file, and seconds that it may take
WAITS_FOR = {
    "12_claims": FOLDER.parent / "docs" / "claims.json"
}  # results that a notebook is about

QUIET = "--IPKernelApp.log_level=ERROR"  # a kernel remarks on how it talks to this process
MARKS = {"# %%": "code", "# %% [drawing]": "drawing", "# %% [markdown]": "markdown"}
FOLDED = {
    "jupyter": {"source_hidden": True}
}  # JupyterLab shows such a cell's output, and its code on a click
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


def names() -> list[str]:
    """Every notebook that can be made, in reading order."""
    found = sorted(source.stem for source in (FOLDER / "src").glob("[0-9]*.py"))
    return [name for name in found if name not in WAITS_FOR or WAITS_FOR[name].is_file()]


def cells(source: str) -> list[tuple[str, str]]:
    """(kind, text) of each cell of a source; kind is "code", "drawing" or "markdown"."""
    found: list[tuple[str, list[str]]] = []
    for line in source.splitlines():
        if line in MARKS:
            found.append((MARKS[line], []))
        elif found:
            found[-1][1].append(line)
        elif line:
            raise ValueError(
                f"a source should start with a cell mark, # %%; it starts with {line!r}"
            )
    for kind, lines in found:
        if kind == "markdown":
            strange = [line for line in lines if line and line != "#" and not line.startswith("# ")]
            if strange:
                raise ValueError(f"a line of a markdown cell should start with #: {strange[0]!r}")
            lines[:] = [line[2:] for line in lines]
    return [(kind, "\n".join(lines).strip("\n")) for kind, lines in found]


def written(source: str) -> NotebookNode:
    """The notebook of a source, without outputs."""
    made = []
    for place, (kind, text) in enumerate(cells(source), start=1):
        make = new_markdown_cell if kind == "markdown" else new_code_cell
        metadata = FOLDED if kind == "drawing" else {}
        made.append(make(text, id=f"cell-{place:02}", metadata=metadata))
    return new_notebook(cells=made, metadata=METADATA)


def executed(source: str) -> NotebookNode:
    """The same with its outputs: a fresh kernel in this folder, as JupyterLab starts it."""
    notebook = written(source)
    with tempfile.TemporaryDirectory() as settings:
        environment = {**os.environ, "IPYTHONDIR": settings, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        client = NotebookClient(
            notebook,
            timeout=LONGEST,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,  # or timing would decide what is one output
            extra_arguments=[QUIET],
            resources={"metadata": {"path": str(FOLDER)}},
        )
        client.execute(env=environment)
    notebook.metadata = NotebookNode(METADATA)  # a kernel adds its own version
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                raise ValueError(f"code cell {number} writes to stderr:\n{output.text}")
    return notebook


def text_of(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook) + "\n"


def differences(source: str, notebook: NotebookNode) -> list[str]:
    """Where the cells of a notebook are not those of its source."""
    ours, theirs = (
        [(cell.id, cell.cell_type, cell.metadata, cell.source) for cell in one.cells]
        for one in (written(source), notebook)
    )
    found = [
        f"cell {place} differs"
        for place, (one, other) in enumerate(zip(ours, theirs, strict=False), start=1)
        if one != other
    ]
    if len(ours) != len(theirs):
        found.append(f"the source has {len(ours)} cells, the notebook {len(theirs)}")
    return found


def faults(name: str, *, check: bool) -> list[str]:
    """Execute one source; write its notebook, or compare with the one that is there. What is wrong, in sentences."""
    source = (FOLDER / "src" / f"{name}.py").read_text(encoding="utf-8")
    path = FOLDER / f"{name}.ipynb"
    found = []
    if check and not path.is_file():
        found.append(f"{path.name} is missing; run python -m notebooks.build {name}")
    elif check and (different := differences(source, nbformat.read(path, as_version=4))):
        found.append(f"{', '.join(different)}; run python -m notebooks.build {name}")
    start = time.monotonic()
    try:
        text = text_of(executed(source))
    except (CellExecutionError, CellTimeoutError, DeadKernelError, ValueError) as fault:
        return [*found, str(fault)]
    seconds = time.monotonic() - start
    size = len(text.encode())
    print(f"{name}: {seconds:.0f} s, {size / 1000:.0f} KB", flush=True)
    if seconds > LONGEST:
        found.append(f"it takes {seconds:.0f} seconds; it should take less than {LONGEST}")
    if size > LARGEST:
        found.append(f"its file has {size:,} bytes; it should have less than {LARGEST:,}")
    if not check and not found:
        path.write_text(text, encoding="utf-8")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m notebooks.build", description="Make the notebooks, or check them."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="01_linear_attention, say; all if none is named"
    )
    parser.add_argument(
        "--check", action="store_true", help="execute and compare cells, and write nothing"
    )
    options = parser.parse_args(arguments)
    wrong = 0
    for name, results in WAITS_FOR.items():
        if not results.is_file():
            print(f"{name} is left out until {results.name} is there", flush=True)
    for name in options.names or names():
        if name not in names():
            parser.error(f"there is no notebook {name!r}; there are {', '.join(names())}")
        for fault in faults(name, check=options.check):
            wrong = 1
            print(f"{name}: {fault}", file=sys.stderr)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
