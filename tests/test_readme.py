"""The README's first screen: its two commands are the ones that .ci/run runs, and what it points to is there.

That its links, names and options exist is test_docs.py's business, as for every page; here is what only the README has.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```console\n(.*?)\n```", README, re.DOTALL)


def test_two_commands_each_from_nothing_to_the_end():
    demo, tests = COMMANDS
    for command in COMMANDS:
        environment, install, work = command.split(" && ")
        assert environment == "python3 -m venv .venv"
        assert install == ".venv/bin/pip install -q -r requirements.txt"
        assert work.startswith(".venv/bin/python -m ")
    assert demo.endswith("-m minivl demo")
    assert tests.endswith("-m pytest")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here to run .ci/run with")
def test_ci_runs_these_very_commands():
    shown = subprocess.run(["bash", ".ci/run", "show"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert sorted(shown.splitlines()) == sorted(COMMANDS)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here to run .ci/run with")
@pytest.mark.parametrize("commands", [[], ["python3 -m pytest", "python3 -m pytest"]], ids=["none", "two"])
def test_ci_refuses_a_readme_without_exactly_one_of_each(tmp_path, commands):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "README.md").write_text("\n".join(["# MiniVL", *commands]) + "\n")
    done = subprocess.run(["bash", ".ci/run", "show"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "README.md has" in done.stderr


def test_python_versions_agree_everywhere():
    stated = r"Python 3\.(\d+) to 3\.(\d+)"
    said = {re.search(stated, text).groups() for text in (README, (ROOT / "requirements.txt").read_text())}
    assert len(said) == 1
    lowest, highest = map(int, said.pop())
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["ruff"]["target-version"] == f"py3{lowest}"
    assert lowest <= sys.version_info.minor <= highest


def test_the_picture_is_there_and_stands_alone():
    """It has a title for those who can't see it, its own background for dark pages, and refers to nothing outside."""
    text, path = re.search(r"!\[(.+?)\]\((.+?)\)", README).groups()
    assert len(text) > 40
    picture = (ROOT / path).read_text(encoding="utf-8")
    root = ElementTree.fromstring(picture)
    names = [child.tag.split("}")[1] for child in root]
    assert "title" in names
    assert names.index("rect") < names.index("text")
    assert "href" not in picture
    assert "<script" not in picture


def test_it_stays_one_screen():
    assert len(README.splitlines()) < 60
    assert re.search(r"^## Start here$", README, re.MULTILINE)
    assert re.search(r"^## What it is not$", README, re.MULTILINE)
    for reader in ("student", "instructor", "kernel author", "4090"):
        assert reader in README
