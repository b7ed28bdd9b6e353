"""Rotary positions on a GPU: q and k are turned where they lie in a merged projection, and keys find their way home.

    x ← x ∘ cos + half_turn(x) ∘ sin

`store_turned` is all that stands between a window layer's projection and its attention: q turned, k turned and v put
into the ring at slot number mod R, with the numbers, in one launch. It rounds as ops/rotary.py does in 16 bits: cos and
sin, both products, their sum. `turn_in_place` is the vision tower's, which turns in float32 and rounds once. A product
and a sum are never fused into one rounding here, so that both give PyTorch's answers to the last bit.

    code        shape                      dtype     what
    qkv         [B, T, (Hq + 2 Hkv) · K]   any 16    heads of q, then k, then v; rows may lie apart
                [patches, 3 H · K]                   the vision tower's
    cos, sin    [B, T, K]                  float32   their two halves are alike, as each plane has one angle
    keys …      [B, R, Hkv, K]             qkv's     a ring's tensors: values, positions and seen too; see
                                                     ops/sliding_window.py. All but `seen` are updated in place
    lengths     [B] or None                int64     how many tokens of each row are real; others are not stored
    q           [B, T, Hq, K]              qkv's     in one piece
    number      [B, T]                     int64     seen + 0 … T − 1
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .operators import DTYPES, check_tensor

ROWS = 16  # heads of tokens per program


@triton.jit
def load_halves(x, inside, K: tl.constexpr, WIDTH: tl.constexpr):
    """Both numbers of each plane, of the heads that begin at the pointers x [ROWS]: [ROWS, WIDTH] twice."""
    plane = x[:, None] + tl.arange(0, WIDTH)[None, :]
    return tl.load(plane, mask=inside, other=0.0), tl.load(plane + K // 2, mask=inside, other=0.0)


@triton.jit
def store_halves(x, halves, inside, K: tl.constexpr, WIDTH: tl.constexpr):
    plane = x[:, None] + tl.arange(0, WIDTH)[None, :]
    tl.store(plane, halves[0].to(x.dtype.element_ty), mask=inside)
    tl.store(plane + K // 2, halves[1].to(x.dtype.element_ty), mask=inside)


@triton.jit
def turned(halves, cos, sin, ROUNDED: tl.constexpr):
    """(a, b) → (a cos − b sin, b cos + a sin) in float32, or with each product rounded to ROUNDED first."""
    a, b = halves[0].to(tl.float32), halves[1].to(tl.float32)
    cos, sin = cos.to(ROUNDED).to(tl.float32), sin.to(ROUNDED).to(tl.float32)
    a_cos, a_sin = (a * cos).to(ROUNDED).to(tl.float32), (a * sin).to(ROUNDED).to(tl.float32)
    b_cos, b_sin = (b * cos).to(ROUNDED).to(tl.float32), (b * sin).to(ROUNDED).to(tl.float32)
    return a_cos - b_sin, b_cos + a_sin


@triton.jit
def ring_kernel(
    qkv, cos, sin, keys, values, positions, seen, lengths, q, number, T, R, batch_stride, row_stride,
    HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
):  # fmt: skip
    """One program per ROWS heads of q, k and v, a token's together; WIDTH is the next power of two to K / 2."""
    batch, row = tl.program_id(1).to(tl.int64), tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    time, head = row // (HEADS + 2 * KEY_HEADS), row % (HEADS + 2 * KEY_HEADS)
    own, plane = time < T, tl.arange(0, WIDTH)
    inside, token = own[:, None] & (plane < K // 2)[None, :], batch * T + time
    begun = tl.load(seen + batch)
    halves = load_halves(qkv + batch * batch_stride + time.to(tl.int64) * row_stride + head * K, inside, K, WIDTH)
    turns = head < HEADS + KEY_HEADS
    angle, mask = token[:, None] * K + plane[None, :], inside & turns[:, None]
    angles = tl.load(cos + angle, mask=mask, other=0.0), tl.load(sin + angle, mask=mask, other=0.0)
    moved = turned(halves, angles[0], angles[1], q.dtype.element_ty)
    store_halves(q + (token * HEADS + head) * K, moved, inside & (head < HEADS)[:, None], K, WIDTH)

    tl.store(number + token, begun + time, mask=own & (head == 0))
    slot = (begun % R).to(tl.int32) + time  # T is at most R: one round at most
    slot = batch * R + tl.where(slot >= R, slot - R, slot)
    real = own
    if HAS_LENGTHS:
        real = own & (time < tl.load(lengths + batch))
    tl.store(positions + slot, begun + time, mask=real & (head == 0))
    key, real = head - HEADS, inside & real[:, None]
    store_halves(keys + (slot * KEY_HEADS + key) * K, moved, real & ((key >= 0) & turns)[:, None], K, WIDTH)
    values += (slot * KEY_HEADS + key - KEY_HEADS) * K
    store_halves(values, halves, real & (key >= KEY_HEADS)[:, None], K, WIDTH)


@triton.jit
def turn_kernel(
    qkv, cos, sin, patches, row_stride, HEADS: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """One program per ROWS heads, HEADS of each patch."""
    row, plane = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    patch, head = (row // HEADS).to(tl.int64), row % HEADS
    inside = (patch < patches)[:, None] & (plane < K // 2)[None, :]
    angle = patch[:, None] * K + plane[None, :]
    cos, sin = tl.load(cos + angle, mask=inside, other=0.0), tl.load(sin + angle, mask=inside, other=0.0)
    place = qkv + patch * row_stride + head * K
    store_halves(place, turned(load_halves(place, inside, K, WIDTH), cos, sin, tl.float32), inside, K, WIDTH)


def check(
    qkv: Tensor, cos: Tensor, sin: Tensor, lengths: Tensor | None,
    *, keys: Tensor, values: Tensor, positions: Tensor, seen: Tensor,
) -> None:  # fmt: skip
    """Every demand of store_turned, each fault told in one sentence."""
    for name, x, axes in (("qkv", qkv, "[B, T, channels]"), ("keys", keys, "[B, R, Hkv, K]")):
        if x.ndim != axes.count(",") + 1:
            raise ValueError(f"{name} has shape {list(x.shape)}; it should be {axes}")
    (B, T, channels), (_, R, key_heads, K), device = qkv.shape, keys.shape, qkv.device
    if channels % K or channels <= 2 * key_heads * K:
        wanted = f"heads of {K} numbers, {key_heads} of k, as many of v, and some of q"
        raise ValueError(f"qkv has {channels} channels; it should have {wanted}")
    if T > R:
        raise ValueError(f"qkv has {T} tokens; the ring has room for {R}")
    check_tensor("qkv", qkv, (B, T, channels), device, *DTYPES)
    check_tensor("cos", cos, (B, T, K), device, torch.float32)
    check_tensor("sin", sin, (B, T, K), device, torch.float32)
    check_tensor("keys", keys, (B, R, key_heads, K), device, qkv.dtype)
    check_tensor("values", values, (B, R, key_heads, K), device, qkv.dtype)
    check_tensor("positions", positions, (B, R), device, torch.int64)
    check_tensor("seen", seen, (B,), device, torch.int64)
    if lengths is not None:
        check_tensor("lengths", lengths, (B,), device, torch.int64)
    for name, x in {"keys": keys, "values": values, "positions": positions}.items():
        if not x.is_contiguous():
            raise ValueError(f"{name} is not contiguous; the kernel needs it in one piece")


def store_turned(
    qkv: Tensor, cos: Tensor, sin: Tensor, *, keys: Tensor, values: Tensor, positions: Tensor, seen: Tensor,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Turn q and k, and put k, v and the tokens' numbers into the ring; returns (q, number). `seen` is the caller's to
    move on, afterwards: every program reads it. No gradient."""
    check(qkv, cos, sin, lengths, keys=keys, values=values, positions=positions, seen=seen)
    (B, T, channels), (_, R, key_heads, K) = qkv.shape, keys.shape
    heads = channels // K - 2 * key_heads
    qkv = qkv if qkv.stride(2) == 1 else qkv.contiguous()
    q, number = qkv.new_empty(B, T, heads, K), seen.new_empty(B, T)
    if B * T:
        ring_kernel[triton.cdiv(T * (channels // K), ROWS), B](
            qkv, cos.contiguous(), sin.contiguous(), keys, values, positions, seen,
            seen if lengths is None else lengths, q, number, T, R, *qkv.stride()[:2],
            heads, key_heads, K, triton.next_power_of_2(K // 2), ROWS, lengths is not None,
            num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    return q, number


def turn_in_place(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int) -> None:
    """Turn q and k of qkv, which has q, k and v of this many heads each, where they lie. No gradient."""
    patches, K = cos.shape
    check_tensor("qkv", qkv, (patches, 3 * heads * K), qkv.device, *DTYPES)
    for name, x in {"cos": cos, "sin": sin}.items():
        check_tensor(name, x, (patches, K), qkv.device, torch.float32)
    if qkv.stride(1) != 1:
        raise ValueError("qkv has gaps between its channels; each row should lie in one piece")
    if patches:
        turn_kernel[triton.cdiv(patches * 2 * heads, ROWS),](
            qkv, cos.contiguous(), sin.contiguous(), patches, qkv.stride(0),
            2 * heads, K, triton.next_power_of_2(K // 2), ROWS, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
