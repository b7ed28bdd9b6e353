"""The gated delta rule on a GPU, backward: nothing but the inputs is kept from the forward pass, the rest is recomputed.

Every token's error is how far its prediction was off, so delta = β error. With a_ij = Γ_ij k_i·k_j below the diagonal,
the forward pass of a chunk reads

    residual = v − k_in S;   error = (I + a diag(β))⁻¹ residual;   out = q_in S + scores diag(β) error
    S' = fade S + k_outᵀ diag(β) error

Its gradient runs through the chunks backwards, D being the gradient of S:

    d_error = β (scoresᵀ d_out + k_out D');   d_residual = (I + a diag(β))⁻ᵀ d_error = d_v
    D = fade D' + q_inᵀ d_out − k_inᵀ d_residual

Working with error rather than delta, no gradient is ever divided by β, which may be zero. Four kernels: `chunk_kernel`
and `state_kernel` of the forward pass again, with BACKWARD (β moves from mix to scores and k_out's gain; states and
errors are written), `reverse_kernel` for the loop above, and `gradient_kernel`, all chunks at once, for what remains:

    d_scores = d_out errorᵀ diag(β);      d_a = −d_residual errorᵀ diag(β)     (only below or on the diagonal)
    d_q_in = d_out Sᵀ;     d_k_in = −d_residual Sᵀ;     d_k_out = diag(β) error D'ᵀ
    d_β_j = Σ_i scores_ij (d_out_i·error_j) − Σ_i a_ij (d_residual_i·error_j) + k_out_j·(D' error_j)
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .chunked import chunk_decays, inverse_length, load_rows, prepare, state_kernel
from .configurations import Configuration, configuration


@triton.jit
def reverse_kernel(
    q, k, mix, scores, gains, d_out, d_state, d_v, d_states, d_start, T, N, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr,
    WHOLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per head and slice of V, chunks from the last to the first; D is held transposed, as S is."""
    head = tl.program_id(1)
    token, width = tl.arange(0, C), tl.arange(0, K)
    column = tl.program_id(0) * SLICE + tl.arange(0, SLICE)
    first = (head // H).to(tl.int64) * T * H + head % H
    square = token[:, None] * C + token[None, :]
    k_tile, v_tile = token[:, None] * (H * K) + width[None, :], token[:, None] * (H * V) + column[None, :]
    out_tile, state_tile = token[None, :] * (H * V) + column[:, None], width[None, :] * V + column[:, None]
    dtype = k.dtype.element_ty
    D = tl.load(d_state + head.to(tl.int64) * K * V + state_tile)

    for back in range(N):
        n = N - 1 - back
        inside = n * C + token < T
        row, chunk = first + n * C * H, head.to(tl.int64) * N + n
        gain = gains + chunk * 4 * C
        k_out_gain, fade = tl.load(gain + 2 * C + token)[None, :], tl.load(gain + 3 * C)
        keys = load_rows(k + row * K + k_tile, inside, WHOLE)
        queries = load_rows(q + row * K + k_tile, inside, WHOLE)
        d_answer = tl.trans(load_rows(d_out + row * V + v_tile, inside, WHOLE))
        scoring = tl.load(scores + chunk * C * C + square)
        mixing = tl.load(mix + chunk * C * C + square)
        narrow = D.to(dtype)
        tl.store(d_states + chunk * K * V + state_tile, narrow)
        d_error = k_out_gain * tl.dot(narrow, tl.trans(keys), input_precision=PRECISION)
        d_error = tl.dot(d_answer, scoring, acc=d_error, input_precision=PRECISION)
        d_residual = tl.dot(d_error.to(dtype), mixing, input_precision=PRECISION)
        tl.store(d_v + row * V + out_tile, d_residual.to(d_v.dtype.element_ty), mask=inside[None, :])
        erased = (-tl.load(gain + token)[None, :] * d_residual).to(dtype)
        D = tl.dot(erased, keys, acc=fade * D, input_precision=PRECISION)
        asked = (tl.load(gain + C + token)[None, :] * d_answer.to(tl.float32)).to(dtype)
        D = tl.dot(asked, queries, acc=D, input_precision=PRECISION)

    tl.store(d_start + head.to(tl.int64) * K * V + state_tile, D)


@triton.jit
def through_length(d_unit, x, length, NORMALIZE: tl.constexpr):
    """From the gradient of the unit vectors length · x to that of x."""
    if NORMALIZE:
        along = length * length * tl.sum(d_unit * x, 1)
        d_unit = length[:, None] * (d_unit - along[:, None] * x)
    return d_unit


@triton.jit
def gradient_kernel(
    q, k, log_decay, beta, errors, states, d_out, d_v, d_states, d_q, d_k, d_log_decay, d_beta, scale, T, N, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr,
    NORMALIZE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per chunk and head, a loop over slices of V. What it needs of a product's transpose it computes as
    a product of its own: transposing a product's result in registers has been compiled wrongly by several Tritons."""
    n, head = tl.program_id(0), tl.program_id(1)
    token, width, column = tl.arange(0, C), tl.arange(0, K), tl.arange(0, SLICE)
    inside = n * C + token < T
    first = (head // H).to(tl.int64) * T * H + n * C * H + head % H
    chunk = head.to(tl.int64) * N + n
    k_tile, v_tile = token[:, None] * (H * K) + width[None, :], token[:, None] * (H * V) + column[None, :]
    state_tile = chunk * K * V + width[:, None] * V + column[None, :]

    answer_error = tl.zeros([C, C], tl.float32)  # [i, j] = d_out_i · error_j
    error_answer = tl.zeros([C, C], tl.float32)  # its transpose
    residual_error = tl.zeros([C, C], tl.float32)  # [i, j] = d_residual_i · error_j
    error_residual = tl.zeros([C, C], tl.float32)
    d_q_in = tl.zeros([C, K], tl.float32)
    d_k_in = tl.zeros([C, K], tl.float32)
    d_k_out = tl.zeros([C, K], tl.float32)
    d_fade = tl.zeros([K], tl.float32)
    for v_start in range(0, V, SLICE):
        rows = first * V + v_start + v_tile
        error = tl.load(errors + rows, mask=inside[:, None], other=0.0)
        d_answer = tl.load(d_out + rows, mask=inside[:, None], other=0.0)
        d_residual = tl.load(d_v + rows, mask=inside[:, None], other=0.0)
        S, D = tl.load(states + v_start + state_tile), tl.load(d_states + v_start + state_tile)
        answer_error = tl.dot(d_answer, tl.trans(error), acc=answer_error, input_precision=PRECISION)
        error_answer = tl.dot(error, tl.trans(d_answer), acc=error_answer, input_precision=PRECISION)
        residual_error = tl.dot(d_residual, tl.trans(error), acc=residual_error, input_precision=PRECISION)
        error_residual = tl.dot(error, tl.trans(d_residual), acc=error_residual, input_precision=PRECISION)
        d_q_in = tl.dot(d_answer, tl.trans(S), acc=d_q_in, input_precision=PRECISION)
        d_k_in = tl.dot(d_residual, tl.trans(S), acc=d_k_in, input_precision=PRECISION)
        d_k_out = tl.dot(error, tl.trans(D), acc=d_k_out, input_precision=PRECISION)
        d_fade += tl.sum(S.to(tl.float32) * D.to(tl.float32), 1)

    k_tile = first * K + k_tile
    keys = tl.load(k + k_tile, mask=inside[:, None], other=0.0)
    queries = tl.load(q + k_tile, mask=inside[:, None], other=0.0)
    beta_row = tl.load(beta + first + token * H, mask=inside, other=0.0).to(tl.float32)
    log_decay_row = tl.load(log_decay + first + token * H, mask=inside, other=0.0).to(tl.float32)
    between, decay_in, decay_out, fade = chunk_decays(log_decay_row)
    k_length, q_length = inverse_length(keys, NORMALIZE), inverse_length(queries, NORMALIZE)
    strictly_past, strictly_future = token[:, None] > token[None, :], token[:, None] < token[None, :]
    decay = tl.exp(tl.where(strictly_future, float("-inf"), between))
    decay_back = tl.exp(tl.where(strictly_past, float("-inf"), -between))  # decay, transposed

    # The pairs of tokens: what scores and a pass on to β and to the decays between the two.
    a = decay * k_length[:, None] * k_length[None, :] * tl.dot(keys, tl.trans(keys), input_precision=PRECISION)
    a = tl.where(strictly_past, -a * residual_error, 0.0)
    score = (scale * decay) * q_length[:, None] * k_length[None, :]
    score *= tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * answer_error
    d_beta_row = tl.sum(a + score, 0)
    pairs = tl.where(strictly_past, a + score, 0.0) * beta_row[None, :]
    d_G = tl.sum(pairs, 1) - tl.sum(pairs, 0)

    # The state: what q_in, k_in, k_out and fade pass on.
    wide_q, wide_k = queries.to(tl.float32), keys.to(tl.float32)
    d_q_in = d_q_in * (scale * decay_in)[:, None]
    d_k_in = d_k_in * -decay_in[:, None]
    d_k_out = d_k_out * decay_out[:, None]
    written = k_length * tl.sum(wide_k * d_k_out, 1)
    d_beta_row += written
    written *= beta_row
    d_G += q_length * tl.sum(wide_q * d_q_in, 1) + k_length * tl.sum(wide_k * d_k_in, 1) - written
    d_last = tl.sum(written, 0) + fade * tl.sum(d_fade, 0)
    tl.store(d_beta + first + token * H, d_beta_row, mask=inside)
    tl.store(d_log_decay + first + token * H, tl.cumsum(d_G, 0, reverse=True) + d_last, mask=inside)

    # q and k themselves.
    dtype = k.dtype.element_ty
    d_score = (scale * decay) * answer_error * beta_row[None, :] * k_length[None, :]
    d_unit_q = tl.dot(d_score.to(dtype), keys, acc=d_q_in, input_precision=PRECISION)
    d_score = (scale * decay_back) * error_answer * beta_row[:, None] * q_length[None, :]
    d_unit_k = d_k_in + d_k_out * beta_row[:, None]
    d_unit_k = tl.dot(d_score.to(dtype), queries, acc=d_unit_k, input_precision=PRECISION)
    d_a = tl.where(strictly_past, decay * residual_error * beta_row[None, :], 0.0)
    d_a += tl.where(strictly_future, decay_back * error_residual * beta_row[:, None], 0.0)
    d_unit_k = tl.dot((-d_a * k_length[None, :]).to(dtype), keys, acc=d_unit_k, input_precision=PRECISION)
    d_queries = through_length(d_unit_q, wide_q, q_length, NORMALIZE)
    d_keys = through_length(d_unit_k, wide_k, k_length, NORMALIZE)
    tl.store(d_q + k_tile, d_queries.to(d_q.dtype.element_ty), mask=inside[:, None])
    tl.store(d_k + k_tile, d_keys.to(d_k.dtype.element_ty), mask=inside[:, None])


def backward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor | None,
    d_out: Tensor, d_state: Tensor, scale: float, normalize_qk: bool, config: Configuration | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, log_decay, beta and the starting state, from those of out and the final state."""
    B, T, H, K = q.shape
    V = v.shape[-1]
    config = config or configuration(q, V)
    d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    d_log_decay, d_beta = torch.empty_like(log_decay), torch.empty_like(beta)
    if T == 0:
        return d_q, d_k, d_v, d_log_decay, d_beta, d_state.clone()
    d_start = torch.empty_like(d_state)
    C, width = config.chunk, min(config.slice, V)
    mix, scores, gains = prepare(
        q, k, log_decay, beta, scale=scale, normalize_qk=normalize_qk, config=config, backward=True
    )
    N = mix.shape[2]
    states, d_states = q.new_empty(2, B, H, N, K, V)
    errors = torch.empty_like(v)
    state_kernel[V // width, B * H](
        q, k, v, mix, scores, gains, q if state is None else state, errors, d_start, states, T, N, H,
        K, V, C, width, state is not None, T % C == 0, config.precision, True,
        num_warps=config.state_warps, num_stages=config.state_stages,
    )  # fmt: skip
    reverse_kernel[V // width, B * H](
        q, k, mix, scores, gains, d_out, d_state, d_v, d_states, d_start, T, N, H,
        K, V, C, width, T % C == 0, config.precision,
        num_warps=config.state_warps, num_stages=config.reverse_stages,
    )  # fmt: skip
    gradient_kernel[N, B * H](
        q, k, log_decay, beta, errors, states, d_out, d_v, d_states, d_q, d_k, d_log_decay, d_beta, scale, T, N, H,
        K, V, C, min(config.gradient_slice, V), normalize_qk, config.precision,
        num_warps=config.gradient_warps, num_stages=config.gradient_stages,
    )  # fmt: skip
    return d_q, d_k, d_v, d_log_decay, d_beta, d_start
