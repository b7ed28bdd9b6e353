"""The short convolution with its SiLU on a GPU: each input is read from memory once, and no axis is turned round.

out_t = SiLU(Σ_i weight_i ∘ x_{t−taps+1+i}), `tail` standing before x_0; the new tail is the last inputs

A program walks along time with a few channels, STEPS tokens at a stride, and keeps the inputs that the next tokens will
ask for again in registers. The convolutions of q, k and v, three ranges of channels of one projection, are one launch.

code       shape              dtype
x          [B, T, D]          any but float64; rows may lie apart, as slices of a wider matrix do
weight     [D, 1, taps]       x's
tail       [B, taps − 1, D]   float32; what comes back likewise
projected  [B, T, ≥ ΣD]       q's, k's and v's x side by side
lengths    [B]                int64: row b's tail ends at its own last real token
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .operators import DTYPES, check_tensor

WIDTH = 256  # channels per program: of 16 bits, 16 bytes a thread
LONG = 2048  # tokens from which on there are programs enough without cutting time small


@triton.jit
def conv_kernel(
    x, q_weight, k_weight, v_weight, q_tail, k_tail, v_tail, lengths, q_out, k_out, v_out,
    T, q_width, k_width, v_width, batch_stride, row_stride,
    TAPS: tl.constexpr, TIMES: tl.constexpr, STEPS: tl.constexpr, WIDTH: tl.constexpr, HAS_LENGTHS: tl.constexpr,
):  # fmt: skip
    """One program per TIMES tokens and WIDTH channels of q, k or v in a row of the batch.

    The first of a row's programs, and no other, reads the tail, and carries it on: TIMES is at least TAPS − 1.
    """
    KEPT: tl.constexpr = TAPS - 1
    start, block, batch = tl.program_id(0) * TIMES, tl.program_id(1), tl.program_id(2).to(tl.int64)
    x += batch * batch_stride + start.to(tl.int64) * row_stride
    q_blocks, k_blocks = tl.cdiv(q_width, WIDTH), tl.cdiv(k_width, WIDTH)
    part, weight, tail, out, D = block, q_weight, q_tail, q_out, q_width + 0  # + 0: Triton makes a constant of 1
    if block >= q_blocks:
        part, weight, tail, out, D = block - q_blocks, k_weight, k_tail, k_out, k_width + 0
        x += q_width
    if block >= q_blocks + k_blocks:  # not inside the other: so both are mere choices, and alignment stays known
        part, weight, tail, out, D = block - q_blocks - k_blocks, v_weight, v_tail, v_out, v_width + 0
        x += k_width
    channel = part * WIDTH + tl.arange(0, WIDTH)
    inside = channel < D
    tail += batch * KEPT * D
    out += (batch * T + start) * D
    first = start == 0

    PADDED: tl.constexpr = triton.next_power_of_2(TAPS)
    tap = tl.arange(0, PADDED)
    filters = channel[:, None] * TAPS + tap[None, :]
    filters = tl.load(weight + filters, mask=inside[:, None] & (tap < TAPS)[None, :], other=0.0).to(tl.float32)
    weights, rows = (), ()
    for i in tl.static_range(TAPS):
        weights += (tl.sum(tl.where(tap[None, :] == i, filters, 0.0), 1),)
    for i in tl.static_range(KEPT):
        before = tl.load(x + (i - KEPT) * row_stride + channel, mask=inside & (start > 0), other=0.0)
        carried = tl.load(tail + i * D + channel, mask=inside & first, other=0.0).to(before.dtype)
        rows += (tl.where(first, carried, before),)
    for begin in range(0, tl.minimum(TIMES, T - start), STEPS):
        for step in tl.static_range(STEPS):  # all are asked for before the first is needed
            present = inside & (start + begin + step < T)
            rows += (tl.load(x + (begin + step) * row_stride + channel, mask=present, other=0.0),)
        for step in tl.static_range(STEPS):
            total = tl.zeros((WIDTH,), tl.float32)
            for i in tl.static_range(TAPS):
                total += rows[step + i].to(tl.float32) * weights[i]
            total *= tl.sigmoid(total)
            present = inside & (start + begin + step < T)
            tl.store(out + (begin + step) * D + channel, total.to(out.dtype.element_ty), mask=present)
        rows = rows[STEPS:]

    if first:
        length, last = T, ()
        if HAS_LENGTHS:
            length = tl.load(lengths + batch).to(tl.int32)
        for i in tl.static_range(KEPT):
            at = length - KEPT + i
            recent = tl.load(x + at.to(tl.int64) * row_stride + channel, mask=inside & (at >= 0), other=0.0)
            older = tl.load(tail + (at + KEPT) * D + channel, mask=inside & (at < 0), other=0.0)
            last += (tl.where(at < 0, older, recent.to(tl.float32)),)
        tl.debug_barrier()  # all of the old tail has been read
        for i in tl.static_range(KEPT):
            tl.store(tail + i * D + channel, last[i], mask=inside)


def short_conv_silu(
    x: Tensor, weight: Tensor, *, tail: Tensor | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns (SiLU of the convolution, the new tail). One device; no gradient."""
    B, D, taps = len(x), *weight.shape[::2]
    new_tail = x.new_empty(B, taps - 1, D, dtype=torch.float32)
    new_tail = new_tail.zero_() if tail is None else new_tail.copy_(tail)
    no_weight, no_tail = weight[:0], new_tail[..., :0]
    weights, tails = (weight.contiguous(), no_weight, no_weight), (new_tail, no_tail, no_tail)
    return convolve(x, weights, tails, lengths)[0], new_tail


def short_convs_silu(
    projected: Tensor, weights: tuple[Tensor, ...], tails: tuple[Tensor, ...], *, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """SiLU of q's, k's and v's convolution, each in one piece; the three tails are updated in place. No gradient."""
    (B, T, channels), taps, device = projected.shape, weights[0].shape[-1], projected.device
    check_tensor("projected", projected, (B, T, channels), device, *DTYPES)
    for name, weight, tail in zip("qkv", weights, tails, strict=True):
        check_tensor(f"{name}'s weight", weight, (len(weight), 1, taps), device, projected.dtype)
        check_tensor(f"{name}'s tail", tail, (B, taps - 1, len(weight)), device, torch.float32)
        if not (weight.is_contiguous() and tail.is_contiguous()):
            raise ValueError(f"{name}'s weight or tail is not contiguous; the kernel needs each in one piece")
    if channels < sum(len(weight) for weight in weights):
        raise ValueError(f"projected has {channels} channels; the weights have {sum(len(w) for w in weights)}")
    if lengths is not None:
        check_tensor("lengths", lengths, (B,), device, torch.int64)
    return convolve(projected, weights, tails, lengths)


def convolve(
    x: Tensor, weights: tuple[Tensor, ...], tails: tuple[Tensor, ...], lengths: Tensor | None
) -> tuple[Tensor, ...]:
    (B, T, _), taps, widths = x.shape, weights[0].shape[-1], [len(weight) for weight in weights]
    out = tuple(x.new_empty(B, T, D) for D in widths)
    if B * T * sum(widths):
        x = x if x.stride(2) == 1 else x.contiguous()
        steps = min(8, triton.next_power_of_2(T))
        times = max(steps, triton.next_power_of_2(taps - 1), 64 if T >= LONG else 8)
        grid = (triton.cdiv(T, times), sum(triton.cdiv(D, WIDTH) for D in widths), B)
        conv_kernel[grid](
            x, *weights, *tails, tails[0] if lengths is None else lengths, *out, T, *widths, *x.stride()[:2],
            taps, times, steps, WIDTH, lengths is not None, num_warps=1 if T >= LONG else 2,
        )  # fmt: skip
    return out
