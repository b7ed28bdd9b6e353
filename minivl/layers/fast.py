"""The decoder's layers through the kernels, as few launches as there are steps that must wait for one another.

What decoder.py, gated_deltanet.py and window_attention.py say in plain operations is said here once more for a GPU: the
projections of one input are one product (merged.py), and everything between two products is one kernel. There are two
forms. For a single token all time goes into reading weights, so a product takes in the norm before it and the
activation or the sum after it. For more, products are cuBLAS's; a residual and the next norm are one kernel.

    one vector    norm·W_in   middle   x + W_o   norm·[W_gate; W_up]·SiLU   x + W_down
    more          norm   W_in   middle   W_o   +norm   [W_gate; W_up]   SiLU   W_down   +
    middle        decode, or conv, gates, rule, norm; of a window layer: turn, window

    code        shape             what
    x           [B, T, D]         the residual stream
    normed      [B, T, D]         norm(x), a layer's input
    cos, sin    [B, T, K]         float32, of all window layers
    lengths     [B] or None       where T is 1 only: 1, or 0 where a row takes nothing in
"""

from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DecoderConfig
from ..memory import LinearState
from ..ops import fused
from ..ops.rotary import mrope
from ..ops.sliding_window import Ring
from .gated_deltanet import GatedDeltaNet
from .int8 import int8_linear
from .merged import Matrix, merged


class Call(NamedTuple):
    """What is the same for all layers of one call."""

    kernels: ModuleType
    cos: Tensor
    sin: Tensor
    lengths: Tensor | None


def kernels_for(decoder: nn.Module, x: Tensor, memory, mask: Tensor | None) -> ModuleType | None:
    """The kernels, if they can do this call: a fused decoder, a memory, no gradient, widths that fit."""
    config = decoder.config
    if memory is None or (mask is not None and x.shape[1] > 1):
        return None
    if not {config.head_dim, config.linear_head_dim, config.linear_value_dim} <= set(fused.WIDTHS):
        return None
    return ready(decoder, x)


def ready(decoder: nn.Module, x: Tensor) -> ModuleType | None:
    """The kernels, if the decoder is fused and they take x."""
    weights = decoder.parameters() if torch.is_grad_enabled() else ()
    return fused.kernels(x, *weights) if decoder.fused else None


def lay_out(layer: nn.Module) -> None:
    """Merge what can be merged, once and for all."""
    input_matrix(layer.self_attn)
    gate_up_matrix(layer)


def write(kernels: ModuleType, decoder: nn.Module, x: Tensor, positions: Tensor, memory, mask: Tensor | None) -> Tensor:
    """HybridBlock.write: one piece through all layers and into their memories."""
    config = decoder.config
    turn = mrope(positions, width=config.head_dim, theta=config.rope_theta, sections=config.mrope_section)
    call = Call(kernels, *(angle.float() for angle in turn), None if mask is None else mask.sum(1))
    through = one_vector if is_vector(kernels, config, x) else more
    return through(call, list(zip(decoder.layers, memory.layers, strict=True)), x.contiguous())


def is_vector(kernels: ModuleType, config: DecoderConfig, x: Tensor) -> bool:
    """Whether matvec takes it. With two vectors cuBLAS is faster already."""
    return x.shape[:2] == (1, 1) and longest_row(config) <= kernels.matrix_vector.WIDEST


def longest_row(config: DecoderConfig) -> int:
    """Of all matrices that a token is multiplied by."""
    mixed = config.num_attention_heads * config.head_dim, config.num_linear_heads * config.linear_value_dim
    return max(config.hidden_size, config.intermediate_size, *mixed)


def one_vector(call: Call, layers: list, x: Tensor) -> Tensor:
    for layer, memory in layers:
        mixer = layer.self_attn
        out = middle(call, mixer, matvec(call.kernels, x, input_matrix(mixer), norm=layer.input_layernorm), memory)
        x = matvec(call.kernels, out, merged(mixer.o_proj), residual=x)
        inner = matvec(call.kernels, x, gate_up_matrix(layer), norm=layer.post_attention_layernorm, gated=True)
        x = matvec(call.kernels, inner, merged(layer.mlp.down_proj), residual=x)
    return x


def more(call: Call, layers: list, x: Tensor) -> Tensor:
    late = None  # what the layer before adds to x, left to be added with the next norm
    for layer, memory in layers:
        mixer = layer.self_attn
        x, normed = layer.input_layernorm.of_sum(x, late)
        out = middle(call, mixer, product(normed, input_matrix(mixer)), memory)
        x, normed = layer.post_attention_layernorm.of_sum(x, product(out, merged(mixer.o_proj)))
        gate, up = product(normed, gate_up_matrix(layer)).chunk(2, dim=-1)
        late = product(call.kernels.gated_product(up, gate), merged(layer.mlp.down_proj))
    return x + late


def matvec(kernels: ModuleType, x: Tensor, matrix: Matrix, *, norm: nn.Module | None = None, **after) -> Tensor:
    before = {} if norm is None else {"norm_weight": norm.weight, "eps": norm.eps}
    return kernels.matvec(x, matrix.weight, bias=matrix.bias, scale=matrix.scale, **before, **after)


def product(x: Tensor, matrix: Matrix) -> Tensor:
    if matrix.scale is None:
        return F.linear(x, matrix.weight, matrix.bias)
    return int8_linear(x, matrix.weight, matrix.scale, matrix.bias)


def input_matrix(mixer: nn.Module) -> Matrix:
    if isinstance(mixer, GatedDeltaNet):
        return merged(mixer.q_proj, mixer.k_proj, mixer.v_proj, mixer.g_proj, mixer.a_proj, mixer.b_proj)
    return merged(mixer.q_proj, mixer.k_proj, mixer.v_proj)


def gate_up_matrix(layer: nn.Module) -> Matrix:
    return merged(layer.mlp.gate_proj, layer.mlp.up_proj)


def middle(call: Call, mixer: nn.Module, projected: Tensor, memory: LinearState | Ring) -> Tensor:
    """From a mixer's merged projection to what its last matrix takes, [B, T, H·V]."""
    if not isinstance(mixer, GatedDeltaNet):
        return look_back(call, projected, memory)
    return (decode if projected.shape[1] == 1 else chunks)(call, mixer, projected, memory)


def look_back(call: Call, projected: Tensor, memory: Ring) -> Tensor:
    """The turned keys and the values into the ring, and the turned queries' look at it."""
    q, number = call.kernels.store_turned(projected, call.cos, call.sin, **memory.tensors(), lengths=call.lengths)
    memory.seen += projected.shape[1] if call.lengths is None else call.lengths
    return call.kernels.window_attention(q, memory.keys, memory.values, number, window=memory.window).flatten(2)


def decode(call: Call, mixer: GatedDeltaNet, projected: Tensor, memory: LinearState) -> Tensor:
    """One token of each row in one kernel; state and tails change in place."""
    q_weight, k_weight, v_weight = conv_weights(mixer)
    return call.kernels.decode_gated_deltanet(
        *slices(mixer, projected), q_weight=q_weight, k_weight=k_weight, v_weight=v_weight, A_log=mixer.A_log,
        dt_bias=mixer.dt_bias, norm_weight=mixer.o_norm.weight, eps=mixer.o_norm.eps, **memory.tensors(),
        arrivals=memory.arrivals, lengths=call.lengths,
    )  # fmt: skip


def chunks(call: Call, mixer: GatedDeltaNet, projected: Tensor, memory: LinearState) -> Tensor:
    *_, gate, a, b = slices(mixer, projected)
    tails = memory.q_tail, memory.k_tail, memory.v_tail
    inputs = (*call.kernels.short_convs_silu(projected, conv_weights(mixer), tails), gate)
    q, k, v, gate = (x.unflatten(-1, (mixer.config.num_linear_heads, -1)) for x in inputs)
    log_decay, beta = call.kernels.gates(a, b, mixer.A_log, mixer.dt_bias)
    out, state = call.kernels.chunked_gated_delta_rule(
        q, k, v, log_decay=log_decay, beta=beta, state=memory.state, scale=q.shape[-1] ** -0.5, normalize_qk=True
    )
    memory.state.copy_(state)
    return call.kernels.gated_norm(out, gate, mixer.o_norm.weight, mixer.o_norm.eps).flatten(2)


def slices(mixer: GatedDeltaNet, projected: Tensor) -> tuple[Tensor, ...]:
    """q, k, v, g, a, b of the merged projection; their rows lie apart."""
    H, KH, VH = mixer.config.num_linear_heads, mixer.q_proj.out_features, mixer.v_proj.out_features
    return projected.split([KH, KH, VH, VH, H, H], dim=-1)


def conv_weights(mixer: GatedDeltaNet) -> tuple[Tensor, Tensor, Tensor]:
    return mixer.q_conv1d.weight, mixer.k_conv1d.weight, mixer.v_conv1d.weight
