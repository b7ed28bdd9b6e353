"""The gated delta rule on a GPU, backward: only the inputs are kept from the forward pass, the rest is recomputed.

Every token's error is how far its prediction was off, so delta = β error. With a_ij = Γ_ij k_i·k_j below the diagonal,
the forward pass of a chunk reads

    residual = v − k_in S;   error = (I + a diag(β))⁻¹ residual;   out = q_in S + scores diag(β) error
    S' = fade S + k_outᵀ diag(β) error

Its gradient runs through the chunks backwards, D being the gradient of S:

    d_error = β (scoresᵀ d_out + k_out D');   d_residual = (I + a diag(β))⁻ᵀ d_error = d_v
    D = fade D' + q_inᵀ d_out + erasedᵀ d_error           (erased = −(I + a diag(β))⁻¹ k_in)

Working with error rather than delta, no gradient need be divided by β, which may be zero. Three kernels: `chunk_kernel`
of the forward pass again, with BACKWARD (β moves from mix to scores and k_out's gain); `walks_kernel`, in which the
forward pass's loop (states and errors are written) and the loop above (`reverse_loop`) run side by side, as neither
needs the other; and `gradient_kernel`, all chunks at once, for what remains:

    d_scores = d_out errorᵀ diag(β);      d_a = −d_residual errorᵀ diag(β)     (only below or on the diagonal)
    d_q_in = d_out Sᵀ;     d_k_in = −d_residual Sᵀ;     d_k_out = diag(β) error D'ᵀ
    d_β_j = Σ_i scores_ij (d_out_i·error_j) − Σ_i a_ij (d_residual_i·error_j) + k_out_j·(D' error_j)

The three sums cancel where keys repeat, and rounded to 16 bits they would leave noise. Their total is also
d_residual_j·error_j / β_j, without cancellation; so the sums serve only tokens whose β is next to nothing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .chunked import chunk_decays, inverse_length, load_rows, prepare, state_kernel
from .configurations import Configuration, configuration
from .launch import facts, launch


@triton.jit
def reverse_loop(
    k, mix, erased, q_in, scores, gains, d_out, d_state, d_v, d_states, d_start, T, N, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr,
    WHOLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per head and slice of V, chunks from the last to the first; D is held transposed, as S is."""
    head = tl.program_id(1)
    token, width = tl.arange(0, C), tl.arange(0, K)
    column = tl.program_id(0) * SLICE + tl.arange(0, SLICE)
    first = (head // H).to(tl.int64) * T * H + head % H
    square, tile = token[:, None] * C + token[None, :], token[:, None] * K + width[None, :]
    k_tile, v_tile = token[:, None] * (H * K) + width[None, :], token[:, None] * (H * V) + column[None, :]
    out_tile, state_tile = token[None, :] * (H * V) + column[:, None], width[None, :] * V + column[:, None]
    dtype = k.dtype.element_ty
    D = tl.load(d_state + head.to(tl.int64) * K * V + state_tile)

    fade = tl.load(gains + (head.to(tl.int64) * N + N - 1) * 2 * C + C)
    for back in range(N):
        n = N - 1 - back
        inside = n * C + token < T
        row, chunk = first + n * C * H, head.to(tl.int64) * N + n
        next_fade = tl.load(gains + chunk * 2 * C + C - (2 * C if n > 0 else 0))
        narrow = D.to(dtype)
        tl.store(d_states + chunk * K * V + state_tile, narrow)
        d_answer = tl.trans(load_rows(d_out + row * V + v_tile, inside, WHOLE))
        keys = load_rows(k + row * K + k_tile, inside, WHOLE)
        d_error = tl.dot(narrow, tl.trans(keys), input_precision=PRECISION)
        d_error *= tl.load(gains + chunk * 2 * C + token)[None, :]
        d_error = tl.dot(d_answer, tl.load(scores + chunk * C * C + square), d_error, PRECISION).to(dtype)
        D = tl.dot(d_answer, tl.load(q_in + chunk * C * K + tile), fade * D, PRECISION)
        D = tl.dot(d_error, tl.load(erased + chunk * C * K + tile), D, PRECISION)
        d_residual = tl.dot(d_error, tl.load(mix + chunk * C * C + square), input_precision=PRECISION)
        tl.store(d_v + row * V + out_tile, d_residual.to(d_v.dtype.element_ty), mask=inside[None, :])
        fade = next_fade

    tl.store(d_start + head.to(tl.int64) * K * V + state_tile, D)


@triton.jit(do_not_specialize=["T", "N"])
def walks_kernel(
    k, v, mix, erased, q_in, scores, gains, state, errors, d_start, states, d_out, d_state, d_v, d_states, T, N, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr,
    HAS_STATE: tl.constexpr, WHOLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Both loops in one launch, as neither reads what the other writes: each alone would leave half of a large card
    idle. The longer one has the first programs."""
    if tl.program_id(2) == 0:
        reverse_loop(
            k, mix, erased, q_in, scores, gains, d_out, d_state, d_v, d_states, d_start, T, N, H,
            K, V, C, SLICE, WHOLE, PRECISION,
        )  # fmt: skip
    else:
        state_kernel(
            k, v, mix, erased, q_in, scores, gains, state, errors, d_start, states, 0, T, N, H,
            K, V, C, SLICE, HAS_STATE, WHOLE, PRECISION, True,
        )  # fmt: skip


@triton.jit
def through_length(d_x, x, length, NORMALIZE: tl.constexpr):
    """Take from the gradient of x what lies along x: a change of x's length, 1 / `length`, changes no unit vector."""
    if NORMALIZE:
        d_x -= (length * length * tl.sum(d_x * x, 1))[:, None] * x
    return d_x


@triton.jit(do_not_specialize=["T", "N"])
def gradient_kernel(
    q, k, log_decay, beta, errors, states, d_out, d_v, d_states, d_scores, d_gram, d_q, d_k, d_log_decay, d_beta,
    scale, T, N, H,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, SLICE: tl.constexpr,
    NORMALIZE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One program per chunk and head, in three rounds over slices of V: pairs of tokens, then q, then k. Each round has
    few sums to hold in registers. The pairs' gradients go through memory, [C, C] twice, so that the third round can
    read them transposed: transposing a product's result in registers has been compiled wrongly by several Tritons."""
    n, head = tl.program_id(0), tl.program_id(1)
    token, width, column = tl.arange(0, C), tl.arange(0, K), tl.arange(0, SLICE)
    inside = n * C + token < T
    rows = inside[:, None]
    first = (head // H).to(tl.int64) * T * H + n * C * H + head % H
    chunk = head.to(tl.int64) * N + n
    k_tile = first * K + token[:, None] * (H * K) + width[None, :]
    v_tile = first * V + token[:, None] * (H * V) + column[None, :]
    state_tile = chunk * K * V + width[:, None] * V + column[None, :]
    square = chunk * C * C + token[:, None] * C + token[None, :]
    dtype = k.dtype.element_ty

    keys, queries = tl.load(k + k_tile, mask=rows, other=0.0), tl.load(q + k_tile, mask=rows, other=0.0)
    beta_row = tl.load(beta + first + token * H, mask=inside, other=0.0).to(tl.float32)
    log_decay_row = tl.load(log_decay + first + token * H, mask=inside, other=0.0).to(tl.float32)
    between, decay_in, decay_out, fade = chunk_decays(log_decay_row)
    k_length, q_length = inverse_length(keys, NORMALIZE), inverse_length(queries, NORMALIZE)

    # Pairs of tokens: what scores and a pass on to β, to the decays between the two, and to q·k and k·k.
    past = token[:, None] > token[None, :]
    lengths = tl.exp(tl.where(token[:, None] >= token[None, :], between, float("-inf"))) * k_length[None, :]
    answer_error = tl.zeros([C, C], tl.float32)  # [i, j] = d_out_i · error_j
    residual_error = tl.zeros([C, C], tl.float32)  # [i, j] = d_residual_i · error_j
    for start in range(0, V, SLICE):
        error = tl.load(errors + start + v_tile, mask=rows, other=0.0)
        d_answer = tl.load(d_out + start + v_tile, mask=rows, other=0.0)
        d_residual = tl.load(d_v + start + v_tile, mask=rows, other=0.0)
        answer_error = tl.dot(d_answer, tl.trans(error), acc=answer_error, input_precision=PRECISION)
        residual_error = tl.dot(d_residual, tl.trans(error), acc=residual_error, input_precision=PRECISION)
    own = tl.sum(tl.where(token[:, None] == token[None, :], residual_error, 0.0), 1)
    answer_error *= lengths * (scale * q_length)[:, None]
    residual_error = tl.where(past, -residual_error * lengths * k_length[:, None], 0.0)
    tl.store(d_scores + square, (answer_error * beta_row[None, :]).to(dtype))
    tl.store(d_gram + square, (residual_error * beta_row[None, :]).to(dtype))
    pairs = answer_error * tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
    pairs += residual_error * tl.dot(keys, tl.trans(keys), input_precision=PRECISION)
    d_beta_row = tl.sum(pairs, 0)
    pairs = tl.where(past, pairs, 0.0) * beta_row[None, :]
    d_G = tl.sum(pairs, 1) - tl.sum(pairs, 0)
    tl.debug_barrier()

    # q, through q_in and scores.
    d_queries = tl.zeros([C, K], tl.float32)
    for start in range(0, V, SLICE):
        d_answer = tl.load(d_out + start + v_tile, mask=rows, other=0.0)
        d_queries = tl.dot(d_answer, tl.trans(tl.load(states + start + state_tile)), d_queries, PRECISION)
    wide = tl.load(q + k_tile, mask=rows, other=0.0).to(tl.float32)
    d_queries *= (scale * decay_in * q_length)[:, None]
    d_G += tl.sum(wide * d_queries, 1)
    d_queries = tl.dot(tl.load(d_scores + square), keys, d_queries, PRECISION)
    d_queries = through_length(d_queries, wide, q_length, NORMALIZE)
    tl.store(d_q + k_tile, d_queries.to(d_q.dtype.element_ty), mask=rows)

    # k, through k_in, k_out, scores and a; and fade.
    d_keys_in, d_keys_out = tl.zeros([C, K], tl.float32), tl.zeros([C, K], tl.float32)
    d_fade = tl.zeros([K], tl.float32)
    for start in range(0, V, SLICE):
        d_residual = tl.load(d_v + start + v_tile, mask=rows, other=0.0)
        error = tl.load(errors + start + v_tile, mask=rows, other=0.0)
        S, D = tl.load(states + start + state_tile), tl.load(d_states + start + state_tile)
        d_keys_in = tl.dot(d_residual, tl.trans(S), d_keys_in, PRECISION)
        d_keys_out = tl.dot(error, tl.trans(D), d_keys_out, PRECISION)
        d_fade += tl.sum(S.to(tl.float32) * D.to(tl.float32), 1)
    wide = tl.load(k + k_tile, mask=rows, other=0.0).to(tl.float32)
    d_keys_out *= (decay_out * k_length)[:, None]
    written = tl.sum(wide * d_keys_out, 1)
    d_beta_row += written
    written *= beta_row
    d_keys = -(decay_in * k_length)[:, None] * d_keys_in
    d_G += tl.sum(wide * d_keys, 1)
    d_keys += d_keys_out * beta_row[:, None]
    d_keys = tl.dot(tl.trans(tl.load(d_scores + square)), queries, d_keys, PRECISION)
    d_keys = tl.dot(tl.load(d_gram + square), keys, d_keys, PRECISION)
    d_keys = tl.dot(tl.trans(tl.load(d_gram + square)), keys, d_keys, PRECISION)
    d_keys = through_length(d_keys, wide, k_length, NORMALIZE)
    tl.store(d_k + k_tile, d_keys.to(d_k.dtype.element_ty), mask=rows)

    # A decay acts on what later tokens read, on what earlier ones wrote (summed as such: the difference of two sums
    # over all tokens would be lost in rounding where decay is strong), and on the state that passes through.
    d_decay = tl.cumsum(d_G, 0, reverse=True) + tl.sum(tl.where(past, written[None, :], 0.0), 1)
    tl.store(d_log_decay + first + token * H, d_decay + fade * tl.sum(d_fade, 0), mask=inside)
    d_beta_row = tl.where(beta_row >= 1 / 64, own / tl.maximum(beta_row, 1 / 64), d_beta_row)
    tl.store(d_beta + first + token * H, d_beta_row, mask=inside)


def backward(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor | None,
    d_out: Tensor, d_state: Tensor, scale: float, normalize_qk: bool, config: Configuration | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, log_decay, beta and the starting state, from those of out and the final state."""
    B, T, H, K = q.shape
    V = v.shape[-1]
    config = config or configuration(q, backward=True)
    d_q, d_k, d_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    d_log_decay, d_beta = torch.empty_like(log_decay), torch.empty_like(beta)
    if T == 0:
        return d_q, d_k, d_v, d_log_decay, d_beta, d_state.clone()
    d_start = torch.empty_like(d_state)
    C, width = config.chunk, min(config.slice, V)
    N = triton.cdiv(T, C)
    known = (facts(q, k, v, log_decay, beta, state, d_out, d_state), H, K, V, normalize_qk, T % C == 0, config)
    parts = prepare(q, k, log_decay, beta, scale, normalize_qk, config, known, 0, N, backward=True)
    states, d_states = q.new_empty(2, B, H, N, K, V)
    errors = torch.empty_like(v)
    launch(
        walks_kernel, (V // width, B * H, 2), known,
        k, v, *parts, q if state is None else state, errors, d_start, states, d_out, d_state, d_v, d_states, T, N, H,
        K, V, C, width, state is not None, T % C == 0, config.precision,
        num_warps=config.state_warps, num_stages=config.state_stages,
    )  # fmt: skip
    mix, _, _, scores, _ = parts  # spent, and of the right size for the gradients of the pairs
    launch(
        gradient_kernel, (N, B * H, 1), known,
        q, k, log_decay, beta, errors, states, d_out, d_v, d_states, scores, mix, d_q, d_k, d_log_decay, d_beta,
        float(scale), T, N, H, K, V, C, min(config.gradient_slice, V), normalize_qk, config.precision,
        num_warps=config.gradient_warps, num_stages=config.gradient_stages,
    )  # fmt: skip
    return d_q, d_k, d_v, d_log_decay, d_beta, d_start
