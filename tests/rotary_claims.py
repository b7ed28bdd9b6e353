"""Claims about rotations. Each takes `turn(x, positions, width, theta, sections)` and one case."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .models import error

RELEASED = {"width": 128, "theta": 1e6, "sections": (16, 24, 24)}
TINY = {"width": 8, "theta": 10.0, "sections": (2, 1, 1)}


@dataclass(frozen=True)
class RotaryCase:
    released: bool = True
    furthest: int = 100
    seed: int = 0

    @property
    def shape(self) -> dict:
        return RELEASED if self.released else TINY


def rotated_plane_by_plane(x: Tensor, positions: Tensor, *, width: int, theta: float, sections: tuple) -> Tensor:
    """Turn x[b, t, h] as complex numbers x_c + i x_{c + K/2}, one plane after the other."""
    axis_of_plane = [axis for axis, count in enumerate(sections) for _ in range(count)]
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            for c in range(width // 2):
                angle = positions[axis_of_plane[c], b, t].item() * theta ** (-2 * c / width)
                cos, sin = math.cos(angle), math.sin(angle)
                along, across = x[b, t, :, c], x[b, t, :, c + width // 2]
                out[b, t, :, c] = along * cos - across * sin
                out[b, t, :, c + width // 2] = along * sin + across * cos
    return out


def each_plane_turns_by_its_own_axis(turn, case: RotaryCase) -> None:
    generator = torch.Generator().manual_seed(case.seed)
    positions = torch.randint(0, case.furthest, (3, 2, 4), generator=generator)
    x = torch.randn(2, 4, 2, case.shape["width"], generator=generator, dtype=torch.float64)
    # An angle of 2,000,000 still has ten digits in float64.
    assert error(turn(x, positions, **case.shape), rotated_plane_by_plane(x, positions, **case.shape)) < 1e-9


def only_distances_matter(turn, case: RotaryCase) -> None:
    generator = torch.Generator().manual_seed(case.seed)
    q, k = torch.randn(2, 1, 5, 2, case.shape["width"], generator=generator, dtype=torch.float64)
    positions = torch.randint(0, case.furthest, (3, 1, 5), generator=generator)

    def products(shift: int) -> Tensor:
        turned = (turn(x, positions + shift, **case.shape) for x in (q, k))
        return torch.einsum("BiHK,BjHK->BHij", *turned)

    assert error(products(case.seed % 1000 + 1), products(0)) < 1e-9
