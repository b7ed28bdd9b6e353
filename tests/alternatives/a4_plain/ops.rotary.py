"""Axis by axis with a mask over the planes; planes as complex numbers."""

import torch


def mrope(positions, *, width, theta, sections):
    planes = torch.arange(width // 2).double()
    edges = torch.tensor([sections[0], sections[0] + sections[1]])
    axis = torch.bucketize(planes, edges, right=True)
    where = positions.double()[axis].permute(1, 2, 0)
    angle = where / theta ** (2 * planes / width)
    return torch.cos(angle).repeat(1, 1, 2), torch.sin(angle).repeat(1, 1, 2)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    number = torch.complex(x[..., :half], x[..., half:])
    turn = torch.complex(cos[:, :, None, :half], sin[:, :, None, :half]).to(number.dtype)
    return torch.cat([(number * turn).real, (number * turn).imag], -1)
