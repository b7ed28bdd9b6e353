"""The student's folder: the package with bodies taken out, a page a task, tests, and nothing that holds an answer.

What is in the package is named file by file in the assignment, so that kernels, pages and other rungs, which would give
answers away, are not there to be imported; what else in those files would, is taken out like a task (`also_blank`).
"""

import hashlib
import json
from pathlib import Path

from safetensors.torch import save_file

from ..safetensors_writing import make_folder
from .grading import truth
from .loading import Imported, loaded
from .pages import handed_in, readme, task_page
from .processes import write
from .sources import ROOT, Tree, stubbed
from .tasks import Assignment, Check, Task

MARK = "assignment.json"
HANDOUT = Path(__file__).with_name("handout")


def make(assignment: Assignment, folder: Path, *, variant: int = 0) -> None:
    """Write the folder, which must be new or empty."""
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; an assignment should go into a folder of its own")
    make_folder(folder)
    tree = blanked(assignment, variant)
    chosen = assignment.variants[variant - 1] if variant else None
    words = {f"tasks/{task.number}.md": task_page(assignment, task, tree, chosen) for task in assignment.tasks}
    words["README.md"] = readme(assignment, chosen)
    words["requirements.txt"] = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    words[MARK] = json.dumps(about(assignment, variant), indent=2) + "\n"
    for name, place in (("test_tasks.py", "tests/"), ("pytest.ini", ""), ("self_check.py", "")):
        words[place + name] = (HANDOUT / name).read_text(encoding="utf-8")
    home = Path(__file__).parent
    for path in (home / "judging.py", *(home / "asking").glob("*.py")):
        words[f"tests/{path.relative_to(home).as_posix()}"] = path.read_text(encoding="utf-8")
    write(tree | words, folder)
    write_questions(assignment, loaded(assignment.reference(variant)), folder / "tests")


def blanked(assignment: Assignment, variant: int = 0) -> Tree:
    """The package as the student gets it."""
    tree = assignment.reference(variant)
    for task in assignment.tasks:
        for name in task.functions:
            tree = stubbed(tree, name, f"{assignment.name[0]}{task.number} {task.title}")
        for name in task.helpers:
            tree = stubbed(tree, name, f"{assignment.name[0]}{task.number} {task.title}: a helper, if you want it")
    for name in assignment.also_blank:
        tree = stubbed(tree, name, f"not part of {assignment.name}")
    return tree


def about(assignment: Assignment, variant: int) -> dict:
    return {
        "assignment": assignment.name,
        "variant": variant,
        "version": version(assignment, variant),
        "hand in": handed_in(assignment),
    }


def version(assignment: Assignment, variant: int) -> str:
    """A short hash of the source that the folder was made from."""
    return hashlib.sha256(json.dumps(assignment.reference(variant), sort_keys=True).encode()).hexdigest()[:12]


def write_questions(assignment: Assignment, oracle: Imported, folder: Path) -> None:
    """The tests' questions, and the right answers as numbers."""
    checks, tensors = [], {}
    for task in assignment.tasks:
        for letter, check in zip("abcdefghijklmnopqrstuvwxyz", task.checks, strict=False):
            if check.public:
                name = f"{task.number}{letter}"
                checks.append(described(task, check, name))
                tensors |= numbers(check, oracle, name)
    (folder / "questions.json").write_text(json.dumps(checks, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    save_file(tensors, folder / "questions.safetensors")


def described(task: Task, check: Check, name: str) -> dict:
    asked = [check.ask(seed, T) for seed, T in enumerate(check.sizes)]
    questions = [
        {"driver": question.driver, "options": question.options, "about": f"T = {T}, {question.about}"}
        for T, question in zip(check.sizes, asked, strict=True)
    ]
    return {
        "id": name,
        "task": task.number,
        "claim": check.claim,
        "points": check.points,
        "judge": check.judge,
        "tolerance": check.tolerance,
        "triton": task.triton,
        "questions": questions,
    }


def numbers(check: Check, oracle: Imported, name: str) -> dict:
    tensors = {}
    for seed, T in enumerate(check.sizes):
        question = check.ask(seed, T)
        tensors |= {f"{name}/{seed}/given/{key}": x.contiguous().clone() for key, x in question.tensors.items()}
        right = truth(oracle, check, question)
        tensors |= {f"{name}/{seed}/expected/{key}": x.contiguous().clone() for key, x in right.items()}
    return tensors
