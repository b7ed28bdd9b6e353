"""A chunk's tiles, then token by token in registers: sums instead of products; the inverse row by row."""

import triton
import triton.language as tl


@triton.jit
def running_sum_kernel(x, out, T, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    total = 0.0
    for t in range(T):
        total += tl.load(x + row * stride + t)
        tl.store(out + row * T + t, total)


@triton.jit
def inverse(gram, C: tl.constexpr, LEVELS: tl.constexpr):
    i = tl.arange(0, C)
    result = tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    for row in range(1, C):
        weights = tl.sum(tl.where(i[:, None] == row, gram, 0.0), 0)  # row `row` of gram: what it takes of earlier ones
        found = tl.sum(weights[:, None] * result, 0)
        result -= tl.where(i[:, None] == row, found[None, :], 0.0)
    return result


@triton.jit
def chunk_kernel(
    q, k, v, log_decay, beta, state, out, state_out, scale, T, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    i, key, value = tl.arange(0, C), tl.arange(0, K), tl.arange(0, V)
    S = tl.load(state + head * K * V + key[:, None] * V + value[None, :])
    for start in range(0, T, C):
        row = (head // H) * T * H + (start + i) * H + head % H
        inside = start + i < T
        queries = tl.load(q + row[:, None] * K + key[None, :], mask=inside[:, None], other=0.0)
        keys = tl.load(k + row[:, None] * K + key[None, :], mask=inside[:, None], other=0.0)
        values = tl.load(v + row[:, None] * V + value[None, :], mask=inside[:, None], other=0.0)
        gates = tl.exp(tl.load(log_decay + row, mask=inside, other=0.0))
        writes = tl.load(beta + row, mask=inside, other=0.0)
        answers = tl.zeros([C, V], tl.float32)
        for t in range(C):
            now = i == t
            kt = tl.sum(tl.where(now[:, None], keys, 0.0), 0)
            S *= tl.sum(tl.where(now, gates, 0.0), 0)
            missing = tl.sum(tl.where(now[:, None], values, 0.0), 0) - tl.sum(S * kt[:, None], 0)
            S += kt[:, None] * (tl.sum(tl.where(now, writes, 0.0), 0) * missing)[None, :]
            qt = tl.sum(tl.where(now[:, None], queries, 0.0), 0)
            answers += tl.where(now[:, None], tl.sum(S * qt[:, None], 0)[None, :], 0.0)
        tl.store(out + row[:, None] * V + value[None, :], scale * answers, mask=inside[:, None])
    tl.store(state_out + head * K * V + key[:, None] * V + value[None, :], S)
