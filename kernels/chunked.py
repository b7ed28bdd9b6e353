"""The gated delta rule on a GPU, forward: two Triton kernels that do what `chunked` in minivl/ops does, chunk by chunk.

    gram  = tril(β_i Γ_ij k_i·k_j, −1);   mix = (I + gram)⁻¹ diag(β);   scores = tril(scale Γ_ij q_i·k_j)
    delta = mix (v − k_in S);   out = q_in S + scores · delta;   S ← fade S + k_outᵀ delta

`chunk_kernel` makes what does not depend on the state, for all chunks at once. `state_kernel` then walks through the
chunks of one head with one slice of V, and keeps its slice of the state in registers throughout. Two things make it
fast. First, delta = mix v + erased S with erased = −mix k_in made beforehand, so only two dependent products are left
between one state and the next. Second, everything is held transposed, [V, C] and [V, K]. A matrix unit may take its
left operand from registers but its right one only from shared memory, so with S and delta on the left the chain of
dependent products never leaves the registers.

    code      twin's name               shape               dtype      range
    mix       mix                       [B, H, N, C, C]     q's        |entries| ≤ 1 for unit keys
    erased    −mix k_in                 [B, H, N, C, K]     q's        times S: what delta takes back of S
    q_in      q_in                      [B, H, N, C, K]     q's
    scores    scores                    [B, H, N, C, C]     q's
    gains     k_out / k, and fade       [B, H, N, 2, C]     float32    decays and inverse lengths; fade in all of row 1
    fade      decay_in, last token's    a number a chunk    float32    [0, 1]
    S         state, transposed         [V, K]              float32
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configurations import Configuration, configuration
from .launch import facts, launch


@triton.jit
def load_rows(pointers, inside, WHOLE: tl.constexpr):
    """A tile whose rows are tokens, zeros beyond the last token; no masks where T is a whole number of chunks."""
    return tl.load(pointers) if WHOLE else tl.load(pointers, mask=inside[:, None], other=0.0)


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
    """[C] → between [C, C] (G_i − G_j, not masked), decay_in [C], decay_out [C], fade.  The difference of two large
    float32 sums has lost the digits of weak decays. The twin gives each pair a sum of its own; here whole numbers and
    fractions are summed apart, which keeps the digits with two running sums for all."""
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
    of size b are inverted,  [[a, 0], [m, d]]⁻¹ = [[a⁻¹, 0], [−d⁻¹ m a⁻¹, d⁻¹]]  inverts those of size 2b."""
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


@triton.jit(do_not_specialize=["start", "T", "N"])
def chunk_kernel(
    q, k, log_decay, beta, mix, erased, q_in, scores, gains, scale, start, T, N, H,
    K: tl.constexpr, C: tl.constexpr, NORMALIZE: tl.constexpr, PRECISION: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """One program per chunk and head, of the N chunks from `start` on. With BACKWARD, β is taken out of mix, which then
    gives delta / β, the error of each token's prediction, and is put into scores and k_out's gain: see backward.py."""
    n, head = tl.program_id(0), tl.program_id(1)
    token, width = tl.arange(0, C), tl.arange(0, K)
    inside = (start + n) * C + token < T
    first = (head // H).to(tl.int64) * T * H + (start + n) * C * H + head % H  # row of the chunk's first token
    k_tile = first * K + token[:, None] * (H * K) + width[None, :]
    keys = tl.load(k + k_tile, mask=inside[:, None], other=0.0)
    queries = tl.load(q + k_tile, mask=inside[:, None], other=0.0)
    beta_row = tl.load(beta + first + token * H, mask=inside, other=0.0).to(tl.float32)
    log_decay_row = tl.load(log_decay + first + token * H, mask=inside, other=0.0).to(tl.float32)
    chunk = head.to(tl.int64) * N + n
    square = chunk * C * C + token[:, None] * C + token[None, :]
    tile = chunk * C * K + token[:, None] * K + width[None, :]

    between, decay_in, decay_out, fade = chunk_decays(log_decay_row)
    past = token[:, None] >= token[None, :]
    decay = tl.exp(tl.where(past, between, float("-inf")))  # masked before the exponent, which may overflow beyond
    k_length, q_length = inverse_length(keys, NORMALIZE), scale * inverse_length(queries, NORMALIZE)
    k_out_gain = decay_out * k_length
    score = decay * tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * q_length[:, None] * k_length[None, :]
    if BACKWARD:
        score *= beta_row[None, :]
        k_out_gain *= beta_row
    tl.store(scores + square, score.to(scores.dtype.element_ty))
    tl.store(q_in + tile, (queries * (decay_in * q_length)[:, None]).to(q_in.dtype.element_ty))
    tl.store(gains + chunk * 2 * C + token, k_out_gain)
    tl.store(gains + chunk * 2 * C + C + token, tl.zeros_like(decay_in) + fade)

    gram = decay * tl.dot(keys, tl.trans(keys), input_precision=PRECISION) * k_length[:, None] * k_length[None, :]
    gram = tl.where(token[:, None] > token[None, :], gram, 0.0)
    if BACKWARD:
        mixed = unit_triangular_inverse(gram * beta_row[None, :], PRECISION)
    else:
        mixed = unit_triangular_inverse(gram * beta_row[:, None], PRECISION) * beta_row[None, :]
    tl.store(mix + square, mixed.to(mix.dtype.element_ty))
    mixed *= -(decay_in * k_length)[None, :]
    mixed_keys = tl.dot(mixed.to(keys.dtype), keys, input_precision=PRECISION)
    tl.store(erased + tile, mixed_keys.to(erased.dtype.element_ty))


@triton.jit(do_not_specialize=["start", "T", "N"])
def state_kernel(
    k, v, mix, erased, q_in, scores, gains, state, out, state_out, states, start, T, N, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr,
    HAS_STATE: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """One program per head and slice of V, a loop over N chunks from `start` on. With BACKWARD it writes each chunk's
    starting state to `states` [B, H, N, K, V] and each token's error to `out`, and the read-out is left away."""
    head = tl.program_id(1)
    token, width = tl.arange(0, C), tl.arange(0, K)
    column = tl.program_id(0) * SLICE + tl.arange(0, SLICE)
    first = (head // H).to(tl.int64) * T * H + start * C * H + head % H
    square, tile = token[:, None] * C + token[None, :], token[:, None] * K + width[None, :]
    k_tile, v_tile = token[:, None] * (H * K) + width[None, :], token[:, None] * (H * V) + column[None, :]
    out_tile, state_tile = token[None, :] * (H * V) + column[:, None], width[None, :] * V + column[:, None]
    dtype = k.dtype.element_ty
    S = tl.zeros([SLICE, K], tl.float32)
    if HAS_STATE:
        S = tl.load(state + head.to(tl.int64) * K * V + state_tile)

    fade = tl.load(gains + head.to(tl.int64) * N * 2 * C + C)
    for n in range(N):
        inside = (start + n) * C + token < T
        row, chunk = first + n * C * H, head.to(tl.int64) * N + n
        # What leads to a left operand is fetched chunks ahead; fade, needed early, must be asked for a chunk before.
        next_fade = tl.load(gains + chunk * 2 * C + C + (2 * C if n + 1 < N else 0))
        narrow = S.to(dtype)
        values = load_rows(v + row * V + v_tile, inside, WHOLE)
        delta = tl.dot(tl.trans(values), tl.trans(tl.load(mix + chunk * C * C + square)), input_precision=PRECISION)
        delta = tl.dot(narrow, tl.trans(tl.load(erased + chunk * C * K + tile)), delta, PRECISION)
        if BACKWARD:
            tl.store(states + chunk * K * V + state_tile, narrow)
            tl.store(out + row * V + out_tile, delta.to(out.dtype.element_ty), mask=inside[None, :])
        else:
            answer = tl.dot(narrow, tl.trans(tl.load(q_in + chunk * C * K + tile)), input_precision=PRECISION)
            answer = tl.dot(delta.to(dtype), tl.trans(tl.load(scores + chunk * C * C + square)), answer, PRECISION)
            tl.store(out + row * V + out_tile, answer.to(out.dtype.element_ty), mask=inside[None, :])
        written = (delta * tl.load(gains + chunk * 2 * C + token)[None, :]).to(dtype)
        S = tl.dot(written, load_rows(k + row * K + k_tile, inside, WHOLE), fade * S, PRECISION)
        fade = next_fade

    if not BACKWARD:
        tl.store(state_out + head.to(tl.int64) * K * V + state_tile, S)


def prepare(
    q, k, log_decay, beta, scale, normalize_qk, config: Configuration, known: tuple, start: int, N: int, backward=False
) -> tuple[Tensor, ...]:  # fmt: skip
    """(mix, erased, q_in, scores, gains) of N chunks from `start` on, by `chunk_kernel`. known: see launch.py."""
    B, T, H, K = q.shape
    C = config.chunk
    mix, scores = q.new_empty(B, H, N, C, C), q.new_empty(B, H, N, C, C)
    erased, q_in = q.new_empty(B, H, N, C, K), q.new_empty(B, H, N, C, K)
    gains = q.new_empty(B, H, N, 2, C, dtype=torch.float32)
    launch(
        chunk_kernel, (N, B * H, 1), known,
        q, k, log_decay, beta, mix, erased, q_in, scores, gains, float(scale), start, T, N, H,
        K, C, normalize_qk, config.inverse_precision, backward,
        num_warps=config.chunk_warps, num_stages=1,
    )  # fmt: skip
    return mix, erased, q_in, scores, gains


def forward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor | None,
    scale: float, normalize_qk: bool, config: Configuration | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The bare launcher: contiguous, checked arguments in, (out, final state) out. No host synchronisation.

    Long inputs go through in spans, so that what stands between the two kernels stays small whatever T is."""
    B, T, H, K = q.shape
    V = v.shape[-1]
    config = config or configuration(q)
    out, state_out = torch.empty_like(v), q.new_empty(B, H, K, V, dtype=torch.float32)
    if T == 0:
        return out, state_out.zero_() if state is None else state_out.copy_(state)
    C, width, total = config.chunk, min(config.slice, V), triton.cdiv(T, config.chunk)
    known = (facts(q, k, v, log_decay, beta, state), H, K, V, normalize_qk, T % C == 0, config)
    for start in range(0, total, config.span // C):
        N = min(config.span // C, total - start)
        parts = prepare(q, k, log_decay, beta, scale, normalize_qk, config, known, start, N)
        launch(
            state_kernel, (V // width, B * H, 1), (*known, state is not None),
            k, v, *parts, q if state is None else state, out, state_out, out, start, T, N, H,
            K, V, C, width, state is not None, T % C == 0, config.precision, False,
            num_warps=config.state_warps, num_stages=config.state_stages,
        )  # fmt: skip
        state = state_out  # each program reads its own slice of it before it writes there
    return out, state_out
