"""Padding on any side is inert: each row gives what it gives alone, and remembers what it remembers alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.config import MIXERS

from . import layer_claims
from .layer_claims import BOUND, LayerCase, padded, poisoned, real
from .models import PATTERNS, error, small_block, tokens

every_pattern = pytest.mark.parametrize("pattern", PATTERNS)
every_side = pytest.mark.parametrize("side", ["left", "right", "scattered"])


@every_pattern
@every_side
@pytest.mark.parametrize("mixer", MIXERS)
@given(T=st.integers(1, 16), seed=st.integers(0, 99))
def test_each_row_gives_what_it_gives_alone(pattern, side, mixer, T, seed):
    layer_claims.each_row_gives_what_it_gives_alone(real, LayerCase(pattern, mixer, T, seed, side))


@every_pattern
@every_side
@pytest.mark.parametrize("mixer", MIXERS)
@given(T=st.integers(1, 16), seed=st.integers(0, 99))
def test_each_row_remembers_what_it_remembers_alone(pattern, side, mixer, T, seed):
    layer_claims.each_row_remembers_what_it_remembers_alone(real, LayerCase(pattern, mixer, T, seed, side))


@every_pattern
def test_float32_rows_agree_within_its_rounding(pattern):
    block = small_block(pattern).float()
    x, mask = tokens(3, 40, dtype=torch.float32), padded(40, "left", seed=3)
    with torch.no_grad():
        out = block(poisoned(x, mask), mask=mask)
        for row, there in enumerate(mask):
            assert error(out[row, there], block(x[row : row + 1, there])[0]) < 1e-5


@every_pattern
@every_side
def test_padding_gets_no_gradient_and_spoils_none(pattern, side):
    block, mask = small_block(pattern), padded(11, side, seed=4)
    x = tokens(3, 11).requires_grad_()
    block(x, mask=mask)[mask].square().sum().backward()
    assert (x.grad[~mask] == 0).all()
    together = {name: parameter.grad.clone() for name, parameter in block.named_parameters()}
    block.zero_grad()
    for row, there in enumerate(mask):
        block(x.detach()[row : row + 1, there]).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert error(together[name], parameter.grad) < BOUND or parameter.grad.norm() < 1e-8, name


def test_a_mask_of_ones_changes_nothing():
    block, x = small_block(), tokens(2, 9)
    with torch.no_grad():
        assert torch.equal(block(x), block(x, mask=torch.ones(2, 9, dtype=torch.bool)))
