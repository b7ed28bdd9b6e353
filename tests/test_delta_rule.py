"""The delta rule: recurrent and chunked in every regime, and the WY form against products of Householder factors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.ops import delta_rule as ops

from . import claims, regimes
from .cases import Case, by_name, cases, claims_on
from .regimes import BY_NAME, UNGATED, Shape
from .rungs import delta_rules
from .tolerances import close, tolerance

RECURRENT, CHUNKED = RULES = delta_rules(ops)


@claims_on(RULES, UNGATED, claims.claims_of)
@given(data=st.data())
def test_claim(claim, rule, regime, data):
    claim(rule, data.draw(cases(regime)))


@pytest.mark.parametrize("T", regimes.lengths_around(8))
def test_every_edge_of_time(T):
    case = Case("wide", Shape(T=T), chunk=8)
    claims.it_equals_the_recurrence(CHUNKED, case)
    claims.gradients_equal_the_recurrences(CHUNKED, case)


@pytest.mark.parametrize(("K", "V"), [(1, 1), (1, 8), (8, 1)])
def test_widths_of_one(K, V):
    for rule in RULES:
        claims.it_equals_the_recurrence(rule, Case("wide", Shape(K=K, V=V), chunk=8))


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


@pytest.mark.parametrize("regime", UNGATED)
@given(data=st.data())
def test_the_wy_form_is_the_product_of_householder_factors(regime, data):
    """Kᵀ erased is what the product takes away from I, and (I − Kᵀ erased) S_0 + Kᵀ written is the state after it."""
    case = data.draw(cases(regime))
    inputs = RECURRENT.inputs(case)
    k, v, beta = (inputs[name].transpose(1, 2) for name in ("k", "v", "beta"))  # heads first, as in a chunk
    erased, written = ops.wy(k, v, beta)
    identity = torch.eye(case.shape.K, dtype=case.dtype)
    taken_away = identity - ops.householder_product(k, beta)
    limit = tolerance(case.dtype, regime=case.regime)
    close(k.mT @ erased, taken_away, tolerance=limit, what="what the factors erase")
    after = (identity - k.mT @ erased) @ inputs["state"] + k.mT @ written
    close(after, RECURRENT.truth(inputs, scale=1.0)[1], tolerance=limit, what="the state after the chunk")


def test_a_unit_keys_factor_scales_its_direction_by_one_minus_beta_and_no_other():
    k, across = torch.linalg.qr(regimes.Draw(0).normal(5, 2))[0].T
    for beta in (0.0, 0.5, 1.0):
        factor = ops.householder(k, torch.tensor(beta, dtype=k.dtype))
        assert (factor @ k - (1 - beta) * k).norm() < 1e-15
        assert (factor @ across - across).norm() < 1e-15


@pytest.mark.parametrize("regime", UNGATED)
def test_a_product_of_T_factors_differs_from_the_identity_in_at_most_T_directions(regime):
    inputs = BY_NAME[regime](Shape(B=1, T=3, H=1, K=8), seed=0)
    product = ops.householder_product(inputs["k"][0].transpose(0, 1), inputs["beta"][0].mT)
    assert torch.linalg.matrix_rank(torch.eye(8) - product, atol=1e-10).item() <= 3


def test_the_same_key_written_twice_writes_only_what_is_missing():
    """v = 1, then 5 under one key: the deltas are 1 and 4, and the state answers 5."""
    k = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double()
    v, beta = torch.tensor([[1.0], [5.0]]).double(), torch.ones(2).double()
    assert (ops.ut_transform(k, beta) @ v).flatten().tolist() == [1.0, 4.0]
    state = ops.recurrent(k[None, :, None], k[None, :, None], v[None, :, None], beta=beta[None, :, None])[1]
    assert state.flatten().tolist() == [5.0, 0.0]


@pytest.mark.parametrize("regime", UNGATED)
def test_unit_makes_keys_of_length_one_and_leaves_zero_at_zero(regime):
    k = 3 * BY_NAME[regime](Shape(), seed=0)["k"]
    length = ops.unit(k).norm(dim=-1)
    assert (length - (k.norm(dim=-1) > 0).double()).abs().max() < 1e-6
