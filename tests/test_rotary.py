"""Rotary positions: RoPE and M-RoPE against complex rotations written out plane by plane."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.ops.rotary import mrope, rope, rotate, text_positions

from . import rotary_claims
from .rotary_claims import RELEASED, RotaryCase


def turn(x, positions, **shape):
    return rotate(x, *mrope(positions, **shape))


cases = st.builds(RotaryCase, st.booleans(), st.sampled_from([100, 2_000_000]), st.integers(0, 2**31))


@given(cases)
def test_each_plane_turns_by_its_own_axis(case):
    rotary_claims.each_plane_turns_by_its_own_axis(turn, case)


@given(cases)
def test_only_distances_matter(case):
    rotary_claims.only_distances_matter(turn, case)


def test_released_sections_are_time_height_width():
    """Planes 0–15 listen to time, 16–39 to height, 40–63 to width, and the second half of the channels likewise."""
    for axis, planes in enumerate([range(16), range(16, 40), range(40, 64)]):
        positions = torch.zeros(3, 1, 1, dtype=torch.int64)
        positions[axis] = 1
        cos, sin = mrope(positions, **RELEASED)
        turned = {c for c in range(128) if sin[0, 0, c] != 0}
        assert turned == {*planes, *(c + 64 for c in planes)}
        assert all(cos[0, 0, c] == 1 for c in range(128) if c not in turned)


def test_text_on_three_equal_axes_is_plain_rope():
    positions = torch.arange(40)[None]
    plain = rope(positions, width=128, theta=1e6)
    three = mrope(positions.expand(3, -1, -1), **RELEASED)
    assert torch.equal(plain[0], three[0])
    assert torch.equal(plain[1], three[1])


def test_cos_and_sin_are_cast_to_the_input_before_they_are_applied():
    x = torch.randn(1, 6, 2, 128).bfloat16()
    cos, sin = mrope(torch.randint(0, 9000, (3, 1, 6)), **RELEASED)
    assert cos.dtype == sin.dtype == torch.float64
    a, b = x.chunk(2, -1)
    half = torch.cat([-b, a], -1)
    assert torch.equal(rotate(x, cos, sin), x * cos.bfloat16()[:, :, None] + half * sin.bfloat16()[:, :, None])


def test_text_positions_count_real_tokens_only():
    mask = torch.tensor([[False, True, True, False, True], [True, True, True, True, False]])
    positions = text_positions(torch.tensor([7, 0]), 5, mask)
    assert positions.shape == (3, 2, 5)
    assert positions[0, 0][mask[0]].tolist() == [7, 8, 9]
    assert positions[2, 1][mask[1]].tolist() == [0, 1, 2, 3]
    assert torch.equal(text_positions(torch.tensor([3]), 4)[1, 0], torch.tensor([3, 4, 5, 6]))


@pytest.mark.parametrize(
    ("positions", "sections", "message"),
    [
        (torch.zeros(2, 1, 4, dtype=torch.int64), (16, 24, 24), r"positions has shape \[2, 1, 4\]; it should be \[3, "),
        (torch.zeros(3, 1, 4), (16, 24, 24), r"positions is torch.float32; it should be torch.int64"),
        (torch.zeros(3, 1, 4, dtype=torch.int64), (16, 24), r"sections is \(16, 24\); it should be three numbers"),
        (torch.zeros(3, 1, 4, dtype=torch.int64), (16, 24, 25), r"sections .* sum to half the width, 128"),
    ],
)
def test_wrong_positions_and_sections_are_named(positions, sections, message):
    with pytest.raises((ValueError, TypeError), match=message):
        mrope(positions, width=128, theta=1e6, sections=sections)


def test_rotation_refuses_angles_of_another_shape():
    cos, sin = mrope(torch.zeros(3, 1, 1, dtype=torch.int64), **RELEASED)
    with pytest.raises(ValueError, match=r"cos has shape \[1, 1, 128\]; it should be \[1, 4, 128\]"):
        rotate(torch.randn(1, 4, 2, 128), cos, sin)
