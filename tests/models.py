"""Small decoders for the tests of layers, memories and padding."""

from itertools import pairwise

import torch

from minivl.config import DecoderConfig
from minivl.layers.decoder import HybridBlock

PATTERNS = {
    "1 + 3": ("sliding_attention", "linear_attention", "linear_attention", "linear_attention"),
    "window only": ("sliding_attention", "sliding_attention"),
    "linear only": ("linear_attention", "linear_attention"),
    "linear first": ("linear_attention", "sliding_attention"),
    "teacher": ("full_attention", "full_attention"),
    "all three": ("full_attention", "linear_attention", "sliding_attention"),
}
ROOM = 4096


def small_config(pattern: str = "1 + 3", mixer: str = "gated_delta", window: int = 6, K: int = 8) -> DecoderConfig:
    return DecoderConfig(
        layer_types=PATTERNS[pattern],
        mixer=mixer,
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=window,
        rope_theta=100.0,
        mrope_section=(2, 1, 1),
        num_linear_heads=3,
        linear_head_dim=K,
        expand_v=2,
    )


def small_block(pattern="1 + 3", mixer="gated_delta", window=6, *, K=8, seed=0, dtype=torch.float64) -> HybridBlock:
    return varied_block(small_config(pattern, mixer, window, K), seed=seed).to(dtype)


def varied_block(config: DecoderConfig, *, seed: int = 0) -> HybridBlock:
    """Weights large enough that gates, attention and residuals all vary: at 0.02 everything is nearly linear."""
    torch.manual_seed(seed)
    block = HybridBlock(config)
    for parameter in block.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=1.5 * parameter.shape[1] ** -0.5)
        elif parameter.ndim == 1:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    return block


def new_memory(block: HybridBlock, batch: int = 1, *, longest_write: int = 5):
    return block.new_memory(batch, longest_write=longest_write, room=ROOM)


def tokens(batch: int, T: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, T, 24, generator=generator, dtype=torch.float64).to(dtype)


def in_pieces(block, x, cuts, memory=None, **arguments) -> torch.Tensor:
    """The block's answer to x cut at the given times, with one memory."""
    memory = new_memory(block, len(x)) if memory is None else memory
    edges = [0, *sorted(cuts), x.shape[1]]
    return torch.cat([block(x[:, a:b], memory=memory, **arguments) for a, b in pairwise(edges)], dim=1)


def error(actual: torch.Tensor, oracle: torch.Tensor) -> float:
    """‖actual − oracle‖ / ‖oracle‖ (absolute where the oracle is zero); NaN stays NaN and so fails every bound."""
    size = oracle.norm().item()
    return (actual.to(oracle.dtype) - oracle).norm().item() / (size or 1.0)
