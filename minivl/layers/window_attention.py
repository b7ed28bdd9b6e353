"""Softmax attention over a sliding window, or, as the full-attention teacher has it, over everything before.

q, k and v are projections of the input, with biases; q and k are turned by their M-RoPE positions; the key is stored
turned. With a memory the window lives in a ring; without one, all tokens of the call are at hand.

    out = W_o · attention(R(p) W_q x, R(p) W_k x, W_v x)
"""

from einops import rearrange
from torch import Tensor, nn

from ..config import DecoderConfig
from ..ops.rotary import mrope, rotate
from ..ops.sliding_window import Ring, blocked, ring
from .mixer import Mixer


class WindowAttention(Mixer):
    def __init__(self, config: DecoderConfig, *, full: bool = False):
        super().__init__()
        self.config = config
        self.window = None if full else config.sliding_window
        D, K = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(D, config.num_attention_heads * K, bias=True)
        self.k_proj = nn.Linear(D, config.num_key_value_heads * K, bias=True)
        self.v_proj = nn.Linear(D, config.num_key_value_heads * K, bias=True)
        self.o_proj = nn.Linear(config.num_attention_heads * K, D, bias=False)

    def mix(self, x: Tensor, positions: Tensor | None, memory: Ring | None, lengths: Tensor | None) -> Tensor:
        if positions is None:
            raise ValueError("positions is missing; window attention needs them, [3, B, T]")
        config = self.config
        cos, sin = mrope(positions, width=config.head_dim, theta=config.rope_theta, sections=config.mrope_section)
        q, k, v = (
            rearrange(project(x), "B T (H K) -> B T H K", K=config.head_dim)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if memory is None:
            out = blocked(q, k, v, window=self.window or max(1, x.shape[1]))
        else:
            out = ring(q, k, v, memory=memory, lengths=lengths)
        return self.o_proj(rearrange(out, "B T H K -> B T (H K)"))
