"""The decoder layer, and the hybrid block: InfiniteVL's pattern of one window layer and three linear layers.

The window layer sees the near past exactly; the linear layers carry what lies further back. Their parameters differ,
but they stand in the same place: norm, mixer, residual; norm, feed-forward, residual.

    x ← x + mixer(norm(x))        x ← x + feed_forward(norm(x))
"""

import torch
from torch import Tensor, nn

from ..config import DecoderConfig
from ..memory import Memory
from ..ops import checks
from ..ops.rotary import text_positions
from . import fast
from .feed_forward import SwiGLU
from .gated_deltanet import GatedDeltaNet
from .norm import RMSNorm
from .window_attention import WindowAttention


class DecoderLayer(nn.Module):
    def __init__(self, config: DecoderConfig, layer_type: str):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if layer_type == "linear_attention":
            self.self_attn = GatedDeltaNet(config)
        else:
            self.self_attn = WindowAttention(config, full=layer_type == "full_attention")
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor, *, positions: Tensor, memory=None, mask: Tensor | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), positions=positions, memory=memory, mask=mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class HybridBlock(nn.Module):
    """The layers of config.layer_types, one after the other; by default one period, 1 + 3. The model is nine of them.

    Without `positions`, tokens count up from where the memory stands (or from 0), as text does. A memory is continued:
    the call's tokens are appended to it, in pieces where they are more than its rings take at a time, and any split
    over calls gives the same answer. A memory carries no gradient from one piece to the next.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.fused = False
        self.layers = nn.ModuleList(DecoderLayer(config, layer_type) for layer_type in config.layer_types)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def new_memory(self, batch_size: int = 1, *, longest_write: int | None = None, room: int | None = None) -> Memory:
        """An empty memory of this block's shape, dtype and device; see Memory for `longest_write` and `room`."""
        weight = self.layers[0].input_layernorm.weight  # a norm's weight keeps the model's dtype whatever matrices do
        return Memory(
            self.config, batch_size, longest_write=longest_write, room=room, dtype=weight.dtype, device=weight.device
        )

    def forward(
        self,
        x: Tensor,
        *,
        positions: Tensor | None = None,
        memory: Memory | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        weight = self.layers[0].input_layernorm.weight
        checks.tensor("x", x, ("B", "T", self.config.hidden_size), weight.dtype)
        B, T, _ = x.shape
        if mask is not None:
            checks.tensor("mask", mask, (B, T), torch.bool)
        if memory is not None:
            memory.admit(self.config, B, T)
        if positions is None:
            start = memory.next_position if memory is not None else torch.zeros(B, dtype=torch.int64, device=x.device)
            positions = text_positions(start, T, mask)
        checks.tensor("positions", positions, (3, B, T), torch.int64)
        out = [torch.zeros_like(x[:, :0])]  # what a call of no tokens gives
        for piece in pieces(T, memory):
            real = None if mask is None else mask[:, piece]
            out.append(self.write(x[:, piece], positions[:, :, piece], memory, real))
        if memory is not None:
            memory.advance(positions, mask)
        return torch.cat(out, dim=1)

    def write(self, x: Tensor, positions: Tensor, memory: Memory | None, mask: Tensor | None) -> Tensor:
        """One piece through all layers and into their memories; `memory.advance` then counts the call's tokens."""
        if kernels := fast.kernels_for(self, x, memory, mask):
            return fast.write(kernels, self, x, positions, memory, mask)
        memories = [None] * len(self.layers) if memory is None else memory.layers
        for layer, layer_memory in zip(self.layers, memories, strict=True):
            x = layer(x, positions=positions, memory=layer_memory, mask=mask)
        return x

    def fuse(self) -> "HybridBlock":
        """From now on the kernels do whole layers, where they can. Inference only; the weights stay what they are."""
        if self.config.mixer == "gated_delta":
            for layer in self.layers:
                fast.lay_out(layer)
            self.fused = True
        return self


def pieces(T: int, memory: Memory | None) -> list[slice]:
    """T tokens cut into what the memory's rings take at a time; without a memory all of them are one piece."""
    if memory is None:
        return [slice(0, T)]
    return [slice(start, start + memory.longest_write) for start in range(0, T, memory.longest_write)]
