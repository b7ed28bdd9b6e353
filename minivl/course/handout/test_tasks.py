"""The checks of your tasks:  python -m pytest -k 1.2  runs those of task 1.2.

Each asks your functions a few questions and compares the answers with the right ones, which lie beside this file as
numbers. The grader asks the same questions with other seeds. What a check means is in its claim; what you changed here
changes nothing there.
"""

import importlib.util
import json
import os
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"  # kernels run on any CPU; it must be said before Triton is imported

import asking
import judging
import pytest
from safetensors.torch import load_file

HERE = Path(__file__).parent
CHECKS = json.loads((HERE / "questions.json").read_text(encoding="utf-8"))
TENSORS = load_file(HERE / "questions.safetensors")
find = asking.finder(str(HERE.parent))


def part(name: str) -> dict:
    return {key.rpartition("/")[2]: x for key, x in TENSORS.items() if key.rpartition("/")[0] == name}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check["id"])
def test_task(check):
    if check["triton"] and importlib.util.find_spec("triton") is None:
        pytest.skip("not run here: Triton exists for Linux only; a Linux container, WSL2 or a notebook service has it")
    for i, question in enumerate(check["questions"]):
        given, expected = part(f"{check['id']}/{i}/given"), part(f"{check['id']}/{i}/expected")
        answer = asking.answered(find, question["driver"], given, question["options"])
        wrong = judging.judged(check["judge"], answer, expected, question["options"], check["tolerance"])
        assert not wrong, (
            f"task {check['task']}: {check['claim']} ({check['points']} points)\n{question['about']}: {wrong}"
        )
