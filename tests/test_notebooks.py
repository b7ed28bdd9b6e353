"""The notebooks are what their sources say, keep to their sizes, and tell nothing of the machine that ran them.

Nothing is executed here but the smallest of kernels: `python -m notebooks.build --check` executes them all.
"""

import ast
import re
import shutil

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from notebooks import build

from . import pages

NAMES = build.names()
each_notebook = pytest.mark.parametrize("name", NAMES)


def source_of(name: str) -> str:
    return (build.FOLDER / "src" / f"{name}.py").read_text(encoding="utf-8")


def notebook_of(name: str):
    return nbformat.read(build.FOLDER / f"{name}.ipynb", as_version=4)


def words(name: str) -> list[str]:
    """The text of each markdown cell."""
    return [text for kind, text in build.cells(source_of(name)) if kind == "markdown"]


def outputs(notebook) -> list[str]:
    """All text that the cells have put out."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found.append(output.get("text", ""))
            found += [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return found


@each_notebook
def test_a_notebook_has_the_cells_of_its_source(name):
    assert build.differences(source_of(name), notebook_of(name)) == []


@each_notebook
def test_a_notebook_tells_nothing_of_when_and_where(name):
    notebook = notebook_of(name)
    assert notebook.metadata == build.METADATA
    strange = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|work|Users|private|mnt)/|[A-Z]:\\|0x[0-9a-f]{6,}")
    assert [text for text in outputs(notebook) if strange.search(text)] == []


@each_notebook
def test_a_notebook_was_run_from_the_top_without_a_fault_or_warning(name):
    code = [cell for cell in notebook_of(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for output in (output for cell in code for output in cell.outputs):
        assert output.output_type in ("stream", "display_data", "execute_result")
        assert output.get("name") != "stderr"
        assert "Warning" not in output.get("text", "")


@each_notebook
def test_a_notebook_is_small(name):
    assert (build.FOLDER / f"{name}.ipynb").stat().st_size < build.LARGEST


@each_notebook
def test_every_cell_of_a_source_parses(name):
    for kind, text in build.cells(source_of(name)):
        assert text
        if kind != "markdown":
            ast.parse(text)


@each_notebook
def test_only_what_draws_is_folded_away(name):
    """Claims stand where they are seen."""
    drawings = [text for kind, text in build.cells(source_of(name)) if kind == "drawing"]
    assert [text for text in drawings if "assert " in text or "drawing(" not in text or "picture(" not in text] == []


@each_notebook
def test_a_notebook_keeps_the_rhythm(name):
    """Aims; equation, code shown, assertion, picture and a broken line in between; three answered questions last."""
    first, *_ = text = words(name)
    assert re.match(r"# \d+ · ", first)
    assert "**At the end you can**" in first
    assert any("$$" in cell for cell in text)
    code = "\n".join(cell for kind, cell in build.cells(source_of(name)) if kind != "markdown")
    for part in (r"^show\(", r"^ *assert ", r"^picture\(", r"^with .*\bfails\(\):"):
        assert re.search(part, code, re.MULTILINE), part
    asked = "\n\n".join(text).split("## Three questions\n")[1]
    assert [int(number) for number in re.findall(r"^\*\*(\d)\.\*\*", asked, re.MULTILINE)] == [1, 2, 3]
    assert asked.count("<details><summary>Answer</summary>\n\n") == asked.count("\n\n</details>") == 3


@each_notebook
def test_every_picture_has_words_and_numbers(name):
    shown = [output for cell in notebook_of(name).cells for output in cell.get("outputs", []) if "data" in output]
    pictures = [output for output in shown if "image/png" in output["data"]]
    assert pictures
    for output in pictures:
        assert len(output.metadata["image/png"]["alt"]) > 50
    told = [output for output in shown if "**The picture in words.**" in output["data"].get("text/markdown", "")]
    assert len(told) == len(pictures)
    assert all("\n| --- |" in output["data"]["text/markdown"] for output in told)


@each_notebook
def test_every_figure_in_the_words_stands_in_code_or_output(name):
    """As on the pages of the ladder: figures with a decimal point, an exponent, or from 1,000 upwards."""
    code = [cell for kind, cell in build.cells(source_of(name)) if kind != "markdown"]
    text = [*(cell.replace("_", "") for cell in code), *outputs(notebook_of(name))]
    proven = {float(figure.replace(",", "")) for cell in text for figure in pages.FIGURE.findall(cell)}
    unproven = []
    for cell in words(name):
        for figure in pages.FIGURE.findall(re.sub(r"\]\([^)]*\)|\$[^$]*\$", " ", cell)):
            number = float(figure.replace(",", "").replace("−", "-"))
            if (re.search(r"[.e]", figure) or number >= 1000) and number not in proven:
                unproven.append(figure)
    assert unproven == []


@each_notebook
def test_every_link_between_notebooks_leads_somewhere(name):
    for target in re.findall(r"\]\(([^)]+)\)", "\n".join(words(name))):
        assert target.startswith("https://") or (build.FOLDER / target.split("#")[0]).exists(), target


def test_the_index_lists_every_notebook_in_order():
    index = (build.FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d\d_\w+)\.ipynb\)", index) == NAMES
    assert pages.dead_links(build.FOLDER / "README.md") == []
    for place, command in pages.commands(build.FOLDER / "README.md"):
        pages.assert_command_exists(place, command)
    assert sorted(path.stem for path in build.FOLDER.glob("*.ipynb")) == NAMES


# The tool itself ----------------------------------------------------------------------------------------------------

SOURCE = """\
# %% [markdown]
# # A title
#
# Words.

# %%
x = 6


# %% [drawing]
print(7 * x)
"""


def test_a_source_is_read_cell_by_cell():
    assert build.cells(SOURCE) == [("markdown", "# A title\n\nWords."), ("code", "x = 6"), ("drawing", "print(7 * x)")]
    _, shown, folded = build.written(SOURCE).cells
    assert (shown.cell_type, shown.metadata) == ("code", {})
    assert (folded.cell_type, folded.metadata) == ("code", build.FOLDED)


@pytest.mark.parametrize("source", ["x = 1\n# %%\n", "# %% [markdown]\nwords without a mark\n"])
def test_a_source_that_cannot_be_read_is_an_error(source):
    with pytest.raises(ValueError, match="should start with"):
        build.cells(source)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty place for notebooks, with one source."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "01_small.py").write_text(SOURCE, encoding="utf-8")
    shutil.copy(build.FOLDER / "lesson.py", tmp_path)
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "executed", lambda source: build.written(source))
    return tmp_path


def test_what_was_built_passes_the_check_and_is_the_same_each_time(folder, capsys):
    assert build.main([]) == 0
    text = (folder / "01_small.ipynb").read_text(encoding="utf-8")
    assert build.main(["01_small", "--check"]) == 0
    assert build.main([]) == 0
    assert (folder / "01_small.ipynb").read_text(encoding="utf-8") == text
    assert "01_small: " in capsys.readouterr().out


def test_a_notebook_that_is_missing_or_differs_fails_the_check_and_stays_as_it_is(folder, capsys):
    assert build.main(["--check"]) == 1
    assert "01_small.ipynb is missing" in capsys.readouterr().err
    assert not (folder / "01_small.ipynb").exists()
    build.main([])
    before = (folder / "01_small.ipynb").read_text(encoding="utf-8")
    (folder / "src" / "01_small.py").write_text(SOURCE.replace("7", "8"), encoding="utf-8")
    assert build.main(["--check"]) == 1
    assert "cell 3 differs" in capsys.readouterr().err
    (folder / "src" / "01_small.py").write_text(SOURCE + "\n# %%\nx\n", encoding="utf-8")
    assert build.main(["--check"]) == 1
    assert "the source has 4 cells, the notebook 3" in capsys.readouterr().err
    assert (folder / "01_small.ipynb").read_text(encoding="utf-8") == before


def test_a_notebook_that_is_too_large_or_too_slow_is_not_written(folder, capsys, monkeypatch):
    monkeypatch.setattr(build, "LARGEST", 100)
    monkeypatch.setattr(build, "LONGEST", -1)
    assert build.main([]) == 1
    told = capsys.readouterr().err
    assert "it should have less than 100" in told
    assert "it should take less than -1" in told
    assert not (folder / "01_small.ipynb").exists()


def test_an_unknown_name_is_told(capsys):
    with pytest.raises(SystemExit):
        build.main(["07_nothing"])
    assert "there is no notebook '07_nothing'" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")  # the kernel's machinery remarks on itself
def test_cells_run_in_one_kernel_and_faults_and_warnings_stop_them():
    cell = build.executed(SOURCE).cells[-1]
    assert [output.text for output in cell.outputs] == ["42\n"]
    with pytest.raises(ValueError, match="code cell 1 writes to stderr"):
        build.executed("# %%\nimport warnings\nwarnings.warn('careful')\n")
    with pytest.raises(CellExecutionError, match="AssertionError"):
        build.executed("# %%\nassert 1 == 2\n")
