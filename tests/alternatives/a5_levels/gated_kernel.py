"""Sums by a triangular product; the inverse as a product of (I − N)(I + N²)…; WY vectors in place of mix."""

import triton
import triton.language as tl


@triton.jit
def running_sum_kernel(x, out, T, stride, BLOCK: tl.constexpr):
    row, t = tl.program_id(0), tl.arange(0, BLOCK)
    numbers = tl.load(x + row * stride + t, t < T, 0.0)
    sums = tl.sum(tl.where(t[:, None] >= t[None, :], numbers[None, :], 0.0), 1)
    tl.store(out + row * T + t, sums, t < T)


@triton.jit
def inverse(gram, C: tl.constexpr, LEVELS: tl.constexpr):
    i = tl.arange(0, C)
    one = tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    result, power = one, gram
    for block in tl.static_range(0, LEVELS):
        # diagonal blocks of size 2^block are done: the pairs' own missing quarter
        size: tl.constexpr = 2**block
        row, column = i[:, None] // size, i[None, :] // size
        quarter = tl.where((row % 2 == 1) & (column == row - 1), power, 0.0)
        result = tl.dot(one - tl.dot(result, quarter), result)
    return result


@triton.jit
def chunk_kernel(
    q, k, v, log_decay, beta, state, out, state_out, scale, T, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    i, a, b = tl.arange(0, C), tl.arange(0, K), tl.arange(0, V)
    memory = tl.trans(tl.load(state + head * K * V + a[:, None] * V + b[None, :]))  # [V, K]
    for n in range(tl.cdiv(T, C)):
        t = n * C + i
        inside = t < T
        row = ((head // H) * T + t) * H + head % H
        Q = tl.load(q + row[:, None] * K + a[None, :], inside[:, None], 0.0) * scale
        X = tl.load(k + row[:, None] * K + a[None, :], inside[:, None], 0.0)
        Y = tl.load(v + row[:, None] * V + b[None, :], inside[:, None], 0.0)
        g = tl.load(log_decay + row, inside, 0.0)
        w = tl.load(beta + row, inside, 0.0)
        G = tl.sum(tl.where(i[:, None] >= i[None, :], g[None, :], 0.0), 1)
        gap = tl.where(i[:, None] >= i[None, :], G[:, None] - G[None, :], -1e9)
        alike = tl.dot(X, tl.trans(X)) * tl.exp(gap) * w[:, None]
        solve = inverse(tl.where(i[:, None] > i[None, :], alike, 0.0), C, LEVELS)
        erase = tl.dot(solve, X * (w * tl.exp(G))[:, None])
        write = tl.dot(solve, Y * w[:, None]) - tl.dot(erase, tl.trans(memory))
        asked = tl.dot(Q * tl.exp(G)[:, None], tl.trans(memory)) + tl.dot(tl.dot(Q, tl.trans(X)) * tl.exp(gap), write)
        tl.store(out + row[:, None] * V + b[None, :], asked, inside[:, None])
        last = tl.sum(g, 0)
        memory = memory * tl.exp(last) + tl.dot(tl.trans(write), X * tl.exp(last - G)[:, None])
    tl.store(state_out + head * K * V + a[:, None] * V + b[None, :], tl.trans(memory))
