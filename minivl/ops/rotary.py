"""Rotary positions: a key and a query are turned by angles, so that their product knows how far apart they stand.

Channel pairs (c, c + K/2) turn as one plane each, at frequency theta^(−2c/K): the first plane fast, the last slowly.
Turning q by its position and k by its own leaves in q·k only their difference. In M-RoPE a token has three positions,
time, height and width, and the planes are shared out among them in sections (16, 24, 24 of InfiniteVL's 64): planes
0–15 turn with time, 16–39 with height, 40–63 with width. Text has the same number on all three, which makes it plain
RoPE. Keys are turned before they are stored, at their absolute positions.

    x ← x ∘ cos + half_turn(x) ∘ sin        angle of plane c = position on c's axis · theta^(−2c/K)

    code        shape          dtype                  range
    positions   [3, B, T]      int64                  axes: time, height, width
    sections    3 numbers      int                    their sum is K / 2
    cos, sin    [B, T, K]      float64 or float32     [−1, 1]; cast to x's dtype when applied
    x           [B, T, H, K]   any float              q or k
"""

import torch
from torch import Tensor

from . import checks


def mrope(positions: Tensor, *, width: int, theta: float, sections: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """positions [3, B, T] → cos, sin [B, T, width]: each plane's angle from its own axis.

    Angles are made in float64: at position 1,000,000 a float32 angle is off by up to 0.06, and streams get there.
    """
    checks.tensor("positions", positions, (3, "B", "T"), torch.int64)
    if width % 2 or 2 * sum(sections) != width or len(sections) != 3:
        raise ValueError(
            f"sections is {tuple(sections)}; it should be three numbers that sum to half the width, {width}"
        )
    wide = torch.float32 if positions.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    frequency = theta ** (-2 * torch.arange(width // 2, dtype=wide, device=positions.device) / width)
    axes = zip(positions, sections, strict=True)
    of_plane = torch.cat([axis[..., None].expand(-1, -1, planes) for axis, planes in axes], dim=-1)
    angle = of_plane * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rope(positions: Tensor, *, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Plain RoPE: positions [B, T] → cos, sin [B, T, width]."""
    return mrope(positions.expand(3, -1, -1), width=width, theta=theta, sections=(width // 2, 0, 0))


def half_turn(x: Tensor) -> Tensor:
    """(a, b) → (−b, a), a and b the two halves of the channels: each plane turned by a right angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x ∘ cos + half_turn(x) ∘ sin, in x's dtype."""
    checks.tensor("x", x, ("B", "T", "H", "K"))
    B, T, _, K = x.shape
    checks.tensor("cos", cos, (B, T, K))
    checks.tensor("sin", sin, (B, T, K))
    cos, sin = cos.to(x.dtype).unsqueeze(2), sin.to(x.dtype).unsqueeze(2)
    return x * cos + half_turn(x) * sin


def text_positions(start: Tensor, T: int, mask: Tensor | None = None) -> Tensor:
    """Row b's real tokens count up from start[b], alike on all three axes: start [B] → [3, B, T].

    Padding (mask False) gets numbers too, but ones that mean nothing.
    """
    steps = torch.arange(T, device=start.device) if mask is None else mask.cumsum(1) - 1
    return (start[:, None] + steps).expand(3, -1, -1)
