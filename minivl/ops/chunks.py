"""Cutting time into chunks, which every chunked form shares, and joining outputs along time again.

T tokens become N = ceil(T / C) chunks of C. The last one is filled up with zeros, and zeros are inert in every rule
of the ladder: a zero key writes nothing, and a log decay of zero forgets nothing. So the final state is right too.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from . import checks


def chunk_length(chunk: int, T: int) -> int:
    """C, shortened where all of T fits into less than one chunk, so that short inputs are not mostly filling."""
    checks.positive("chunk", chunk)
    return max(1, min(chunk, T))


def to_chunks(x: Tensor, C: int) -> Tensor:
    """[B, T, H, …] → [N, B, H, C, …]: chunks first, so that one loop over the first axis walks through time."""
    missing = -x.shape[1] % C
    if missing:  # filling up with nothing would still copy
        x = F.pad(x, [0, 0] * (x.ndim - 2) + [0, missing])
    return rearrange(x, "B (N C) H ... -> N B H C ...", C=C)


def from_chunks(out: list[Tensor], like: Tensor) -> Tensor:
    """N outputs [B, H, C, V] → [B, T, H, V] in the shape and dtype of `like`, the filling cut off."""
    if not out:  # T = 0
        return torch.zeros_like(like)
    joined = torch.cat([rearrange(x, "B H C V -> B C H V") for x in out], dim=1)
    return joined[:, : like.shape[1]].to(like.dtype)


def stack_time(out: list[Tensor], like: Tensor) -> Tensor:
    """T outputs [B, H, V] → [B, T, H, V] in the dtype of `like`."""
    return torch.stack(out, dim=1).to(like.dtype) if out else torch.zeros_like(like)
