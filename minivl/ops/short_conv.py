"""Short convolution: each channel mixes its own last four values, and carries the last three over to the next call.

Gated DeltaNet has no positions; the convolution before its q, k and v gives each token a look at its neighbours. Each
channel has its own filter (depthwise) and sees only the past (causal). What must be remembered between calls is the
tail: the last inputs of the convolution, before it and before any SiLU. A stream begins with a tail of zeros.

    out_t[d] = Σ_i weight[d, i] · x_{t−3+i}[d]        the last tap, i = 3, is the token itself

    code      shape                 dtype        range
    x         [B, T, D]             any float    any
    weight    [D, 1, taps]          x's          taps = 4 in the model
    tail      [B, taps − 1, D]      x's          the last inputs, oldest first
    lengths   [B]                   int64        0 … T: tokens of each row that are real; padding follows them
    out       [B, T, D]             x's
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import checks


def short_conv(
    x: Tensor, weight: Tensor, *, tail: Tensor | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """out_t = Σ_i weight_i ∘ x_{t−taps+1+i} with `tail` standing before x_0; returns (out, the new tail)."""
    checks.tensor("x", x, ("B", "T", "D"))
    B, T, D = x.shape
    checks.tensor("weight", weight, (D, 1, "taps"), x.dtype)
    if weight.shape[-1] == 0:
        raise ValueError(f"weight has shape {list(weight.shape)}; it should have at least one tap")
    carried = weight.shape[-1] - 1
    if tail is None:
        tail = x.new_zeros(B, carried, D)
    checks.tensor("tail", tail, (B, carried, D), x.dtype)
    checks.same_device(x=x, weight=weight, tail=tail)

    past = torch.cat([tail, x], dim=1)
    out = F.conv1d(past.mT, weight, groups=D).mT if T else x
    if lengths is None:
        return out, past[:, T:]
    checks.tensor("lengths", lengths, (B,), torch.int64)
    checks.same_device(x=x, lengths=lengths)
    last = lengths[:, None] + torch.arange(carried, device=x.device)  # row b's tail ends at its own last real token
    return out, past.gather(1, last[..., None].expand(-1, -1, D))
