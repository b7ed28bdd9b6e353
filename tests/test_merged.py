"""Weights laid side by side: one matrix more to see, and everything else as it was."""

import pytest
import torch
from torch import nn

from minivl.layers.merged import merged
from tests.models import small_block


def three(bias: bool = True) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(6, width, bias=bias) for width in (4, 2, 3)]


def test_the_whole_is_the_parts_one_below_the_other():
    linears, x = three(), torch.randn(5, 6)
    expected = torch.cat([linear(x) for linear in linears], -1)
    matrix = merged(*linears)
    assert matrix.scale is None
    assert torch.equal(matrix.weight, torch.cat([linear.weight for linear in linears]))
    torch.testing.assert_close(nn.functional.linear(x, matrix.weight, matrix.bias), expected)
    assert merged(*three(bias=False)).bias is None


def test_parts_stay_the_same_parameters_and_share_the_whole_s_memory():
    linears = three()
    parameters = [linear.weight for linear in linears]
    matrix = merged(*linears)
    assert all(linear.weight is parameter for linear, parameter in zip(linears, parameters, strict=True))
    with torch.no_grad():
        linears[1].weight.fill_(7)
    assert torch.equal(matrix.weight[4:6], torch.full((2, 6), 7.0))


def test_a_second_look_moves_nothing():
    linears = three()
    assert merged(*linears).weight.data_ptr() == merged(*linears).weight.data_ptr() == linears[0].weight.data_ptr()


def test_parts_that_were_moved_are_laid_together_again():
    linears = three()
    merged(*linears)
    linears[1].weight.data = linears[1].weight.detach() + 1
    matrix = merged(*linears)
    assert torch.equal(matrix.weight, torch.cat([linear.weight for linear in linears]))
    assert linears[1].weight.untyped_storage().data_ptr() == linears[0].weight.untyped_storage().data_ptr()


def test_a_fused_block_has_the_same_names_numbers_and_answers():
    block = small_block(dtype=torch.float32)
    before = {name: x.clone() for name, x in block.state_dict().items()}
    x = torch.randn(2, 7, 24)
    expected = block(x)
    after = block.fuse().state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(block(x), expected)


def test_a_fused_block_loads_new_weights():
    block, other = small_block(dtype=torch.float32).fuse(), small_block(seed=1, dtype=torch.float32)
    for assign in (False, True):
        block.load_state_dict(other.state_dict(), assign=assign)
        x = torch.randn(1, 3, 24)
        assert torch.equal(block(x), other(x))
        mixer = block.layers[1].self_attn
        whole = merged(mixer.q_proj, mixer.k_proj).weight
        assert torch.equal(whole, torch.cat([other.layers[1].self_attn.q_proj.weight, mixer.k_proj.weight]))


def test_parts_of_two_dtypes_are_refused():
    linears = three()
    linears[1].bfloat16()
    with pytest.raises(TypeError, match="should be of one dtype"):
        merged(*linears)


def test_weights_that_are_laid_out_during_inference_may_be_trained_afterwards():
    linears = three()
    with torch.inference_mode():
        merged(*linears)
    sum(linear(torch.randn(2, 6)).sum() for linear in linears).backward()
    assert all(linear.weight.grad is not None for linear in linears)
