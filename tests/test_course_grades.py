"""What the grader gives: the reference and other right solutions all points, stubs none, and mistakes their message."""

import pytest

from minivl.course.diagnosis import wrong_version
from minivl.course.making import blanked
from minivl.course.processes import Workshop
from minivl.course.sources import stubbed

from .course import EVERY, MISTAKES, alternative, alternatives, label, results, scores, told, written


@pytest.fixture(scope="module")
def workshop():
    with Workshop(interpret_triton=True) as workshop:
        yield workshop


def every_variant():
    return [(assignment, i) for assignment in EVERY for i in range(len(assignment.variants) + 1)]


@pytest.mark.parametrize(("assignment", "variant"), every_variant(), ids=label)
def test_the_reference_gets_all_points(workshop, assignment, variant):
    found = results(assignment, assignment.reference(variant), workshop, variant=variant)
    assert scores(found) == {task.number: task.points for task in assignment.tasks}, told(found)


@pytest.mark.parametrize(("assignment", "variant"), [pair for pair in every_variant() if pair[1]], ids=label)
def test_the_published_solution_of_a_variant_loses_points(workshop, assignment, variant):
    """Whoever hands in the assignment's own solution where a variant was asked for."""
    found = results(assignment, assignment.reference(), workshop, variant=variant)
    assert sum(scores(found).values()) < assignment.points


@pytest.mark.parametrize("assignment", EVERY, ids=label)
def test_points_are_100_and_each_task_says_what_it_must(assignment):
    assert assignment.points == 100
    for task in assignment.tasks:
        assert task.learns
        assert task.hint
        assert task.hours > 0
        assert task.number.startswith(assignment.name[1:])
        assert task.mistakes or any(check.judge != "equal" for check in task.checks)


@pytest.mark.parametrize("assignment", EVERY, ids=label)
def test_stubs_get_nothing_and_fail_only_by_saying_so(workshop, assignment):
    for result in results(assignment, blanked(assignment), workshop):
        assert result.score == 0
        assert not result.causes
        for check in result.checks:
            assert "NotImplementedError" in check.says, check.says


@pytest.mark.parametrize("assignment", EVERY, ids=label)
def test_a_task_that_is_not_written_costs_no_other_task(workshop, assignment):
    """Also not one that comes after it, and is built on it: the first and the third are missing."""
    student, missing = assignment.reference(), assignment.tasks[::2]
    for name in (name for task in missing for name in (*task.functions, *task.helpers)):
        student = stubbed(student, name, "not written")
    lost = {found.task.number for found in results(assignment, student, workshop) if found.score < found.task.points}
    assert lost == {task.number for task in missing}


@pytest.mark.parametrize(("assignment", "task", "mistake"), MISTAKES, ids=label)
def test_a_mistake_loses_points_in_its_task_and_is_named(workshop, assignment, task, mistake):
    student = wrong_version(mistake, assignment.reference())
    assert student is not None, "the edit is stale"
    (found,) = results(assignment, student, workshop, tasks=(task.number,))
    assert found.score < task.points
    assert mistake.says in found.causes, found.causes
    assert len(found.causes) <= 2, found.causes


@pytest.mark.parametrize("assignment", EVERY, ids=label)
def test_there_are_two_other_solutions_of_each_assignment(assignment):
    assert len(alternatives(assignment)) >= 2
    for task in assignment.tasks:
        for name in task.functions:
            assert sum(name in written(assignment, other) for other in alternatives(assignment)) >= 2, name


@pytest.mark.parametrize(
    ("assignment", "name"), [(assignment, name) for assignment in EVERY for name in alternatives(assignment)], ids=label
)
def test_a_solution_that_is_written_otherwise_gets_all_points(workshop, assignment, name):
    found = results(assignment, alternative(assignment, name), workshop)
    assert scores(found) == {task.number: task.points for task in assignment.tasks}, told(found)
