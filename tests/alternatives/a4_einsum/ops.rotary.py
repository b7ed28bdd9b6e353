"""Angles of each section, cut from one list of frequencies; the turn as a 2×2 matrix a plane."""

import torch


def mrope(positions, *, width, theta, sections):
    frequency = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    parts = [p[..., None] * f for p, f in zip(positions, frequency.split(list(sections)), strict=True)]
    angle = torch.cat(parts * 2, -1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    planes = torch.stack(x.chunk(2, -1), -1)
    c, s = (y[:, :, None, : x.shape[-1] // 2].to(x.dtype) for y in (cos, sin))
    turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    return (turn @ planes[..., None])[..., 0].transpose(-1, -2).flatten(-2)
