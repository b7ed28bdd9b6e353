"""Every wrong version of the kernels is caught by the comparison with the recurrence, in a regime named here."""

import dataclasses

import pytest

from kernels.configurations import configuration
from tests.kernels.cases import error, inputs, oracle
from tests.kernels.wrong import WRONG, wrong_module

REGIME = {"no clamp of −∞": "resets", "plain running sums": "strong"}  # all others fall to "wide" already


def furthest(forward, regime: str) -> float:
    case = inputs(regime, B=2, T=150, K=16, V=16)
    config = dataclasses.replace(configuration(case["q"]), chunk=64)
    found = forward(**case, scale=1.0, normalize_qk=False, config=config)
    return max(error(a, b) if a.isfinite().all() else float("inf") for a, b in zip(found, oracle(case), strict=True))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_caught(name, tmp_path):
    assert furthest(wrong_module(name, tmp_path).forward, REGIME.get(name, "wide")) > 1e-5
