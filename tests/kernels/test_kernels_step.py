"""The one-token kernel against the float64 recurrence."""

import pytest
import torch

from kernels import step_gated_delta_rule
from tests.kernels.cases import REGIMES, error, inputs, oracle


@pytest.mark.parametrize(("K", "V"), [(16, 16), (32, 64), (128, 256)])
@pytest.mark.parametrize("regime", REGIMES)
def test_a_step_equals_one_token_of_the_recurrence(regime, K, V):
    case = inputs(regime, B=2, T=1, H=2, K=K, V=V)
    exact = oracle(case, scale=0.3, normalize_qk=True)
    out, state = step_gated_delta_rule(**case, scale=0.3, normalize_qk=True)
    assert state is case["state"]
    assert error(out, exact[0]) < 1e-5
    assert error(state, exact[1]) < 1e-5


def test_decoding_equals_prefilling():
    case = inputs("wide", B=2, T=9)
    exact = oracle(case)
    state, out = case.pop("state"), []
    for t in range(9):
        found, state = step_gated_delta_rule(**{name: x[:, t : t + 1] for name, x in case.items()}, state=state)
        out.append(found)
    assert error(torch.cat(out, 1), exact[0]) < 1e-5
    assert error(state, exact[1]) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c | inputs("wide", T=2), "q has T = 2; it should be 1"),
        (lambda c: c | {"state": None}, "state is None; a step needs the state"),
        (lambda c: c | {"state": c["state"].mT}, "state is not contiguous"),
        (lambda c: c | {"q": c["q"].requires_grad_()}, "a step makes no gradients"),
    ],
)
def test_a_fault_is_told_in_one_sentence(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        step_gated_delta_rule(**change(inputs("wide", T=1)))


def test_the_operator_is_registered_as_pytorch_demands():
    operator = torch.ops.minivl.step_gated_delta_rule.default
    torch.library.opcheck(operator, (*inputs("wide", T=1).values(), 0.5, True))
