"""Padding on any side is inert: each row gives what it gives alone, and remembers what it remembers alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.config import MIXERS

from .models import PATTERNS, error, new_memory, small_block, tokens

BOUND = 1e-10


def masks(T: int, side: str, seed: int) -> torch.Tensor:
    """Three rows of T: one whole, one partly padding, one all padding."""
    generator = torch.Generator().manual_seed(seed)
    real = torch.zeros(3, T, dtype=torch.bool)
    real[0] = True
    length = int(torch.randint(0, T + 1, (), generator=generator))
    if side == "left":
        real[1, T - length :] = True
    elif side == "right":
        real[1, :length] = True
    else:
        real[1] = torch.rand(T, generator=generator) < 0.6
    return real


def poisoned(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """x with NaN wherever there is padding: whatever leaks, shows."""
    return x.masked_fill(~mask[..., None], torch.nan)


every_pattern = pytest.mark.parametrize("pattern", PATTERNS)
every_side = pytest.mark.parametrize("side", ["left", "right", "scattered"])


@every_pattern
@every_side
@pytest.mark.parametrize("mixer", MIXERS)
@given(T=st.integers(1, 16), seed=st.integers(0, 99))
def test_each_row_gives_what_it_gives_alone(pattern, side, mixer, T, seed):
    block = small_block(pattern, mixer, seed=seed)
    mask = masks(T, side, seed)
    x = tokens(3, T, seed)
    with torch.no_grad():
        out = block(poisoned(x, mask), mask=mask)
        for row, real in enumerate(mask):
            assert error(out[row, real], block(x[row : row + 1, real])[0]) < BOUND


@every_pattern
@every_side
@given(first=st.integers(1, 12), second=st.integers(1, 12), seed=st.integers(0, 99))
def test_each_row_remembers_what_it_remembers_alone(pattern, side, first, second, seed):
    """Two padded calls in a row, so that the second one's padding stands between a memory and its continuation."""
    block = small_block(pattern, seed=seed)
    calls = [(tokens(3, T, seed + i), masks(T, side, seed + i)) for i, T in enumerate((first, second))]
    together = new_memory(block, 3)
    with torch.no_grad():
        outs = [block(poisoned(x, mask), memory=together, mask=mask) for x, mask in calls]
        for row in range(3):
            alone = new_memory(block)
            for (x, mask), out in zip(calls, outs, strict=True):
                expected = block(x[row : row + 1, mask[row]], memory=alone)[0]
                assert error(out[row, mask[row]], expected) < BOUND
            for name, remembered in alone.tensors().items():
                kept = together.tensors()[name][row]
                if remembered.dtype == torch.int64:
                    assert torch.equal(kept, remembered[0]), name
                else:
                    assert error(kept, remembered[0]) < BOUND, name


@every_pattern
def test_float32_rows_agree_within_its_rounding(pattern):
    block = small_block(pattern).float()
    mask = masks(40, "left", seed=3)
    x = tokens(3, 40, dtype=torch.float32)
    with torch.no_grad():
        out = block(poisoned(x, mask), mask=mask)
        for row, real in enumerate(mask):
            assert error(out[row, real], block(x[row : row + 1, real])[0]) < 1e-5


@every_pattern
@every_side
def test_padding_gets_no_gradient_and_spoils_none(pattern, side):
    block, mask = small_block(pattern), masks(11, side, seed=4)
    x = tokens(3, 11).requires_grad_()
    block(x, mask=mask)[mask].square().sum().backward()
    assert (x.grad[~mask] == 0).all()
    together = {name: parameter.grad.clone() for name, parameter in block.named_parameters()}
    block.zero_grad()
    for row, real in enumerate(mask):
        block(x.detach()[row : row + 1, real]).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert error(together[name], parameter.grad) < BOUND or parameter.grad.norm() < 1e-8, name


def test_a_mask_of_ones_changes_nothing():
    block, x = small_block(), tokens(2, 9)
    with torch.no_grad():
        assert torch.equal(block(x), block(x, mask=torch.ones(2, 9, dtype=torch.bool)))
