"""The claims about layers, blocks and memories: each takes a way to make a block, and one case.

`make(case)` returns a small block of the case's pattern, mixer and seed: the real one, or one whose source was edited
to be wrong. The references go token by token and head by head, straight from the released model's equations.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

from minivl.layers.decoder import HybridBlock
from minivl.memory import Memory

from .models import error, in_pieces, new_memory, small_block, tokens

BOUND = 1e-10


@dataclass(frozen=True)
class LayerCase:
    pattern: str = "1 + 3"
    mixer: str = "gated_delta"
    T: int = 20
    seed: int = 0
    side: str = "left"  # where padding stands: left, right, or scattered


Make = Callable[[LayerCase], HybridBlock]


def real(case: LayerCase) -> HybridBlock:
    return small_block(case.pattern, case.mixer, seed=case.seed)


def gated_deltanet_token_by_token(layer, x: Tensor) -> Tensor:
    """One row x [T, D] of a linear layer."""
    config = layer.config
    H, K, V, taps = config.num_linear_heads, config.linear_head_dim, config.linear_value_dim, config.conv_size
    inputs = {name: x @ getattr(layer, f"{name}_proj").weight.T for name in "qkv"}
    state = torch.zeros(H, K, V, dtype=x.dtype)
    rows = []
    for t in range(len(x)):
        mixed = {}
        for name, projected in inputs.items():
            weight = getattr(layer, f"{name}_conv1d").weight[:, 0]
            total = sum(weight[:, taps - 1 - back] * projected[t - back] for back in range(min(taps, t + 1)))
            mixed[name] = total * torch.sigmoid(total)
        heads = []
        for h in range(H):
            q, k = (mixed[name][h * K : (h + 1) * K] for name in "qk")
            q = q / torch.sqrt((q * q).sum() + 1e-6) / math.sqrt(K)
            k = k / torch.sqrt((k * k).sum() + 1e-6)
            v = mixed["v"][h * V : (h + 1) * V]
            if config.mixer == "gated_delta":
                time_step = torch.log1p(torch.exp(layer.a_proj.weight[h] @ x[t] + layer.dt_bias[h]))
                state[h] = torch.exp(-torch.exp(layer.A_log[h]) * time_step) * state[h]
            if config.mixer == "linear":
                delta = v
            else:
                beta = 1 / (1 + torch.exp(-layer.b_proj.weight[h] @ x[t]))
                delta = beta * (v - state[h].T @ k)
            state[h] = state[h] + torch.outer(k, delta)
            out = state[h].T @ q
            out = out / torch.sqrt((out * out).mean() + config.norm_eps) * layer.o_norm.weight
            gate = layer.g_proj.weight[h * V : (h + 1) * V] @ x[t]
            heads.append(out * gate * torch.sigmoid(gate))
        rows.append(layer.o_proj.weight @ torch.cat(heads))
    return torch.stack(rows)


def turned(x: Tensor, positions: Tensor, config) -> Tensor:
    """x [K] turned by its three positions, plane by plane."""
    axis_of_plane = [axis for axis, count in enumerate(config.mrope_section) for _ in range(count)]
    half = len(x) // 2
    angle = torch.tensor(
        [positions[axis_of_plane[c]].item() * config.rope_theta ** (-c / half) for c in range(half)], dtype=x.dtype
    )
    a, b = x[:half], x[half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()])


def window_attention_token_by_token(layer, x: Tensor, positions: Tensor, window: int) -> Tensor:
    """One row x [T, D] of an attention layer, positions [3, T]."""
    config = layer.config
    K, heads, key_heads = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    q, k, v = (x @ project.weight.T + project.bias for project in (layer.q_proj, layer.k_proj, layer.v_proj))
    rows = []
    for i in range(len(x)):
        out = []
        for h in range(heads):
            group = h // (heads // key_heads)
            of_group = slice(group * K, (group + 1) * K)
            query = turned(q[i, h * K : (h + 1) * K], positions[:, i], config)
            seen = range(max(0, i - window + 1), i + 1)
            scores = torch.stack([query @ turned(k[j, of_group], positions[:, j], config) for j in seen]) / math.sqrt(K)
            weights = scores.exp() / scores.exp().sum()
            out.append(sum(weight * v[j, of_group] for weight, j in zip(weights, seen, strict=True)))
        rows.append(layer.o_proj.weight @ torch.cat(out))
    return torch.stack(rows)


@torch.no_grad()
def a_linear_layer_equals_its_token_by_token_reference(make: Make, case: LayerCase) -> None:
    layer = make(case).layers[-1].self_attn
    x = tokens(2, case.T, case.seed)
    oracle = torch.stack([gated_deltanet_token_by_token(layer, row) for row in x])
    assert error(layer(x), oracle) < BOUND


@torch.no_grad()
def an_attention_layer_equals_its_token_by_token_reference(make: Make, case: LayerCase) -> None:
    layer = make(case).layers[0].self_attn
    x = tokens(2, case.T, case.seed)
    positions = torch.randint(0, 60, (3, 2, case.T), generator=torch.Generator().manual_seed(case.seed))
    window = case.T if case.pattern == "teacher" else layer.config.sliding_window
    oracle = torch.stack([window_attention_token_by_token(layer, x[b], positions[:, b], window) for b in range(2)])
    assert error(layer(x, positions=positions), oracle) < BOUND


@torch.no_grad()
def a_block_is_norm_mixer_residual_norm_feed_forward_residual(make: Make, case: LayerCase) -> None:
    block = make(case)
    x, positions = tokens(1, case.T, case.seed), torch.arange(case.T).expand(3, 1, case.T)
    y = x
    for layer in block.layers:
        y = y + layer.self_attn(layer.input_layernorm(y), positions=positions)
        inner = layer.post_attention_layernorm(y)
        y = y + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(inner)) * layer.mlp.up_proj(inner))
    assert error(block(x), y) < BOUND


def a_norm_is_cast_before_its_weight_multiplies(make: Make, case: LayerCase) -> None:
    norm = make(case).bfloat16().layers[0].input_layernorm
    x = tokens(1, 50, case.seed, torch.bfloat16)
    wide = x.float()
    normed = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)).bfloat16()
    assert torch.equal(norm(x), norm.weight * normed)


def a_gated_norm_stays_in_float32_until_its_end(make: Make, case: LayerCase) -> None:
    norm = make(case).bfloat16().layers[-1].self_attn.o_norm
    x, gate = torch.randn(2, 50, 16, generator=torch.Generator().manual_seed(case.seed)).bfloat16()
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps) * norm.weight.float()
    assert torch.equal(norm(x, gate), (normed * F.silu(gate.float())).bfloat16())


@torch.no_grad()
def any_split_over_calls_gives_the_answer_of_one_call(make: Make, case: LayerCase) -> None:
    block, x = make(case), tokens(2, case.T, case.seed)
    generator = torch.Generator().manual_seed(case.seed)
    cuts = torch.randint(0, case.T + 1, (case.seed % 4 + 1,), generator=generator).tolist()
    assert error(in_pieces(block, x, cuts), block(x)) < BOUND


@torch.no_grad()
def decoding_equals_prefilling(make: Make, case: LayerCase) -> None:
    block, x = make(case), tokens(2, case.T, case.seed)
    assert error(in_pieces(block, x, range(1, case.T)), block(x)) < BOUND


def padded(T: int, side: str, seed: int) -> Tensor:
    """Three rows of T: one whole, one partly padding, one all padding. True where a token is real."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(3, T, dtype=torch.bool)
    mask[0] = True
    length = int(torch.randint(0, T + 1, (), generator=generator))
    if side == "left":
        mask[1, T - length :] = True
    elif side == "right":
        mask[1, :length] = True
    else:
        mask[1] = torch.rand(T, generator=generator) < 0.6
    return mask


def poisoned(x: Tensor, mask: Tensor) -> Tensor:
    """x with NaN wherever there is padding: whatever leaks, shows."""
    return x.masked_fill(~mask[..., None], torch.nan)


@torch.no_grad()
def each_row_gives_what_it_gives_alone(make: Make, case: LayerCase) -> None:
    block, x, mask = make(case), tokens(3, case.T, case.seed), padded(case.T, case.side, case.seed)
    out = block(poisoned(x, mask), mask=mask)
    for row, there in enumerate(mask):
        assert error(out[row, there], block(x[row : row + 1, there])[0]) < BOUND


@torch.no_grad()
def each_row_remembers_what_it_remembers_alone(make: Make, case: LayerCase) -> None:
    """Two padded calls in a row, so that the second one's padding stands between a memory and its continuation."""
    block = make(case)
    calls = [
        (tokens(3, T, case.seed + i), padded(T, case.side, case.seed + i))
        for i, T in enumerate((case.T, case.T // 2 + 1))
    ]
    together = new_memory(block, 3)
    outs = [block(poisoned(x, mask), memory=together, mask=mask) for x, mask in calls]
    for row in range(3):
        alone = new_memory(block)
        for (x, mask), out in zip(calls, outs, strict=True):
            expected = block(x[row : row + 1, mask[row]], memory=alone)[0]
            assert error(out[row, mask[row]], expected) < BOUND
        for name, remembered in alone.tensors().items():
            kept = together.tensors()[name][row]
            if remembered.dtype == torch.int64:
                assert torch.equal(kept, remembered[0]), name
            else:
                assert error(kept, remembered[0]) < BOUND, name


def same(a: Memory, b: Memory) -> bool:
    pairs = zip(a.tensors().values(), b.tensors().values(), strict=True)
    return a.tensors().keys() == b.tensors().keys() and all(torch.equal(x, y) for x, y in pairs)


@torch.no_grad()
def absorb(block: HybridBlock, memory: Memory, T: int, seed: int = 0) -> Tensor:
    """The block's answer to T tokens of this seed, with this memory."""
    return block(tokens(len(memory.seen), T, seed, block.layers[0].mlp.down_proj.weight.dtype), memory=memory)


def a_clone_never_touches_its_source(make: Make, case: LayerCase) -> None:
    block = make(case)
    source, untouched = new_memory(block, 2), new_memory(block, 2)
    for memory in (source, untouched):
        absorb(block, memory, case.seed % 7, case.seed)
    question = source.clone()
    absorb(block, question, case.T, case.seed + 1)
    assert same(source, untouched)
    assert not same(question, untouched)
    assert torch.equal(absorb(block, source, case.T, case.seed + 2), absorb(block, untouched, case.T, case.seed + 2))


def saved_and_resumed_equals_uninterrupted(make: Make, case: LayerCase) -> None:
    block = make(case)
    memory = new_memory(block, 2)
    absorb(block, memory, case.T, case.seed)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "stream.safetensors"
        memory.save(path)
        resumed = type(memory).resume(path, block)
    assert same(memory, resumed)
    assert resumed.longest_write == memory.longest_write
    assert torch.equal(absorb(block, memory, 7, case.seed + 1), absorb(block, resumed, 7, case.seed + 1))
    assert same(memory, resumed)
