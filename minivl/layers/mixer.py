"""What the two kinds of token mixer share: rows of unequal length in one batch, made to look like rows alone.

Padding may stand on either side of a row, or inside it. Before a mixer runs, each row's real tokens are moved to its
front; after it, they are moved back. Then padding only ever follows the real tokens, where causality hides it from
them, and a mixer needs just `lengths` to keep it out of what is remembered.
"""

import torch
from torch import Tensor, nn

from ..ops import checks


class Mixer(nn.Module):
    """x [B, T, D] → [B, T, D]; a subclass implements `mix`, for rows whose padding follows their real tokens."""

    def mix(self, x: Tensor, positions: Tensor, memory, lengths: Tensor | None) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, *, positions: Tensor | None = None, memory=None, mask: Tensor | None = None) -> Tensor:
        """positions [3, B, T] int64; memory: this layer's part of a Memory, continued; mask [B, T], True where real."""
        checks.tensor("x", x, ("B", "T", "D"))
        B, T, _ = x.shape
        if positions is not None:
            checks.tensor("positions", positions, (3, B, T), torch.int64)
        if mask is None:
            return self.mix(x, positions, memory, None)
        checks.tensor("mask", mask, (B, T), torch.bool)
        order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)  # real tokens first, order kept
        back = order[..., None].expand_as(x)
        x = x.masked_fill(~mask[..., None], 0).gather(1, back)  # whatever padding holds, NaN included, ends here
        if positions is not None:
            positions = positions.gather(2, order.expand_as(positions))
        out = self.mix(x, positions, memory, mask.sum(1))
        return torch.zeros_like(out).scatter(1, back, out)
