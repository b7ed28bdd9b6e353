"""Sources as texts: bodies out, edits in, a student's functions among the reference's; and causes told together."""

import ast

import pytest
import torch

from minivl.course.a1 import A1
from minivl.course.diagnosis import wrong_version
from minivl.course.loading import loaded
from minivl.course.manifest import ASSIGNMENTS
from minivl.course.processes import Workshop
from minivl.course.sources import Edit, edited, functions, merged, needed, place, stubbed

from .course import results

GIVEN = '''"""A module."""

import math

LIMIT = 3


def area(r):
    """π r²."""
    return math.pi * r**2


class Box:
    """A box."""

    def __init__(self, side):
        self.side = side

    @property
    def size(self):
        """side²"""
        return self.side**2

    def twice(self):
        return 2 * self.size


def both(r):
    return area(r) + Box(r).size
'''
PATH = "shapes.py"
REFERENCE = {PATH: GIVEN}


@pytest.fixture(scope="module")
def workshop():
    with Workshop() as workshop:
        yield workshop


def answer(student: str, *names: str, optional: tuple[str, ...] = ()):
    """What `both(1)` of the merged module gives, and the module's text."""
    tree = merged(REFERENCE, {PATH: student}, names, optional)
    ast.parse(tree[PATH])
    return loaded(tree).find("shapes.both")(2), tree[PATH]


def test_a_stub_keeps_signature_decorators_and_docstring_and_nothing_of_the_body():
    text = stubbed(REFERENCE, "shapes.Box.size", "X1 no")[PATH]
    assert (
        '    @property\n    def size(self):\n        """side²"""\n        raise NotImplementedError("X1 no")\n' in text
    )
    assert "self.side**2" not in text
    assert text.replace('raise NotImplementedError("X1 no")', "return self.side**2") == GIVEN


@pytest.mark.parametrize(
    "student",
    [
        "def area(r):\n    return 3 * r * r\n",
        "def area(r): return 3 * r * r",  # no line end
        "from __future__ import annotations\n\ndef area(r: Nothing):\n    return 3 * r * r\n",
        "def helper(r):\n    return 3 * r\n\n\ndef area(r):\n    return helper(r) * r\n",
        "import math as m\nTHREE = int(m.pi)\n\ndef area(r):\n    return THREE * r * r\n",
        "def area(r):\n    return None\n\n\ndef area(r):\n    return 3 * r * r\n",  # the last one counts
        "def decorate(f):\n    return lambda r: 3 * f(r)\n\n\n@decorate\ndef area(r):\n    return r * r\n",
        "LIMIT = 0\n\n\ndef area(r):\n    return LIMIT * r * r\n\n\ndef both(r):\n    raise ValueError\n",
        "class Box:\n    pass\n\n\ndef area(r):\n    return 3 * r * r\n",
        '"""Mine."""\ndef area(r):\n  x = """\n\f two\n"""\n  return 3 * r * r\n',
    ],
)
def test_a_students_function_stands_among_the_references(student):
    """Whatever else is there: helpers and imports come along, other functions and constants are the reference's."""
    found, text = answer(student, "shapes.area")
    assert found == 3 * 4 + 4
    assert functions(text).keys() >= functions(GIVEN).keys()


@pytest.mark.parametrize(
    "student",
    [
        "class Box:\n    @property\n    def size(self):\n        return self.part() * 2\n\n"
        "    def part(self):\n        return 5\n",
        "class Other:\n    pass\n\n\nclass Box(Other):\n  @property\n  def size(self):\n    return 10\n",
    ],
)
def test_a_students_method_stands_in_the_references_class(student):
    """With methods of the student's own, and however it is indented."""
    found, _ = answer(student, "shapes.Box.size")
    assert round(found - 4 * 3.14159, 2) == 10


def test_what_is_missing_is_told_and_what_is_optional_may_be():
    with pytest.raises(LookupError, match="no function area any more"):
        merged(REFERENCE, {PATH: GIVEN.replace("def area", "def circle")}, ("shapes.area",))
    with pytest.raises(LookupError, match=r"shapes\.py is missing"):
        merged(REFERENCE, {}, ("shapes.area",))
    tree = merged(REFERENCE, {PATH: "def both(r):\n    return r\n"}, ("shapes.both",), ("shapes.area",))
    with pytest.raises(NotImplementedError, match="taken out"):
        loaded(tree).find("shapes.area")(1)


@pytest.mark.parametrize("right", ["no such text", "self"])
def test_an_edit_of_text_that_is_not_there_exactly_once_is_an_error(right):
    with pytest.raises(LookupError, match="stale"):
        edited(REFERENCE, Edit("shapes.Box.size" if right != "self" else "shapes.Box", right, ""))


def test_edits_touch_their_function_only():
    text = edited(REFERENCE, Edit("shapes.area", "r**2", "r"))[PATH]
    assert text == GIVEN.replace("math.pi * r**2", "math.pi * r")


def test_a_module_comes_with_all_that_it_imports():
    assert needed("ops.delta_rule") == tuple(
        f"minivl/{name}.py" for name in ("__init__", "ops/__init__", "ops/checks", "ops/chunks", "ops/delta_rule")
    )


@pytest.mark.parametrize("assignment", ASSIGNMENTS.values(), ids=lambda assignment: assignment.name)
def test_every_name_in_an_assignment_is_there(assignment):
    tree = assignment.reference()
    names = [name for task in assignment.tasks for name in (*task.functions, *task.helpers)]
    for name in (*names, *assignment.also_blank):
        path, function = place(tree, name)
        assert function in functions(tree[path])


def test_two_trees_of_one_package_do_not_meet():
    wrong = edited(A1.reference(), Edit("ops.delta_rule.householder", "identity - beta", "identity + beta"))
    right, other = (loaded(tree).find("ops.delta_rule.householder") for tree in (A1.reference(), wrong))
    k, beta = torch.tensor([1.0, 0.0]), torch.tensor(1.0)
    assert right(k, beta).tolist() == [[0, 0], [0, 1]]
    assert other(k, beta).tolist() == [[2, 0], [0, 1]]


def test_of_two_mistakes_in_one_task_both_are_named(workshop):
    """One in each function of the task, so that each has answers of its own."""
    task = A1.tasks[1]
    first, second = (
        next(m for m in task.mistakes if m.name == name) for name in ("the mask is strict", "the carry is lost")
    )
    student = wrong_version(second, wrong_version(first, A1.reference()))
    (found,) = results(A1, student, workshop, tasks=(task.number,))
    assert found.causes == [first.says, second.says]


def test_the_smallest_question_that_still_fails_is_shown(workshop):
    """The carry is lost: nothing shows it before the second chunk."""
    task = A1.tasks[1]
    student = wrong_version(next(m for m in task.mistakes if m.name == "queries do not read the carry"), A1.reference())
    (found,) = results(A1, student, workshop, tasks=(task.number,))
    assert found.checks[1].says.startswith("T = 9, whole chunks of 8: out is off by")
    assert "first at t = 8" in found.checks[1].says


UNKNOWN = {  # mistakes that no table has: (what is wrong, instead of what, how) → what the pattern of failures says
    "state = state + k[n]": ("state = 0.5 * state + k[n]", "Right in chunk 0, wrong from chunk 1"),
    "return from_chunks(out, like), state": (
        "return from_chunks(out, like), 2 * state", "Outputs right, final state wrong"),
    "C, like = chunk_length(chunk, q.shape[1]), v": (
        "C, like = chunk_length(chunk, q.shape[1]), v + (q.shape[1] % chunk > 0)\n    v = like",
        "Wrong only when T is not a multiple of 8: the ragged tail"),
    "out.append(scale * (q[n]": ("out.append(float('inf') * (q[n]", "inf or NaN"),
}  # fmt: skip


@pytest.mark.parametrize("right", UNKNOWN)
def test_a_mistake_that_is_in_no_table_is_told_by_its_pattern(workshop, right):
    wrong, says = UNKNOWN[right]
    student = edited(A1.reference(), Edit("ops.linear_attention.chunked", right, wrong))
    (found,) = results(A1, student, workshop, tasks=("1.2",))
    assert [cause for cause in found.causes if says in cause], found.causes
