"""Three Triton kernels, small to large, with the functions that launch them.

They run in Triton's interpreter, on any CPU and without a GPU; on a GPU the same lines would be compiled. A program is
one run of a kernel's body; programs know their number, `tl.program_id`, and nothing of one another.

    code       shape           dtype      what
    x, out     [rows, T]       float32    x's rows lie `stride` numbers apart, out's T
    gram       [C, C]          float32    strictly lower triangular
    q, k       [B, T, H, K]    float32    rows of one head lie H · K numbers apart
    v, out     [B, T, H, V]    float32
    gates      [B, T, H]       float32    log_decay and beta
    state      [B, H, K, V]    float32
"""

import torch
import triton
import triton.language as tl

CHUNK = 16


@triton.jit
def running_sum_kernel(x, out, T, stride, BLOCK: tl.constexpr):
    """out[row, t] = Σ_{j≤t} x[row, j]. One program a row; BLOCK ≥ T. Nothing beyond a row's T numbers is written."""
    row, t = tl.program_id(0), tl.arange(0, BLOCK)
    inside = t < T
    numbers = tl.load(x + row * stride + t, mask=inside, other=0.0)
    tl.store(out + row * T + t, tl.cumsum(numbers, 0), mask=inside)


def running_sum(x):
    """x [rows, T] → (sums [rows, T], what stands behind them in memory, which is no one's to change)."""
    rows, T = x.shape
    block = triton.next_power_of_2(T)
    memory = torch.zeros(rows * T + rows * x.stride(0) + block)
    running_sum_kernel[(rows,)](x, memory, T, x.stride(0), block)
    return memory[: rows * T].view(rows, T), memory[rows * T :]


@triton.jit
def inverse(gram, C: tl.constexpr, LEVELS: tl.constexpr):
    """(I + gram)⁻¹ of a strictly lower triangular gram [C, C], C = 2^LEVELS, exactly, by halves:

    [[A, 0], [M, D]]⁻¹ = [[A⁻¹, 0], [−D⁻¹ M A⁻¹, D⁻¹]]. Blocks of size 1 on the diagonal are their own inverses, and
    each level makes inverses of twice the size out of pairs.
    """
    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    result = tl.where(i == j, 1.0, 0.0)
    for level in tl.static_range(0, LEVELS):
        size: tl.constexpr = 2**level
        below = tl.where((i // size == j // size + 1) & (i // size % 2 == 1), gram, 0.0)
        result -= tl.dot(tl.dot(result, below), result)
    return result


@triton.jit
def inverse_kernel(gram, out, C: tl.constexpr, LEVELS: tl.constexpr):
    """Loads one matrix a program, inverts it, stores it."""
    place = tl.program_id(0) * C * C + tl.arange(0, C)[:, None] * C + tl.arange(0, C)[None, :]
    tl.store(out + place, inverse(tl.load(gram + place), C, LEVELS))


def inverted(gram):
    """gram [N, C, C] → (I + gram)⁻¹."""
    out, C = torch.empty_like(gram), gram.shape[-1]
    inverse_kernel[(len(gram),)](gram, out, C, C.bit_length() - 1)
    return out


@triton.jit
def chunk_kernel(
    q, k, v, log_decay, beta, state, out, state_out, scale, T, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """The gated delta rule: one program a head of the batch, a loop over its chunks, the state in registers throughout.

    Per chunk, with G the running sum of log α, Γ = exp(G_i − G_j) for j ≤ i, mix = (I + tril(β_i Γ_ij k_i·k_j, −1))⁻¹
    diag(β):  delta = mix (V − e^G K S);  out = scale · (e^G Q S + tril(Γ ∘ Q Kᵀ) delta);
    S ← e^{G_C} S + (e^{G_C − G} K)ᵀ delta.
    """
    head = tl.program_id(0)
    token, key, value = tl.arange(0, C), tl.arange(0, K), tl.arange(0, V)
    first = (head // H).to(tl.int64) * T * H + head % H  # the row of the head's first token
    place = head.to(tl.int64) * K * V + key[:, None] * V + value[None, :]
    S = tl.load(state + place)
    past = token[:, None] >= token[None, :]
    for start in range(0, T, C):
        inside = start + token < T
        row = first + (start + token) * H
        queries = tl.load(q + row[:, None] * K + key[None, :], mask=inside[:, None], other=0.0)
        keys = tl.load(k + row[:, None] * K + key[None, :], mask=inside[:, None], other=0.0)
        values = tl.load(v + row[:, None] * V + value[None, :], mask=inside[:, None], other=0.0)
        gate = tl.load(log_decay + row, mask=inside, other=0.0)
        write = tl.load(beta + row, mask=inside, other=0.0)
        G, total = tl.cumsum(gate, 0), tl.sum(gate, 0)
        decay = tl.exp(tl.where(past, G[:, None] - G[None, :], float("-inf")))
        since, until = tl.exp(G), tl.exp(total - G)
        gram = write[:, None] * decay * tl.dot(keys, tl.trans(keys))
        mix = inverse(tl.where(token[:, None] > token[None, :], gram, 0.0), C, LEVELS) * write[None, :]
        delta = tl.dot(mix, values - tl.dot(since[:, None] * keys, S))
        scores = decay * tl.dot(queries, tl.trans(keys))
        answer = scale * (tl.dot(since[:, None] * queries, S) + tl.dot(scores, delta))
        tl.store(out + row[:, None] * V + value[None, :], answer, mask=inside[:, None])
        S = tl.exp(total) * S + tl.dot(tl.trans(until[:, None] * keys), delta)
    tl.store(state_out + place, S)


def chunked(q, k, v, *, log_decay, beta, state, scale=1.0):
    """The gated delta rule by chunk_kernel: K and V powers of two of at least 16, float32."""
    B, T, H, K = q.shape
    out, state_out = torch.zeros_like(v), torch.zeros_like(state)
    chunk_kernel[(B * H,)](
        q, k, v, log_decay, beta, state, out, state_out, scale, T, H, K, v.shape[-1], CHUNK, CHUNK.bit_length() - 1
    )
    return out, state_out
