"""Root-mean-square norms: of a layer's input, and of a linear layer's read-out together with its gate."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import fused
from ..ops.checks import state_dtype


def unit_mean_square(x: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) over the last axis, in at least float32."""
    x = x.to(state_dtype(x.dtype))
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class RMSNorm(nn.Module):
    """weight ∘ x / rms(x), cast to x's dtype before the weight multiplies: the released model's order."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if kernels := fused.kernels(x, self.weight):
            return kernels.norm(x, self.weight, self.eps)
        return self.weight * F.rms_norm(x, x.shape[-1:], eps=self.eps)

    def of_sum(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """x + y and its norm: what ends one half of a layer, and begins the next. None adds nothing."""
        if y is None:
            return x, self(x)
        if kernels := fused.kernels(x, y, self.weight):
            return kernels.add_norm(x, y, self.weight, self.eps)
        x = x + y
        return x, self(x)


class GatedRMSNorm(nn.Module):
    """weight ∘ x / rms(x) ∘ SiLU(gate): norm first, then gate, all in float32 and cast once, at the end."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        if kernels := fused.kernels(x, gate, self.weight):
            return kernels.gated_norm(x, gate, self.weight, self.eps)
        normed = unit_mean_square(x, self.eps)
        return (self.weight.to(normed.dtype) * normed * F.silu(gate.to(normed.dtype))).to(x.dtype)
