"""Without a memory, by the plain band."""

from ..ops.rotary import mrope, rotate
from ..ops.sliding_window import banded, ring


class WindowAttention:
    def mix(self, x, positions, memory, lengths):
        config, (B, T, _) = self.config, x.shape
        turn = mrope(positions, width=config.head_dim, theta=config.rope_theta, sections=config.mrope_section)
        q = rotate(self.q_proj(x).view(B, T, -1, config.head_dim), *turn)
        k = rotate(self.k_proj(x).view(B, T, -1, config.head_dim), *turn)
        v = self.v_proj(x).view(B, T, -1, config.head_dim)
        out = banded(q, k, v, window=self.window or T) if memory is None else ring(q, k, v, memory=memory)
        return self.o_proj(out.flatten(2))
