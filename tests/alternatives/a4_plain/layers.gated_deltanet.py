"""Projections by hand, and the rule token by token."""

import torch

from ..ops.gated_delta_rule import recurrent
from ..ops.short_conv import short_conv


class ShortConv:
    def forward(self, x, tail, lengths):
        out, tail = short_conv(x, self.weight, tail=tail)
        return out * out.sigmoid(), tail


class GatedDeltaNet:
    def gates(self, x):
        time_step = torch.logaddexp(self.a_proj(x) + self.dt_bias, torch.zeros((), dtype=x.dtype))
        return {"beta": 1 / (1 + (-self.b_proj(x)).exp()), "log_decay": -time_step * torch.exp(self.A_log)}

    def rule(self, q, k, v, *, state=None, **gates):
        return recurrent(q, k, v, state=state, scale=1 / q.shape[-1] ** 0.5, normalize_qk=True, **gates)

    def mix(self, x, positions, memory, lengths):
        B, T, _ = x.shape
        heads, tails = {}, {}
        for name in "qkv":
            tail = None if memory is None else getattr(memory, f"{name}_tail")
            out, tails[name] = getattr(self, f"{name}_conv1d")(getattr(self, f"{name}_proj")(x), tail, None)
            heads[name] = out.view(B, T, self.config.num_linear_heads, -1)
        state = None if memory is None else memory.state.clone()
        out, state = self.rule(heads["q"], heads["k"], heads["v"], state=state, **self.gates(x))
        if memory is not None:
            memory.store(state, tails["q"], tails["k"], tails["v"])
        return self.o_proj(self.o_norm(out, self.g_proj(x).view_as(out)).flatten(2))
