"""All projections first, heads by unflatten, the rule by one step a token with a state of its own."""

import torch
import torch.nn.functional as F

from ..ops.delta_rule import unit
from ..ops.short_conv import short_conv


class ShortConv:
    def forward(self, x, tail, lengths):
        out, after = short_conv(x, self.weight, tail=tail)
        return torch.nn.SiLU()(out), after


class GatedDeltaNet:
    def gates(self, x):
        a, b = F.linear(x, self.a_proj.weight), F.linear(x, self.b_proj.weight)
        return {"log_decay": -(self.A_log.exp() * torch.log1p(torch.exp(a + self.dt_bias))), "beta": torch.sigmoid(b)}

    def rule(self, q, k, v, *, log_decay, beta, state=None):
        q, k = unit(q) * q.shape[-1] ** -0.5, unit(k)
        B, T, H, K = q.shape
        state = torch.zeros(B, H, K, v.shape[-1], dtype=v.dtype) if state is None else state
        out = []
        for t in range(T):
            state = state * log_decay[:, t, :, None, None].exp()
            missing = v[:, t] - torch.einsum("bhkv,bhk->bhv", state, k[:, t])
            state = state + torch.einsum("bhk,bhv,bh->bhkv", k[:, t], missing, beta[:, t])
            out.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
        return torch.stack(out, 1), state

    def mix(self, x, positions, memory, lengths):
        H = self.config.num_linear_heads
        tails = [None] * 3 if memory is None else [memory.q_tail, memory.k_tail, memory.v_tail]
        parts = ((self.q_proj, self.q_conv1d), (self.k_proj, self.k_conv1d), (self.v_proj, self.v_conv1d))
        done = [conv(project(x), tail, None) for (project, conv), tail in zip(parts, tails, strict=True)]
        q, k, v = (y.unflatten(-1, (H, -1)) for y, _ in done)
        out, state = self.rule(q, k, v, **self.gates(x), state=None if memory is None else memory.start())
        if memory is not None:
            memory.store(state, *(tail for _, tail in done))
        gate = self.g_proj(x).unflatten(-1, (H, -1))
        return F.linear(self.o_norm(out, gate).reshape(*x.shape[:2], -1), self.o_proj.weight)
