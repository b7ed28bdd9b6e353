"""The gated delta rule on a GPU, forward: two Triton kernels that do what `chunked` in minivl/ops does, chunk by chunk.

    gram  = tril(β_i Γ_ij k_i·k_j, −1);   mix = (I + gram)⁻¹ diag(β);   scores = tril(scale Γ_ij q_i·k_j)
    residual = v − k_in S;   delta = mix · residual;   out = q_in S + scores · delta;   S ← fade S + k_outᵀ delta

`chunk_kernel` makes `mix` and `scores`, which do not depend on the state, for all chunks at once. `state_kernel` then
walks through the chunks of one head with one slice of V, and keeps its slice of the state in registers throughout.
Two things make it fast. First, k_in, q_in and k_out never exist: each is k or q times a number a token, its gain, and
the gains (decays and inverse lengths both) are applied to the products' results. Second, everything is held
transposed, [V, C] and [V, K]. A matrix unit may take its left operand from registers but its right one only from
shared memory, so with S, residual and delta on the left the chain of dependent products never leaves the registers.

    code        twin's name            shape             dtype      range
    gains       decay_in, decay_out    [B, H, N, 4, C]   float32    rows: k_in's, q_in's, k_out's gains, and fade
    fade        decay_in of the last   a number a chunk  float32    [0, 1]
    mix         mix                    [B, H, N, C, C]   q's        |entries| ≤ 1 for unit keys
    scores      scores                 [B, H, N, C, C]   q's
    state       state, transposed      [V, K]            float32
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configurations import Configuration, configuration


@triton.jit
def load_rows(pointers, inside, WHOLE: tl.constexpr):
    """A tile whose rows are tokens, zeros beyond the last token; no masks where T is a whole number of chunks."""
    if WHOLE:
        tile = tl.load(pointers)
    else:
        tile = tl.load(pointers, mask=inside[:, None], other=0.0)
    return tile


@triton.jit
def inverse_length(x, NORMALIZE: tl.constexpr):
    """1 / sqrt(Σ x² + 1e-6) of each row of x [C, K], or ones."""
    gain = tl.full([x.shape[0]], 1.0, tl.float32)
    if NORMALIZE:
        wide = x.to(tl.float32)
        gain = tl.rsqrt(tl.sum(wide * wide, 1) + 1e-6)
    return gain


@triton.jit
def chunk_decays(log_decay):
    """[C] → between [C, C] (G_i − G_j, not masked), decay_in [C], decay_out [C], fade.  Whole numbers and fractions are
    summed apart, as in the twin: the difference of two large float32 sums has lost the digits of the weak decays."""
    log_decay = tl.maximum(log_decay, -1e4)
    whole = tl.floor(log_decay + 0.5)
    part = log_decay - whole
    wholes, parts = tl.cumsum(whole, 0), tl.cumsum(part, 0)
    all_whole, all_part = tl.sum(whole, 0), tl.sum(part, 0)
    between = (wholes[:, None] - wholes[None, :]) + (parts[:, None] - parts[None, :])
    decay_out = tl.exp((all_whole - wholes) + (all_part - parts))
    return between, tl.exp(wholes + parts), decay_out, tl.exp(all_whole + all_part)


@triton.jit
def halves(gram, BLOCK: tl.constexpr):
    """gram, but only the lower left BLOCK × BLOCK quarter of each diagonal block of twice that size."""
    C: tl.constexpr = gram.shape[-1]
    i, j = tl.arange(0, C)[:, None] // BLOCK, tl.arange(0, C)[None, :] // BLOCK
    return tl.where((i == j + 1) & (i % 2 == 1), gram, 0.0)


@triton.jit
def unit_triangular_inverse(gram, PRECISION: tl.constexpr):
    """(I + gram)⁻¹ for strictly lower triangular gram [C, C], by recursive halving, exactly: once the diagonal blocks
    of size b are inverted,  [[A, 0], [M, D]]⁻¹ = [[A⁻¹, 0], [−D⁻¹ M A⁻¹, D⁻¹]]  inverts those of size 2b."""
    C: tl.constexpr = gram.shape[0]
    SMALL: tl.constexpr = 16
    small, place = tl.arange(0, C // SMALL), tl.arange(0, SMALL)
    diagonal = (small[:, None] == small[None, :])[:, None, :, None]
    # The blocks of 16 on the diagonal, side by side as [C / 16, 16, 16]: small products that need not leave a warp.
    blocks = tl.sum(tl.where(diagonal, tl.reshape(gram, (C // SMALL, SMALL, C // SMALL, SMALL)), 0.0), 2)
    inverse = tl.where(place[:, None] == place[None, :], 1.0, 0.0)[None, :, :] - halves(blocks, 1)
    for level in tl.static_range(1, 4):
        below = tl.dot(inverse, halves(blocks, 2**level), input_precision=PRECISION)
        inverse -= tl.dot(below, inverse, input_precision=PRECISION)
    inverse = tl.reshape(tl.where(diagonal, inverse[:, :, None, :], 0.0), (C, C))
    if C >= 32:
        below = tl.dot(inverse, halves(gram, 16), input_precision=PRECISION)
        inverse -= tl.dot(below, inverse, input_precision=PRECISION)
    if C >= 64:
        below = tl.dot(inverse, halves(gram, 32), input_precision=PRECISION)
        inverse -= tl.dot(below, inverse, input_precision=PRECISION)
    return inverse


@triton.jit
def chunk_kernel(
    q, k, log_decay, beta, mix, scores, gains, scale, T, N, H,
    K: tl.constexpr, C: tl.constexpr, NORMALIZE: tl.constexpr, PRECISION: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """One program per chunk and head. With BACKWARD, β is taken out of mix, which then gives delta / β, the error of
    each token's prediction, and is put into scores and into k_out's gain instead: see backward.py."""
    n, head = tl.program_id(0), tl.program_id(1)
    token, width = tl.arange(0, C), tl.arange(0, K)
    inside = n * C + token < T
    first = (head // H).to(tl.int64) * T * H + n * C * H + head % H  # row of the chunk's first token
    tile = token[:, None] * (H * K) + width[None, :]
    k_tile = tl.load(k + first * K + tile, mask=inside[:, None], other=0.0)
    q_tile = tl.load(q + first * K + tile, mask=inside[:, None], other=0.0)
    beta_row = tl.load(beta + first + token * H, mask=inside, other=0.0).to(tl.float32)
    log_decay_row = tl.load(log_decay + first + token * H, mask=inside, other=0.0).to(tl.float32)
    chunk = head.to(tl.int64) * N + n
    square = chunk * C * C + token[:, None] * C + token[None, :]
    gains += chunk * 4 * C + token

    between, decay_in, decay_out, fade = chunk_decays(log_decay_row)
    past = token[:, None] >= token[None, :]
    decay = tl.exp(tl.where(past, between, float("-inf")))  # masked before the exponent, which may overflow beyond
    k_length, q_length = inverse_length(k_tile, NORMALIZE), scale * inverse_length(q_tile, NORMALIZE)
    k_out_gain = decay_out * k_length
    score = decay * tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * q_length[:, None] * k_length[None, :]
    if BACKWARD:
        score *= beta_row[None, :]
        k_out_gain *= beta_row
    tl.store(scores + square, score.to(scores.dtype.element_ty))
    tl.store(gains, decay_in * k_length)
    tl.store(gains + C, decay_in * q_length)
    tl.store(gains + 2 * C, k_out_gain)
    tl.store(gains + 3 * C, tl.zeros_like(decay_in) + fade)

    gram = decay * tl.dot(k_tile, tl.trans(k_tile), input_precision=PRECISION) * k_length[:, None] * k_length[None, :]
    gram = tl.where(token[:, None] > token[None, :], gram, 0.0)
    if BACKWARD:
        mixed = unit_triangular_inverse(gram * beta_row[None, :], PRECISION)
    else:
        mixed = unit_triangular_inverse(gram * beta_row[:, None], PRECISION) * beta_row[None, :]
    tl.store(mix + square, mixed.to(mix.dtype.element_ty))


@triton.jit
def state_kernel(
    q, k, v, mix, scores, gains, state, out, state_out, states, T, N, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr,
    HAS_STATE: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """One program per head and slice of V, a loop over chunks. With BACKWARD it writes each chunk's starting state to
    `states` [B, H, N, K, V] and each token's error to `out`, and the read-out is left away."""
    head = tl.program_id(1)
    token, width = tl.arange(0, C), tl.arange(0, K)
    column = tl.program_id(0) * SLICE + tl.arange(0, SLICE)
    first = (head // H).to(tl.int64) * T * H + head % H
    square = token[:, None] * C + token[None, :]
    k_tile, v_tile = token[:, None] * (H * K) + width[None, :], token[:, None] * (H * V) + column[None, :]
    out_tile, state_tile = token[None, :] * (H * V) + column[:, None], width[None, :] * V + column[:, None]
    dtype = k.dtype.element_ty
    S = tl.zeros([SLICE, K], tl.float32)
    if HAS_STATE:
        S = tl.load(state + head.to(tl.int64) * K * V + state_tile)

    fade = tl.load(gains + head.to(tl.int64) * N * 4 * C + 3 * C)
    for n in range(N):
        inside = n * C + token < T
        row, chunk = first + n * C * H, head.to(tl.int64) * N + n
        # What leads to a left operand is fetched chunks ahead. These two do not: so one is loaded early in the chunk,
        # and fade, needed first of all, a chunk before.
        gain = gains + chunk * 4 * C
        q_in_gain = tl.load(gain + C + token)[None, :]
        next_fade = tl.load(gain + 3 * C + (4 * C if n + 1 < N else 0))
        keys = load_rows(k + row * K + k_tile, inside, WHOLE)
        values = load_rows(v + row * V + v_tile, inside, WHOLE)
        mixing = tl.load(mix + chunk * C * C + square)
        narrow = S.to(dtype)
        found = tl.dot(narrow, tl.trans(keys), input_precision=PRECISION)
        delta = tl.dot(tl.trans(values), tl.trans(mixing), input_precision=PRECISION)
        delta = tl.dot((-tl.load(gain + token)[None, :] * found).to(dtype), tl.trans(mixing), acc=delta, input_precision=PRECISION)
        if BACKWARD:
            tl.store(states + chunk * K * V + state_tile, narrow)
            tl.store(out + row * V + out_tile, delta.to(out.dtype.element_ty), mask=inside[None, :])
        else:
            queries = load_rows(q + row * K + k_tile, inside, WHOLE)
            scoring = tl.load(scores + chunk * C * C + square)
            answer = q_in_gain * tl.dot(narrow, tl.trans(queries), input_precision=PRECISION)
            answer = tl.dot(delta.to(dtype), tl.trans(scoring), acc=answer, input_precision=PRECISION)
            tl.store(out + row * V + out_tile, answer.to(out.dtype.element_ty), mask=inside[None, :])
        S = tl.dot((tl.load(gain + 2 * C + token)[None, :] * delta).to(dtype), keys, acc=fade * S, input_precision=PRECISION)
        fade = next_fade

    if not BACKWARD:
        tl.store(state_out + head.to(tl.int64) * K * V + state_tile, S)


def prepare(q, k, log_decay, beta, *, scale, normalize_qk, config: Configuration, backward=False) -> tuple[Tensor, ...]:
    """mix and scores [B, H, N, C, C] and gains [B, H, N, 4, C], by `chunk_kernel`."""
    B, T, H, K = q.shape
    C, N = config.chunk, triton.cdiv(T, config.chunk)
    mix, scores = q.new_empty(2, B, H, N, C, C)
    gains = q.new_empty(B, H, N, 4, C, dtype=torch.float32)
    chunk_kernel[N, B * H](
        q, k, log_decay, beta, mix, scores, gains, scale, T, N, H,
        K, C, normalize_qk, config.inverse_precision, backward,
        num_warps=config.chunk_warps, num_stages=1,
    )  # fmt: skip
    return mix, scores, gains


def forward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor | None,
    scale: float, normalize_qk: bool, config: Configuration | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The bare launcher: contiguous, checked arguments in, (out, final state) out. No host synchronisation."""
    B, T, H, K = q.shape
    V = v.shape[-1]
    config = config or configuration(q, V)
    out, state_out = torch.empty_like(v), q.new_empty(B, H, K, V, dtype=torch.float32)
    if T == 0:
        return out, state_out.zero_() if state is None else state_out.copy_(state)
    mix, scores, gains = prepare(q, k, log_decay, beta, scale=scale, normalize_qk=normalize_qk, config=config)
    width = min(config.slice, V)
    state_kernel[V // width, B * H](
        q, k, v, mix, scores, gains, q if state is None else state, out, state_out, out, T, mix.shape[2], H,
        K, V, config.chunk, width, state is not None, T % config.chunk == 0, config.precision, False,
        num_warps=config.state_warps, num_stages=config.state_stages,
    )  # fmt: skip
    return out, state_out
