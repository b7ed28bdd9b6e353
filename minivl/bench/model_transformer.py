"""The same model with full attention in every layer: what a transformer of this shape takes as its past grows.

Its memory holds every key and value. The past is not read but written, random numbers into the room of `context`
tokens, since neither time nor memory depends on what the numbers are; so a past of a million tokens costs a moment.
Before each call the counters are put back, and every call finds the same past.

A transformer deserves a good attention kernel. Two stand ready here: MiniVL's own, with a window as long as the past,
and the FlashAttention in PyTorch. Both are timed at every length, and the model runs with the faster.
"""

import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from ..config import Config
from ..generate import step
from ..memory import Memory
from ..model import InfiniteVL
from .model_meter import Meter
from .model_rows import FRAME, decoder_frame, random_model

OWN, FLASH = "MiniVL's window kernel", "PyTorch's FlashAttention"


def transformer_of(config: Config) -> Config:
    """Full attention in every layer; of the vision tower, which is the same in both, one block stays."""
    vision = dataclasses.replace(config.vision, depth=1, fullatt_block_indexes=())
    layers = len(config.layer_types) * ("full_attention",)
    return dataclasses.replace(config, layer_types=layers, vision=vision)


def bytes_a_token(config: Config, dtype: torch.dtype) -> int:
    """Keys, values, and each slot's number, in all layers."""
    one = 2 * config.num_key_value_heads * config.head_dim * dtype.itemsize + torch.int64.itemsize
    return len(config.layer_types) * one


def measure(config: Config, contexts: list[int], meter: Meter, *, dtype: torch.dtype, cap: int | None) -> list[dict]:
    """One record for each context that fits into `cap` bytes; of the others, that they don't."""
    model = random_model(transformer_of(config), device=meter.device, dtype=dtype).fuse()
    weights = sum(x.nbytes for x in model.parameters())
    rows = []
    for context in contexts:
        needed = weights + context * bytes_a_token(model.config, dtype) + 1_000_000_000
        if cap is not None and needed > cap:
            rows.append({"context": context, "fits": False, "needed": needed})
        else:
            rows.append({"context": context, "fits": True, **measure_one(model, context, meter)})
    return rows


def measure_one(model: InfiniteVL, context: int, meter: Meter) -> dict:
    memory = past(model, context)
    back = partial(rewind, memory, context)
    repeats = 10 if context < 300_000 else 4
    row = {"memory_bytes": context * bytes_a_token(model.config, model.dtype)}
    token = torch.zeros_like(memory.seen)
    for name, T, run in (
        ("token", 1, partial(step, model, memory, token, None)),
        ("decoder_frame", FRAME, decoder_frame(model, memory)),
    ):
        rivals = compare(memory, context, T, model.config, meter) if meter.cuda else {}
        chosen = min(rivals, key=lambda kernel: rivals[kernel]["ms"], default=None)
        meter.begin_peak()
        with attention(chosen, context):
            back()
            row[f"{name}_ms"] = meter.median(meter.captured(run), repeats, before=back)
        row |= {f"{name}_peak": meter.peak(), f"{name}_attention": chosen, f"{name}_kernels": rivals}
    return row


def past(model: InfiniteVL, context: int) -> Memory:
    """A memory that stands after `context` tokens, with room for a frame more."""
    memory = model.new_memory(longest_write=FRAME, room=context + FRAME)
    memory.room = None  # the same frame's room is written again and again
    for ring in memory.layers:
        ring.keys.normal_()
        ring.values.normal_()
        ring.positions[:] = torch.arange(ring.positions.shape[1], device=ring.positions.device)
    rewind(memory, context)
    return memory


def rewind(memory: Memory, context: int) -> None:
    """Put the counters where they stood. What a call wrote stays: a later number is seen by no earlier query."""
    memory.seen.fill_(context)
    memory.next_position.fill_(context)
    for ring in memory.layers:
        ring.seen.fill_(context)


def compare(memory: Memory, context: int, T: int, config: Config, meter: Meter) -> dict[str, dict]:
    """One layer's attention of T queries to the past and themselves, by each kernel that takes them."""
    import kernels

    ring, device = memory.layers[0], memory.seen.device
    q = torch.randn(1, T, config.num_attention_heads, config.head_dim, device=device).to(ring.keys.dtype)
    number = context + torch.arange(T, device=device)[None]
    products = 4 * T * (context + T / 2) * config.num_attention_heads * config.head_dim
    rows = {}
    for name, kernel in ((OWN, kernels.window_attention), (FLASH, partial(flash, context=context))):
        try:
            call = meter.captured(partial(kernel, q, ring.keys, ring.values, number, window=ring.window))
        except RuntimeError as refusal:  # of FlashAttention, on a card or in a dtype that it doesn't know
            print(f"not compared: {name}: {refusal}", file=sys.stderr)
            continue
        ms = meter.median(call, 10)
        rows[name] = {"ms": ms, "tflops": products / ms / 1e9}
    return rows


@contextmanager
def attention(kernel: str | None, context: int) -> Iterator[None]:
    """All layers through this kernel, after a past of `context` tokens."""
    if kernel != FLASH or importlib.util.find_spec("triton") is None:
        yield
        return
    import kernels

    with patch.object(kernels, "window_attention", partial(flash, context=context)):
        yield


def flash(
    q: Tensor, keys: Tensor, values: Tensor, number: Tensor, *, window: int, context: int, scale: float | None = None
) -> Tensor:
    """The window kernel's answer by PyTorch's FlashAttention, where nothing has left the window or wrapped yet."""
    T, stored = q.shape[1], context + q.shape[1]
    heads_first = (x.transpose(1, 2) for x in (q, keys[:, :stored], values[:, :stored]))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        mask = causal_lower_right(T, stored) if T > 1 else None
        out = F.scaled_dot_product_attention(*heads_first, attn_mask=mask, scale=scale, enable_gqa=True)
    return out.transpose(1, 2)
