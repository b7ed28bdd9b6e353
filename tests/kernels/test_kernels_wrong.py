"""Every wrong version of the kernels is caught by the claim named beside it, in that claim's own words."""

import importlib
from types import ModuleType

import pytest

from kernels.operators import INTERPRETED
from tests.kernels.catching import Claim, wrong_module
from tests.kernels.wrong import WRONG

CLAIMS = tuple(dict.fromkeys((wrong.module, wrong.claim) for wrong in WRONG.values()))


def check(claim: Claim, module: ModuleType) -> None:
    if claim.interpreted and not INTERPRETED:
        pytest.skip("only Triton's interpreter shows which addresses are touched")
    claim.check(module)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_kernel_is_caught(name, tmp_path):
    """A crash is not a catch: only the claim's own assertion is."""
    module = wrong_module(WRONG[name], tmp_path)
    with pytest.raises(AssertionError, match=WRONG[name].claim.says):
        check(WRONG[name].claim, module)


@pytest.mark.parametrize(("name", "claim"), CLAIMS, ids=[name for name, _ in CLAIMS])
def test_a_claim_that_catches_wrong_kernels_lets_the_right_one_pass(name, claim):
    check(claim, importlib.import_module(f"kernels.{name}"))
