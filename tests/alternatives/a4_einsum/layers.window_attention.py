"""Always through a ring: without a memory, one that is as long as the call."""

from einops import rearrange

from ..ops.rotary import mrope, rotate
from ..ops.sliding_window import Ring, ring


class WindowAttention:
    def mix(self, x, positions, memory, lengths):
        c = self.config
        cos, sin = mrope(positions, width=c.head_dim, theta=c.rope_theta, sections=c.mrope_section)
        q, k, v = (
            rearrange(p(x), "b t (h k) -> b t h k", k=c.head_dim) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        if memory is None:
            B, T, heads, width = k.shape
            window = self.window or T
            memory = Ring(B, window + T, heads, width, window=window, dtype=x.dtype)
        out = ring(rotate(q, cos, sin), rotate(k, cos, sin), v, memory=memory)
        return self.o_proj(rearrange(out, "b t h k -> b t (h k)"))
