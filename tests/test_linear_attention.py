"""Linear attention: recurrent, parallel and chunked in every regime."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.ops import linear_attention as ops

from . import claims, regimes
from .cases import Case, by_name, cases, claims_on
from .regimes import UNGATED, Shape
from .rungs import linear_attention_rules

RECURRENT, PARALLEL, CHUNKED = RULES = linear_attention_rules(ops)


@claims_on(RULES, UNGATED, claims.claims_of)
@given(data=st.data())
def test_claim(claim, rule, regime, data):
    claim(rule, data.draw(cases(regime)))


@pytest.mark.parametrize("T", regimes.lengths_around(8))
@pytest.mark.parametrize("rule", [PARALLEL, CHUNKED], ids=by_name)
def test_every_edge_of_time(rule, T):
    case = Case("wide", Shape(T=T), chunk=8)
    claims.it_equals_the_recurrence(rule, case)
    claims.gradients_equal_the_recurrences(rule, case)


@pytest.mark.parametrize("regime", UNGATED)
@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_float32_keeps_its_tolerance_over_a_thousand_tokens(rule, regime):
    case = Case(regime, Shape(B=1, T=1000, H=1, K=32, V=16), chunk=64, dtype=torch.float32)
    claims.it_equals_the_recurrence(rule, case)
    claims.gradients_equal_the_recurrences(rule, case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("regime", UNGATED)
@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_half_precision_in_is_half_precision_out_and_a_float32_state(rule, regime, dtype):
    case = Case(regime, Shape(T=70, K=16, V=32), chunk=16, dtype=dtype)
    claims.the_output_keeps_its_dtype_and_the_state_is_at_least_float32(rule, case)
