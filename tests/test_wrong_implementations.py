"""The tests are themselves tested: every wrong implementation in wrong.py is caught by its claim in its regime."""

import pytest
import torch

from .catching import RUNGS, WEAK, Wrong, ladder_cases
from .editing import Edit
from .tolerances import close
from .wrong import ORDINARY, WRONG, table


def label(row: Wrong) -> str:
    return f"{row.rung}.{row.implementation}-{row.name.replace(' ', '_')}"


@pytest.mark.parametrize("row", WRONG, ids=label)
def test_it_is_caught_and_the_real_source_is_not(row):
    assert row.right_passes(), f"{row.claim.__name__} fails for the real {row.rung} in regime {row.regime}"
    assert row.caught(), f"{row.claim.__name__} lets this pass in regime {row.regime}: {row.name}"


def test_every_rung_has_wrong_implementations():
    assert {row.rung for row in WRONG} == set(RUNGS)


def test_no_edit_stands_twice():
    edits = [(row.rung, row.implementation, row.edit) for row in WRONG]
    assert len(set(edits)) == len(edits)


@pytest.mark.parametrize("row", ORDINARY, ids=label)
def test_the_wide_regime_alone_would_catch_it(row):
    """One comparison with the recurrence, in one regime: nothing that is wrong on ordinary gates gets through."""
    assert not row.passes(ladder_cases("wide", row.dtype))


@pytest.mark.parametrize("weak", WEAK)
def test_inputs_that_are_easy_in_one_way_let_wrong_versions_pass(weak):
    """The reason for the regimes. All of these are caught in `wide`, as the test above shows."""
    assert any(row.passes(WEAK[weak](row.dtype)) for row in ORDINARY), f"nothing passes with {weak}: is it still weak?"


def test_an_edit_of_text_that_is_not_there_exactly_once_is_an_error():
    for text in ("no such text", "state"):
        with pytest.raises(LookupError, match="stale"):
            Edit("ops.delta_rule.chunked", text, "").source()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1.001])
def test_the_comparison_itself_fails_on_what_is_not_close(bad):
    oracle = torch.ones(3)
    close(torch.ones(3), oracle, tolerance=1e-5)
    with pytest.raises(AssertionError):
        close(torch.tensor([1.0, bad, 1.0]), oracle, tolerance=1e-5)


def test_the_comparison_fails_on_other_shapes_and_on_oracles_that_are_not_finite():
    for actual, oracle in ((torch.ones(1), torch.ones(3)), (torch.full((3,), torch.nan), torch.full((3,), torch.nan))):
        with pytest.raises(AssertionError):
            close(actual, oracle, tolerance=1e-5)
    with pytest.raises(AssertionError):
        close(torch.full((3,), 1e-30), torch.zeros(3), tolerance=1e-5)


def test_the_table_has_a_line_for_each():
    assert len(table().splitlines()) == len(WRONG) + 3
