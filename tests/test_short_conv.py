"""The short convolution and the tail that it carries."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.ops.short_conv import short_conv

from . import conv_claims
from .cases import by_name
from .conv_claims import ConvCase, conv_cases
from .tolerances import close, tolerance


@pytest.mark.parametrize("claim", conv_claims.CLAIMS, ids=by_name)
@given(data=st.data())
def test_claim(claim, data):
    claim(short_conv, data.draw(conv_cases()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("T", [0, 1, 3, 4, 40])
def test_narrower_dtypes_keep_their_tolerance(T, dtype):
    inputs = ConvCase(T=T, D=32, dtype=dtype).inputs()
    out, tail = short_conv(**inputs)
    oracle, last = conv_claims.by_the_equation(**inputs)
    assert out.dtype == tail.dtype == dtype
    close(out, oracle, tolerance=tolerance(dtype))
    assert torch.equal(tail.double(), last)


def test_gradients_equal_finite_differences():
    leaves = [x.requires_grad_() for x in ConvCase(B=1, T=5, D=2).inputs().values()]
    assert torch.autograd.gradcheck(lambda x, weight, tail: short_conv(x, weight, tail=tail), leaves)


def test_a_weight_of_one_on_the_last_tap_returns_the_input():
    inputs = ConvCase().inputs()
    identity = torch.zeros_like(inputs["weight"])
    identity[..., -1] = 1
    assert torch.equal(short_conv(inputs["x"], identity, tail=inputs["tail"])[0], inputs["x"])


@pytest.mark.gpu
@pytest.mark.parametrize("claim", conv_claims.CLAIMS, ids=by_name)
def test_claim_on_a_gpu(claim):
    claim(short_conv, ConvCase(T=40, D=32, dtype=torch.float32, device="cuda"))
