"""Softmax attention over a ring of the last keys, on a GPU: nothing is copied out of the ring, nothing is put in order.

Token number n lies in slot n mod R. The ring is cut into blocks of contiguous slots. A program walks over those that
hold what its queries may see, from the oldest number's to the newest's, round the ring's end if need be. The softmax is
made on the way: a running maximum m, the sum of exp(score − m), called mass, and the weighted sum of values, called
total, both rescaled where m grows.

    out_i = Σ_n softmax_n(scale · q_i·k_n) v_n   over 0 ≤ i − n < W

Query heads that share a key head stand in one tile, as rows (time, head of the group): their keys are read once. With
few queries (one, while decoding) there are few tiles, so the blocks are split among several programs, and a second
kernel merges their answers by their log Σ exp.

    code      shape             dtype          what
    q         [B, T, Hq, K]     any but fp64   Hq a multiple of Hkv
    keys      [B, R, Hkv, K]    q's            the ring; values likewise
    number    [B, T]            int64          the queries' own numbers, consecutive in a row; their keys are stored
    out       [B, T, Hq, K]     q's            a query that sees nothing gets 0
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .configurations import capability
from .window_tiles import configuration, splits_of


@triton.jit
def stand(block, R, oldest_slot, span, BLOCK: tl.constexpr):
    """Where a block begins: its first number that no block before it holds, and the slot and number it is read from."""
    blocks = tl.cdiv(R, BLOCK)  # of the ring; beyond them stand its first ones again
    turn = tl.where(block >= blocks, R, 0) - oldest_slot  # what makes a slot a number
    slot = tl.where(block >= blocks, block - blocks, block) * BLOCK
    at = tl.minimum(slot, span - turn - BLOCK)  # the last one moves back, to end with the newest: nobody wrote beyond
    return slot + turn, at, at + turn


@triton.jit
def piece(source, batch, key_head, at, R, KEY_HEADS: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr,
          TILES: tl.constexpr):  # fmt: skip
    """The slots from `at` on, [BLOCK, K], zeros where the ring has none: by one request of TMA's, or by all threads."""
    if TILES:
        found = source.load([batch.to(tl.int32), at, key_head * K]).reshape(BLOCK, K)
    else:
        slot = at + tl.arange(0, BLOCK)
        place = slot[:, None] * (KEY_HEADS * K) + tl.arange(0, K)[None, :]  # 32 bits: 64 would take most registers
        start = source + (batch * R * KEY_HEADS + key_head) * K
        found = tl.load(start + place, mask=((slot >= 0) & (slot < R))[:, None], other=0.0)
    return found


@triton.jit
def window_kernel(
    q, keys, values, number, out, weight, T, R, window, factor,
    HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, K: tl.constexpr, TIMES: tl.constexpr, BLOCK: tl.constexpr,
    SPLITS: tl.constexpr, LATE: tl.constexpr, TILES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per TIMES queries of a key head's group, and split of the blocks they see."""
    GROUP: tl.constexpr = HEADS // KEY_HEADS
    PADDED: tl.constexpr = triton.next_power_of_2(GROUP)
    start, row = tl.program_id(0) * TIMES, tl.arange(0, TIMES * PADDED)
    batch, key_head = (tl.program_id(1) // KEY_HEADS).to(tl.int64), tl.program_id(1) % KEY_HEADS
    split = tl.program_id(2)
    time, head = start + row // PADDED, row % PADDED
    real = (time < T) & (head < GROUP)
    place = (batch * T + time) * HEADS + key_head * GROUP + head  # of a row, in units of K
    width, lane = tl.arange(0, K), tl.arange(0, BLOCK)
    queries = tl.load(q + place[:, None] * K + width[None, :], mask=real[:, None], other=0.0)

    # The numbers seen by any of these queries, counted from the oldest: 0 … span − 1. All see bottom … whole − 1.
    first = tl.load(number + batch * T + start)
    oldest = tl.maximum(first - window + 1, 0)
    whole = (first - oldest).to(tl.int32) + 1
    span = whole - 1 + tl.minimum(TIMES, T - start)
    bottom = whole + TIMES - 1 - window
    own = whole - 1 + row // PADDED
    oldest_slot = (oldest % R).to(tl.int32)
    newest_slot = oldest_slot + span - 1  # counted on past the ring's end
    last = tl.where(newest_slot < R, newest_slot // BLOCK, tl.cdiv(R, BLOCK) + (newest_slot - R) // BLOCK)
    share = tl.cdiv(last + 1 - oldest_slot // BLOCK, SPLITS)
    low = oldest_slot // BLOCK + split * share
    high = tl.minimum(low + share, last + 1)

    m = tl.full((TIMES * PADDED,), -float("inf"), tl.float32)
    mass = tl.zeros((TIMES * PADDED,), tl.float32)
    total = tl.zeros((TIMES * PADDED, K), tl.float32)
    # LATE: a block's values are added one step late, so that the tensor cores have work during the next softmax.
    waiting, keep = tl.zeros((TIMES * PADDED, BLOCK), tl.float32), tl.full((TIMES * PADDED,), 1.0, tl.float32)
    _, before, _ = stand(low, R, oldest_slot, span, BLOCK)
    for block in range(low, high):
        fresh, at, begin = stand(block, R, oldest_slot, span, BLOCK)
        key = piece(keys, batch, key_head, at, R, KEY_HEADS, K, BLOCK, TILES)
        scores = tl.dot(queries, key.T, input_precision=PRECISION)
        if LATE:
            value = piece(values, batch, key_head, before, R, KEY_HEADS, K, BLOCK, TILES)
            total = tl.dot(waiting.to(value.dtype), value, total * keep[:, None], input_precision=PRECISION)
        # Only the blocks at an edge need a mask: of the window, or of the ring. All others do without its cost.
        if (begin < tl.maximum(bottom, fresh)) | (begin + BLOCK > whole) | (at + BLOCK > R):
            n = begin + lane
            held = (n >= fresh) & (at + lane < R)  # not in the block before, nor past the ring's end
            distance = own[:, None] - n[None, :]
            scores = tl.where(held[None, :] & (distance >= 0) & (distance < window), scores, -float("inf"))
        highest = tl.maximum(m, tl.max(scores, 1) * factor)
        base = tl.where(highest == -float("inf"), 0.0, highest)  # rows that have seen nothing yet
        part = tl.exp2(scores * factor - base[:, None])
        keep = tl.exp2(m - base)
        mass = mass * keep + tl.sum(part, 1)
        m = highest
        if LATE:
            waiting, before = part, at
        else:
            value = piece(values, batch, key_head, at, R, KEY_HEADS, K, BLOCK, TILES)
            total = tl.dot(part.to(value.dtype), value, total * keep[:, None], input_precision=PRECISION)
    if LATE:
        value = piece(values, batch, key_head, before, R, KEY_HEADS, K, BLOCK, TILES)
        total = tl.dot(waiting.to(value.dtype), value, total * keep[:, None], input_precision=PRECISION)
    some = tl.where(mass == 0.0, 1.0, mass)
    if SPLITS > 1:
        place += split * (tl.num_programs(1) // KEY_HEADS * T * HEADS)
        tl.store(weight + place, tl.where(mass == 0.0, -float("inf"), m + tl.log2(some)), mask=real)
    total = (total / some[:, None]).to(out.dtype.element_ty)
    tl.store(out + place[:, None] * K + width[None, :], total, mask=real[:, None])


@triton.jit
def merge_kernel(partial, weight, out, rows, SPLITS: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr):
    """One program per query, head and WIDTH of K: Σ_s 2^weight_s partial_s / Σ_s 2^weight_s."""
    row, split = tl.program_id(0).to(tl.int64), tl.arange(0, SPLITS).to(tl.int64)
    width = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    each = tl.load(partial + (split[:, None] * rows + row) * K + width[None, :])
    exponent = tl.load(weight + split * rows + row)
    highest = tl.max(exponent, 0)
    part = tl.exp2(exponent - tl.where(highest == -float("inf"), 0.0, highest))
    sum_of_parts = tl.sum(part, 0)
    total = tl.sum(each * part[:, None], 0) / tl.where(sum_of_parts == 0.0, 1.0, sum_of_parts)
    tl.store(out + row * K + width, total.to(out.dtype.element_ty))


def window_attention(
    q: Tensor, keys: Tensor, values: Tensor, number: Tensor, *, window: int, scale: float | None = None
) -> Tensor:
    """K a power of two from 16 to 256; one device, no gradient. No host synchronisation."""
    q, keys, values, number = (x.contiguous() for x in (q, keys, values, number))
    (B, T, HEADS, K), (_, R, KEY_HEADS, _) = q.shape, keys.shape
    if R * KEY_HEADS * K >= 2**31:
        raise ValueError(f"keys has {R} slots of {KEY_HEADS} heads of {K}; a row should have fewer than 2³¹ numbers")
    out = torch.empty_like(q)
    if out.numel() == 0:
        return out
    scale = K**-0.5 if scale is None else scale
    if scale < 0:  # the kernel multiplies its maximum of scores by the scale, which must not turn them round
        q, scale = -q, -scale
    factor = max(scale * 1.4426950408889634, 1e-37)  # for exp2; not 0, which would make 0 · −∞ of what is masked
    padded = triton.next_power_of_2(HEADS // KEY_HEADS)
    row = configuration(q.dtype, K, capability(q.device), few=T * padded <= 16)
    times = max(1, row.rows // padded)
    queries = triton.cdiv(T, times)
    splits = splits_of(queries * B * KEY_HEADS, min(window, R), row.least)
    partial = out if splits == 1 else q.new_empty(splits, *q.shape, dtype=torch.float32)
    weight = q.new_empty(splits, B, T, HEADS, dtype=torch.float32) if splits > 1 else out
    tiles = row.tiles and keys.data_ptr() % 16 == values.data_ptr() % 16 == 0
    if tiles:
        shape, strides = [B, R, KEY_HEADS * K], [R * KEY_HEADS * K, KEY_HEADS * K, 1]
        keys, values = (TensorDescriptor(x, shape, strides, [1, row.block, K]) for x in (keys, values))
    window_kernel[queries, B * KEY_HEADS, splits](
        q, keys, values, number, partial, weight, T, R, window, factor, HEADS, KEY_HEADS, K, times, row.block, splits,
        row.late, tiles, "tf32x3", num_warps=row.warps, num_stages=row.stages,
    )  # fmt: skip
    if splits > 1:
        width = min(K, 32)
        merge_kernel[B * T * HEADS, K // width](partial, weight, out, B * T * HEADS, splits, K, width, num_warps=4)
    return out
