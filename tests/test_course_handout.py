"""The student's folder: it works on its own, says what is asked, and holds no answer."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minivl.course import judging
from minivl.course.a1 import A1
from minivl.course.a3 import A3
from minivl.course.asking import answered
from minivl.course.grading import truth
from minivl.course.loading import loaded
from minivl.course.making import blanked, make
from minivl.course.pages import handed_in
from minivl.course.processes import write
from minivl.course.sources import functions, place, stubbed
from minivl.course.tasks import Assignment, Task

from .course import EVERY, TASKS, label

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every assignment's folder."""
    made = {}
    for assignment in EVERY:
        made[assignment.name] = tmp_path_factory.mktemp("handout") / assignment.name
        make(assignment, made[assignment.name])
    return made


def run_tests(folder: Path) -> str:
    """What the folder's own tests print, run as its README says and with nothing of this repository in reach."""
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--tb=line", "--color=no"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")
    return done.stdout + done.stderr


@pytest.mark.parametrize("assignment", EVERY, ids=label)
def test_its_tests_pass_for_what_is_written_and_say_of_the_rest_that_it_is_not(folders, assignment):
    """All tasks but the first are the reference's; one run, since each takes seconds."""
    folder, tree = folders[assignment.name], assignment.reference()
    first = assignment.tasks[0]
    for name in (*first.functions, *first.helpers):
        tree = stubbed(tree, name, "not written")
    write({path: tree[path] for path in handed_in(assignment)}, folder)
    said = run_tests(folder)
    write({path: blanked(assignment)[path] for path in handed_in(assignment)}, folder)
    checks = json.loads((folder / "tests/questions.json").read_text(encoding="utf-8"))
    assert {check["task"] for check in checks} == {task.number for task in assignment.tasks}
    for check in checks:
        (line,) = (
            line for line in said.splitlines() if f"::test_task[{check['id']}]" in line and line[:4] in ("PASS", "FAIL")
        )
        if check["task"] == first.number or line.startswith("FAILED"):
            assert "NotImplementedError" in line, said
    assert " passed" in said


@pytest.mark.parametrize("assignment", EVERY, ids=label)
def test_it_holds_what_is_named_and_nothing_else(folders, assignment):
    folder = folders[assignment.name]
    found = {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    }
    pages = {f"tasks/{task.number}.md" for task in assignment.tasks}
    home = ROOT / "minivl" / "course"
    tests = {f"tests/{path.relative_to(home).as_posix()}" for path in (home / "asking").glob("*.py")}
    tests |= {f"tests/{name}" for name in ("judging.py", "test_tasks.py", "questions.json", "questions.safetensors")}
    words = {"README.md", "requirements.txt", "assignment.json", "pytest.ini", "self_check.py"}
    assert found == {*assignment.files, *assignment.own_files} | pages | tests | words
    assert (folder / "requirements.txt").read_bytes() == (ROOT / "requirements.txt").read_bytes()


@pytest.mark.parametrize(("assignment", "task"), TASKS, ids=label)
def test_each_tasks_page_has_formula_shapes_file_command_and_hint(folders, assignment, task):
    page = (folders[assignment.name] / "tasks" / f"{task.number}.md").read_text(encoding="utf-8")
    tree = assignment.reference()
    for name in task.functions:
        path, function = place(tree, name)
        assert path in page
        assert f"def {function.rpartition('.')[2]}(" in page
    for part in (f"python -m pytest -k {task.number}", "## Hint", task.hint, f"{task.points} points", "## Checks"):
        assert part in page
    assert "NotImplementedError" not in page
    assert "raise" not in page.split("## Checks")[0]


@pytest.mark.parametrize("assignment", EVERY, ids=label)
def test_a_stub_keeps_its_signature_and_docstring(assignment):
    right, student = assignment.reference(), blanked(assignment)
    for task in assignment.tasks:
        for name in task.functions:
            path, function = place(right, name)
            lines, at = right[path].splitlines(), functions(right[path])[function]
            assert "\n".join(lines[at.first : at.body]) in student[path]
            code = "\n".join(lines[at.body : at.end]).strip()
            assert code not in student[path], f"{name} is still there"


def leaks(assignment: Assignment, task: Task, *blank: str) -> list[str]:
    """What is given, and answers a question of the task where these functions, and no other tasks', are written."""
    reference = assignment.reference()
    asked_for = {name for other in assignment.tasks for name in (*other.functions, *other.helpers)}
    tree = reference
    for other in assignment.tasks:
        for name in (*other.functions, *other.helpers):
            if other is not task or name in blank:
                tree = stubbed(tree, name, "not written")
    for name in assignment.also_blank:
        tree = stubbed(tree, name, "not given")
    given = [
        f"{path.removeprefix('minivl/').removesuffix('.py').replace('/', '.')}.{function}"
        for path in assignment.files
        if not path.endswith("__init__.py")
        for function in functions(tree[path])
        if "." not in function
    ]
    found = set()
    for check in task.checks:
        if check.judge != "equal":
            continue
        question = check.ask(3, check.sizes[-1])
        if question.options["function"] not in blank:
            continue
        right = truth(loaded(reference), check, question)
        tried = [question.tensors]
        if "q" in question.tensors:
            gates = {name: 0 * question.tensors["q"][..., 0] + of for name, of in (("log_decay", 0), ("beta", 1))}
            tried.append(gates | question.tensors)
        for name in sorted(set(given) - asked_for):
            backends = ("recurrent", "chunked") if name.endswith("gated_delta_rule") else ("",)
            for tensors, backend in itertools.product(tried, backends):
                options = question.options | ({"backend": backend} if backend else {})
                asked = replace(question, tensors=tensors, options=options).to(name)
                try:
                    answer = answered(loaded(tree).find, asked.driver, asked.tensors, asked.options)
                except Exception:  # whatever it says: it is not the answer
                    continue
                if judging.judged("equal", answer, right, asked.options, 1e-6) is None:
                    found.add(name)
    return sorted(found)


@pytest.mark.parametrize(("assignment", "task"), TASKS, ids=label)
def test_no_stub_can_be_filled_by_what_is_given(assignment, task):
    for name in task.functions:
        assert leaks(assignment, task, name) == []
    assert leaks(assignment, task, *task.functions, *task.helpers) == []


def test_what_would_give_an_answer_away_is_found():
    """The gated rule at log decay 0 is A1's answer; attention by blocks is A3's band."""
    more = replace(A1, modules=(*A1.modules, "ops.gated_delta_rule"))
    assert "ops.gated_delta_rule.recurrent" in leaks(more, A1.tasks[2], "ops.delta_rule.recurrent")
    assert "ops.gated_delta_rule.gated_delta_rule" in leaks(more, A1.tasks[3], "ops.delta_rule.chunked")
    less = replace(A3, also_blank=(), tasks=A3.tasks[:1])
    assert "ops.sliding_window.blocked" in leaks(less, A3.tasks[0], "ops.sliding_window.banded")


@pytest.mark.parametrize("assignment", EVERY, ids=label)
def test_what_is_not_asked_of_other_assignments_is_not_given(assignment):
    """Unless this one is built on it, which it says (`gives_away`), and the instructor is told."""
    tree = blanked(assignment)
    for other in EVERY:
        if other is assignment or other.name in assignment.gives_away:
            continue
        for name in (name for task in other.tasks for name in task.functions):
            try:
                path, function = place(tree, name)
            except LookupError:
                continue
            if path in assignment.own_files or function not in functions(tree[path]):
                continue
            at = functions(tree[path])[function]
            body = "\n".join(tree[path].splitlines()[at.body : at.end])
            assert "NotImplementedError" in body, f"{assignment.name} gives {name} away, a task of {other.name}"


def test_questions_hold_no_more_than_inputs_and_right_answers(folders):
    """No wrong version, no source: names and numbers."""
    for assignment in EVERY:
        checks = json.loads((folders[assignment.name] / "tests/questions.json").read_text(encoding="utf-8"))
        for check in checks:
            assert set(check) == {"id", "task", "claim", "points", "judge", "tolerance", "triton", "questions"}
            for question in check["questions"]:
                assert set(question) == {"driver", "options", "about"}


def test_the_hidden_questions_are_others_than_those_of_the_folder():
    check = A1.tasks[0].checks[0]
    assert not torch.equal(check.ask(0, 7).tensors["q"], check.ask(2026, 7).tensors["q"])


def test_the_self_check_tells_what_is_written(folders, capsys):
    folder = next(iter(folders.values()))
    source = (folder / "self_check.py").read_text(encoding="utf-8")
    exec(compile(source, "self_check.py", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.count("not written") == 4
    solutions = {
        "outer_products": 'torch.einsum("btk,btv->bkv", k, v)',
        "decays": "log_decay.cumsum(0).exp()",
        "solved": "torch.linalg.solve_triangular(lower, b, upper=False, unitriangular=True)",
        "slope": "torch.autograd.grad(torch.exp(-torch.nn.functional.softplus("
        "y := torch.tensor(x, requires_grad=True))), y)[0].item()",
    }
    for name, solution in solutions.items():
        source = source.replace(f'raise NotImplementedError("{name}")', f"return {solution}")
    exec(compile(source, "self_check.py", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.count(" ok") == 4
