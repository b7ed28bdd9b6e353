"""Whole decoder layers through the kernels against the plain layers: any pieces, single tokens, several rows."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import kernels
from minivl.layers import fast
from minivl.layers.decoder import HybridBlock
from minivl.memory import Memory
from minivl.ops.rotary import text_positions
from tests.kernels.rules import DEVICE
from tests.models import small_config, varied_block
from tests.tolerances import close, relative_error

WINDOW, LONGEST = 6, 5


def block_of(pattern: str, *, dtype=torch.float32, seed: int = 0) -> HybridBlock:
    """Widths that the kernels take."""
    config = dataclasses.replace(
        small_config(pattern, window=WINDOW), hidden_size=32, intermediate_size=48, head_dim=16,
        mrope_section=(4, 2, 2), num_linear_heads=2, linear_head_dim=16,
    )  # fmt: skip
    return varied_block(config, seed=seed).to(DEVICE, dtype).requires_grad_(False)


def pieces_of(T: int, cuts: list[int]) -> list[slice]:
    """Cut at these places, and wherever a piece would be too long for the ring."""
    places = sorted({0, T, *(cut for cut in cuts if cut < T), *range(0, T, LONGEST)})
    return [slice(a, b) for a, b in pairwise(places)]


def read(block: HybridBlock, x: Tensor, cuts: list[int], *, by_kernels: bool) -> tuple[Tensor, Memory]:
    memory, out = block.new_memory(len(x), longest_write=LONGEST), []
    for piece in pieces_of(x.shape[1], cuts):
        positions = text_positions(memory.next_position, x[:, piece].shape[1], None)
        positions = torch.stack([positions[0], 2 * positions[1], 3 * positions[2]])  # three axes, told apart
        if by_kernels:
            out.append(fast.write(kernels, block, x[:, piece], positions, memory, None))
        else:
            out.append(block.write(x[:, piece], positions, memory, None))
        memory.advance(positions, None)
    return torch.cat(out, 1), memory


@given(
    pattern=st.sampled_from(["1 + 3", "linear first", "window only"]), B=st.integers(1, 3), T=st.integers(1, 17),
    cuts=st.lists(st.integers(1, 16), max_size=12), seed=st.integers(0, 99),
)  # fmt: skip
def test_layers_by_kernels_equal_plain_layers_and_leave_the_same_memory(pattern, B, T, cuts, seed):
    block = block_of(pattern, seed=seed)
    x = torch.randn(B, T, 32, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    expected, plain_memory = read(block, x, cuts, by_kernels=False)
    out, memory = read(block, x, cuts, by_kernels=True)
    close(out, expected, tolerance=1e-5)
    for name, tensor in memory.tensors().items():
        close(tensor, plain_memory.tensors()[name], tolerance=1e-5, what=name)
    assert not any(layer.arrivals.any() for layer in memory.layers if hasattr(layer, "arrivals"))


def test_a_row_whose_mask_is_false_takes_nothing_in():
    block = block_of("1 + 3")
    x = torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    _, memory = read(block, x[:, :8], [], by_kernels=True)
    before = {name: tensor.clone() for name, tensor in memory.tensors().items()}
    mask = torch.tensor([[True], [False], [True]], device=DEVICE)
    positions = text_positions(memory.next_position, 1, None)
    plain_memory = memory.clone()
    out = fast.write(kernels, block, x[:, 8:], positions, memory, mask)
    expected = block.write(x[:, 8:], positions, plain_memory, mask)
    close(out[mask[:, 0]], expected[mask[:, 0]], tolerance=1e-5)
    for name, tensor in memory.tensors().items():
        close(tensor, plain_memory.tensors()[name], tolerance=1e-5, what=name)
        assert torch.equal(tensor[1], before[name][1]), name


def test_rows_of_x_may_have_gaps():
    block, x = block_of("1 + 3"), torch.randn(1, 2, 64, generator=torch.Generator().manual_seed(3)).to(DEVICE)[..., ::2]
    for T in (1, 2):
        out, _ = read(block, x[:, :T], [], by_kernels=True)
        assert torch.equal(out, read(block, x[:, :T].contiguous(), [], by_kernels=True)[0])


def test_a_matrix_with_rows_too_long_for_one_vector_s_kernel_takes_the_other_form():
    config, x = block_of("1 + 3").config, torch.zeros(1, 1, 32)
    long = dataclasses.replace(config, intermediate_size=kernels.matrix_vector.WIDEST + 1)
    assert fast.is_vector(kernels, config, x)
    assert not fast.is_vector(kernels, long, x)
    assert not fast.is_vector(kernels, config, x.expand(2, 1, 32))


def test_any_weight_that_learns_keeps_the_kernels_away(monkeypatch):
    """They make no gradients."""
    block, seen = block_of("1 + 3").fuse(), []
    monkeypatch.setattr(fast.fused, "kernels", lambda *tensors: seen.append(tensors))
    learns = block.layers[2].mlp.up_proj.weight.requires_grad_()
    fast.ready(block, torch.zeros(1, 1, 32))
    assert any(tensor is learns for tensor in seen[0])
    with torch.no_grad():
        fast.ready(block, torch.zeros(1, 1, 32))
    assert len(seen[1]) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_fused_block_is_as_near_the_truth_as_a_plain_one(dtype):
    block = block_of("1 + 3", dtype=dtype)
    x = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(2)).to(DEVICE, dtype)
    cuts = [1, 2, 3, 20, 21]
    truth, _ = read(block_of("1 + 3").double(), x.double(), cuts, by_kernels=False)
    plain, _ = read(block, x, cuts, by_kernels=False)
    by_hand, _ = read(block, x, cuts, by_kernels=True)
    memory = block.fuse().new_memory(2, longest_write=LONGEST)
    fused = torch.cat([block(x[:, piece], memory=memory) for piece in pieces_of(64, cuts)], 1)
    assert relative_error(by_hand, truth) <= 1.25 * relative_error(plain, truth)
    assert fused.shape == x.shape


@pytest.mark.gpu
def test_a_fused_block_goes_by_the_kernels_where_it_can_and_only_there():
    block, x = block_of("1 + 3", dtype=torch.bfloat16), torch.zeros(1, 3, 32, device=DEVICE, dtype=torch.bfloat16)
    memory, mask = block.new_memory(), torch.ones(1, 3, device=DEVICE, dtype=torch.bool)
    assert fast.kernels_for(block, x, memory, None) is None
    block.fuse()
    assert fast.kernels_for(block, x, memory, None) is kernels
    assert fast.kernels_for(block, x[:, :1], memory, mask[:, :1]) is kernels
    assert fast.kernels_for(block, x, memory, mask) is None
    assert fast.kernels_for(block, x, None, None) is None
    assert fast.kernels_for(block.float(), x.float(), memory, None) is None
