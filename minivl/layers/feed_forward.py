"""The feed-forward half of a decoder layer."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import fused


class SwiGLU(nn.Module):
    """W_down (SiLU(W_gate x) ∘ W_up x)."""

    def __init__(self, width: int, inner_width: int):
        super().__init__()
        self.gate_proj = nn.Linear(width, inner_width, bias=False)
        self.up_proj = nn.Linear(width, inner_width, bias=False)
        self.down_proj = nn.Linear(inner_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(gated_product(self.up_proj(x), self.gate_proj(x)))


def gated_product(x: Tensor, gate: Tensor) -> Tensor:
    """SiLU(gate) ∘ x."""
    if kernels := fused.kernels(x, gate):
        return kernels.gated_product(x, gate)
    return F.silu(gate) * x
