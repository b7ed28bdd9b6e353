"""The gated delta rule: recurrent, chunked, one step at a time, and the dispatcher, in every regime."""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.ops import gated_delta_rule as ops

from . import claims, regimes
from .cases import SCALE, Case, Rule, by_name, cases, claims_on, gradients
from .regimes import Shape
from .rungs import GATES, gated_rules
from .tolerances import close, tolerance

RECURRENT, CHUNKED, STEP = RULES = gated_rules(ops)


@claims_on(RULES, regimes.GATED, claims.claims_of)
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


@pytest.mark.parametrize("regime", regimes.GATED)
@pytest.mark.parametrize("rule", RULES, ids=by_name)
@given(data=st.data())
def test_float32_keeps_its_tolerance(rule, regime, data):
    """Sizes where no single number stands for a whole tensor: one that cancels by chance would have no digits left."""
    claims.it_equals_the_recurrence(rule, data.draw(cases(regime, torch.float32, widths=(8, 16), shortest=4)))


@pytest.mark.parametrize("regime", regimes.GATED)
def test_float32_keeps_its_tolerance_over_a_thousand_tokens(regime):
    case = Case(regime, Shape(B=1, T=1000, H=1, K=32, V=16), chunk=64, dtype=torch.float32)
    claims.it_equals_the_recurrence(RECURRENT, case)
    claims.it_equals_the_recurrence(CHUNKED, case)
    claims.gradients_equal_the_recurrences(CHUNKED, case)


@pytest.mark.parametrize("regime", regimes.GATED)
def test_it_keeps_its_tolerance_at_the_models_widths(regime):
    case = Case(regime, Shape(B=1, T=130, H=1, K=128, V=256), chunk=64, dtype=torch.float32)
    claims.it_equals_the_recurrence(CHUNKED, case)
    claims.gradients_equal_the_recurrences(CHUNKED, case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("regime", regimes.GATED)
@pytest.mark.parametrize("rule", RULES, ids=by_name)
def test_half_precision_in_is_half_precision_out_and_a_float32_state(rule, regime, dtype):
    case = Case(regime, Shape(T=70, K=16, V=32), chunk=16, dtype=dtype)
    claims.the_output_keeps_its_dtype_and_the_state_is_at_least_float32(rule, case)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("T", [1, 8, 37])
def test_the_gradient_of_gates_that_all_forget_strongly_keeps_its_digits(T, dtype):
    """It is small, about α, but it is all that such a gate learns from. With T = 37 the last chunk has filling."""
    inputs = RECURRENT.inputs(Case(shape=Shape(T=T), dtype=dtype))
    inputs["log_decay"] = -20 + 2 * regimes.Draw(0).uniform(*inputs["log_decay"].shape).to(dtype)
    exact = {name: x.double() for name, x in inputs.items()}
    oracle = gradients(lambda leaves: ops.recurrent(**leaves), exact, 0)
    for chunk in (16, 64):
        actual = gradients(lambda leaves, chunk=chunk: ops.chunked(**leaves, chunk=chunk), inputs, 0)
        close(actual["log_decay"], oracle["log_decay"], tolerance=tolerance(dtype))


@pytest.mark.parametrize("backend", ["recurrent", "chunked", "auto"])
@pytest.mark.parametrize("regime", regimes.GATED)
@given(data=st.data())
def test_every_backend_gives_the_recurrences_answer_and_says_which_one_ran(regime, backend, data):
    case = data.draw(cases(regime))
    rule = Rule(backend, functools.partial(ops.gated_delta_rule, backend=backend), ops.recurrent, GATES, naive=True)
    claims.it_equals_the_recurrence(rule, case)
    ran = ops.gated_delta_rule.last_backend
    assert ran == backend if backend != "auto" else ran in ("recurrent", "chunked")


@pytest.mark.parametrize(
    ("T", "gradient", "expected"),
    [(1, False, "recurrent"), (64, False, "chunked"), (1, True, "recurrent"), (64, True, "chunked")],
)
def test_auto_takes_the_recurrence_for_a_token_and_chunks_for_many_on_a_cpu(T, gradient, expected):
    inputs = RECURRENT.inputs(Case(shape=Shape(T=T), dtype=torch.float32))
    inputs["q"].requires_grad_(gradient)
    ops.gated_delta_rule(**inputs)
    assert ops.gated_delta_rule.last_backend == expected


def test_float64_never_reaches_triton_and_the_fallback_says_so():
    rule = Rule("triton", functools.partial(ops.gated_delta_rule, backend="triton"), ops.recurrent, GATES)
    claims.it_equals_the_recurrence(rule, Case())
    assert ops.gated_delta_rule.last_backend == "chunked"


def test_step_changes_its_state_in_place_and_returns_it():
    inputs = RECURRENT.inputs(Case(shape=Shape(T=1)))
    state, oracle = inputs["state"], RECURRENT.truth(inputs)
    out, after = ops.step(**inputs, scale=SCALE)
    assert after is state
    RECURRENT.agree(Case(), (out, state), oracle)


@pytest.mark.gpu
@claims_on((CHUNKED,), regimes.GATED, claims.claims_of)
def test_claim_on_a_gpu(claim, rule, regime):
    dtype = torch.float64 if claim is claims.gradients_equal_finite_differences else torch.float32
    claim(rule, Case(regime, Shape(T=70, K=16, V=32), chunk=16, dtype=dtype, device="cuda"))
