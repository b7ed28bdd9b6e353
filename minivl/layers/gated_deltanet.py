"""Gated DeltaNet: the layer that remembers everything in a state of constant size.

q, k and v are projections, each through a short convolution and SiLU, then q and k are brought to length 1. Two more
projections make the gates, one number per head and token: how much is written (β) and how much is kept (α). There are
no positions: order is known from the convolution and from decay. The read-out is normed and gated.

    q, k, v = SiLU(conv(W x))        β = σ(W_b x)        log α = −exp(A_log) · softplus(W_a x + dt_bias)
    out     = W_o (RMSNorm(rule(q/|q| · K^−½, k/|k|, v, α, β)) ∘ SiLU(W_g x))

With `mixer` "delta" there is no α, with "linear" no β either: the lower rungs of the ladder in the same layer.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import DecoderConfig
from ..memory import LinearState
from ..ops import delta_rule, fused, linear_attention
from ..ops.checks import state_dtype
from ..ops.gated_delta_rule import gated_delta_rule
from ..ops.short_conv import short_conv
from .mixer import Mixer
from .norm import GatedRMSNorm


class ShortConv(nn.Module):
    """SiLU(short_conv(x)), with the carried tail of its inputs."""

    def __init__(self, width: int, taps: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1, taps).uniform_(-(taps**-0.5), taps**-0.5))

    def forward(self, x: Tensor, tail: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        weight = self.weight.to(x.dtype)  # under autocast the weight that learns is wider than what it is multiplied by
        if kernels := fused.kernels(x, weight):
            return kernels.short_conv_silu(x, weight, tail=tail, lengths=lengths)
        out, tail = short_conv(x, weight, tail=None if tail is None else tail.to(x.dtype), lengths=lengths)
        return F.silu(out), tail


class GatedDeltaNet(Mixer):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        D, H = config.hidden_size, config.num_linear_heads
        K, V, taps = config.linear_head_dim, config.linear_value_dim, config.conv_size
        self.q_proj = nn.Linear(D, H * K, bias=False)
        self.k_proj = nn.Linear(D, H * K, bias=False)
        self.v_proj = nn.Linear(D, H * V, bias=False)
        self.g_proj = nn.Linear(D, H * V, bias=False)
        self.o_proj = nn.Linear(H * V, D, bias=False)
        self.q_conv1d = ShortConv(H * K, taps)
        self.k_conv1d = ShortConv(H * K, taps)
        self.v_conv1d = ShortConv(H * V, taps)
        self.o_norm = GatedRMSNorm(V, config.norm_eps)
        if config.mixer != "linear":
            self.b_proj = nn.Linear(D, H, bias=False)
        if config.mixer == "gated_delta":
            self.a_proj = nn.Linear(D, H, bias=False)
            self.A_log = nn.Parameter(torch.empty(H).uniform_(1, 16).log())
            time_step = 10 ** torch.empty(H).uniform_(-3, -1)
            self.dt_bias = nn.Parameter(time_step + torch.log(-torch.expm1(-time_step)))  # softplus gives it back

    def gates(self, x: Tensor) -> dict[str, Tensor]:
        """The arguments that this layer's rule takes beside q, k and v, [B, T, H] each, in at least float32."""
        wide = state_dtype(x.dtype)
        gates = {}
        if self.config.mixer != "linear":
            gates["beta"] = self.b_proj(x).to(wide).sigmoid()
        if self.config.mixer == "gated_delta":
            time_step = F.softplus(self.a_proj(x).to(wide) + self.dt_bias.to(wide))
            gates["log_decay"] = -self.A_log.to(wide).exp() * time_step
        return gates

    def mix(self, x: Tensor, positions: Tensor | None, memory: LinearState | None, lengths: Tensor | None) -> Tensor:
        tails = (None, None, None) if memory is None else (memory.q_tail, memory.k_tail, memory.v_tail)
        q, q_tail = self.q_conv1d(self.q_proj(x), tails[0], lengths)
        k, k_tail = self.k_conv1d(self.k_proj(x), tails[1], lengths)
        v, v_tail = self.v_conv1d(self.v_proj(x), tails[2], lengths)
        q, k, v = (rearrange(y, "B T (H X) -> B T H X", H=self.config.num_linear_heads) for y in (q, k, v))
        gates = self.gates(x)
        if lengths is not None:  # padding writes nothing, and forgets nothing
            padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
            k = k.masked_fill(padding[..., None, None], 0)
            gates = {name: gate.masked_fill(padding[..., None], 0) for name, gate in gates.items()}

        out, state = self.rule(q, k, v, state=None if memory is None else memory.start(), **gates)
        if memory is not None:
            memory.store(state, q_tail, k_tail, v_tail)
        gate = rearrange(self.g_proj(x), "B T (H V) -> B T H V", V=self.config.linear_value_dim)
        return self.o_proj(rearrange(self.o_norm(out, gate), "B T H V -> B T (H V)"))

    def rule(self, q: Tensor, k: Tensor, v: Tensor, **arguments) -> tuple[Tensor, Tensor]:
        """The layer's rung of the ladder, on unit queries and keys. Its products are its own business: autocast, which
        would have them in bf16, ends here."""
        scale = q.shape[-1] ** -0.5
        with torch.autocast(q.device.type, enabled=False):
            if self.config.mixer == "gated_delta":
                return gated_delta_rule(q, k, v, scale=scale, normalize_qk=True, **arguments)
            rung = delta_rule if self.config.mixer == "delta" else linear_attention
            return rung.chunked(delta_rule.unit(q), delta_rule.unit(k), v, scale=scale, **arguments)
