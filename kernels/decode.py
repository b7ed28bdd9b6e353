"""One token through the whole middle of a Gated DeltaNet layer on a GPU: everything between its projections, in place.

    q, k, v = SiLU(conv(…))      q/|q| · K^−½, k/|k|      β = σ(b)      log α = −exp(A_log) · softplus(a + dt_bias)
    S' = α S;   delta = β (v − S'ᵀ k);   S ← S' + k deltaᵀ;   out = RMSNorm(scale · Sᵀ q) ∘ SiLU(gate)

The twin is `GatedDeltaNet.mix` for T = 1. A dozen small kernels cost over a microsecond each, more than their work;
this is one, and it reads and writes what must be: the state once each way. Many programs must share a head's state,
or few multiprocessors would move it all, but the norm needs all of a head's V. So each program does one head of one row
and a slice of V, and the last one to arrive, by a count in memory, norms what all of them have read out. All is summed
in float32 and rounded once, at the end.

    code                     shape               dtype     what
    q, k                     [B, 1, H · K]       any       outputs of the projections; rows may lie apart, so that all
    v, gate                  [B, 1, H · V]       q's           may be slices of one merged projection
    a, b                     [B, 1, H]           q's
    q_weight …               [H · K, 1, taps]    q's       of the convolutions
    A_log, dt_bias           [H]                 any
    norm_weight              [V]                 any
    state                    [B, H, K, V]        float32   updated in place
    q_tail …                 [B, taps − 1, …]    float32   updated in place: the last inputs of the convolutions
    lengths                  [B] or None         int64     1, or 0 where a row has no token: nothing of it changes
    arrivals                 [B, H]              int32     zeros, and zeros again afterwards: the count of programs
    answers                  [B, H, V]           float32   read-outs on their way to the norm
    out                      [B, 1, H · V]       q's
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gating import softplus
from .operators import WIDTHS, check_runs_here, check_tensor

SLICE = 32  # columns of V per program


@triton.jit
def convolved(x, tail, weight, channel, D, TAPS: tl.constexpr):
    """SiLU(Σ_i weight_i ∘ input_i) of each channel, the tail standing before x."""
    total = tl.load(x + channel).to(tl.float32) * tl.load(weight + channel * TAPS + TAPS - 1).to(tl.float32)
    for tap in tl.static_range(TAPS - 1):
        total += tl.load(tail + tap * D + channel) * tl.load(weight + channel * TAPS + tap).to(tl.float32)
    return total * tl.sigmoid(total)


@triton.jit
def move_on(x, tail, channel, D, real, TAPS: tl.constexpr):
    """The tail forgets its oldest input and takes in x."""
    for tap in tl.static_range(TAPS - 2):
        tl.store(tail + tap * D + channel, tl.load(tail + (tap + 1) * D + channel), mask=real)
    if TAPS > 1:
        tl.store(tail + (TAPS - 2) * D + channel, tl.load(x + channel).to(tl.float32), mask=real)


@triton.jit
def decode_kernel(
    q, k, v, gate, a, b, q_weight, k_weight, v_weight, A_log, dt_bias, norm_weight,
    state, q_tail, k_tail, v_tail, lengths, arrivals, answers, out,
    q_row, k_row, v_row, gate_row, a_row, b_row, H, scale, eps,
    K: tl.constexpr, V: tl.constexpr, SLICE: tl.constexpr, TAPS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
):  # fmt: skip
    """One program per slice of V, head and row of the batch."""
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    width, column, every = tl.arange(0, K), tl.program_id(0) * SLICE + tl.arange(0, SLICE), tl.arange(0, V)
    k_channel, v_channel, every_channel = head * K + width, head * V + column, head * V + every
    own = batch * H + head
    pointers = state + own * K * V + width[:, None] * V + column[None, :]
    S = tl.load(pointers)  # asked for first: it takes longest to come

    q, q_tail = q + batch * q_row, q_tail + batch * (TAPS - 1) * H * K
    k, k_tail = k + batch * k_row, k_tail + batch * (TAPS - 1) * H * K
    v, v_tail = v + batch * v_row, v_tail + batch * (TAPS - 1) * H * V
    time_step = softplus(tl.load(a + batch * a_row + head).to(tl.float32) + tl.load(dt_bias + head).to(tl.float32))
    alpha = tl.exp(-tl.exp(tl.load(A_log + head).to(tl.float32)) * time_step)
    beta = tl.sigmoid(tl.load(b + batch * b_row + head).to(tl.float32))
    key = convolved(k, k_tail, k_weight, k_channel, H * K, TAPS)
    query = convolved(q, q_tail, q_weight, k_channel, H * K, TAPS)
    value = convolved(v, v_tail, v_weight, v_channel, H * V, TAPS)
    opening = tl.load(gate + batch * gate_row + every_channel).to(tl.float32)  # early too, though used last
    gain = tl.load(norm_weight + every).to(tl.float32) * opening * tl.sigmoid(opening)
    real = True
    if HAS_LENGTHS:
        real = tl.load(lengths + batch) > 0
    query *= scale * tl.rsqrt(tl.sum(query * query, 0) + 1e-6)
    key *= tl.rsqrt(tl.sum(key * key, 0) + 1e-6)

    # Both sums over K read the old state, so that neither waits for the other: Sᵀ q = S'ᵀ q + (k·q) delta.
    found, answer = alpha * tl.sum(S * key[:, None], 0), alpha * tl.sum(S * query[:, None], 0)
    delta = beta * (value - found)
    answer += tl.sum(query * key, 0) * delta
    tl.store(answers + own * V + column, answer)
    tl.debug_barrier()  # all threads have read what is overwritten below, and have written their answers
    arrived = tl.atomic_add(arrivals + own, 1, sem="acq_rel")
    tl.store(pointers, alpha * S + key[:, None] * delta[None, :], mask=real)
    move_on(v, v_tail, v_channel, H * V, real, TAPS)
    if arrived == V // SLICE - 1:
        full = tl.load(answers + own * V + every, cache_modifier=".cg")  # not this multiprocessor's old copy of it
        full *= gain * tl.rsqrt(tl.sum(full * full, 0) / V + eps)
        tl.store(out + batch * H * V + every_channel, full.to(out.dtype.element_ty))
        move_on(q, q_tail, k_channel, H * K, real, TAPS)  # only now: every program of the head has read these tails
        move_on(k, k_tail, k_channel, H * K, real, TAPS)
        tl.store(arrivals + own, 0)


def check(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, a: Tensor, b: Tensor, *,
    state: Tensor, arrivals: Tensor, lengths: Tensor | None, **rest: Tensor,
) -> None:  # fmt: skip
    """Every demand of the kernel, each fault told in one sentence."""
    for name, x, axes in (("a", a, "[B, 1, H]"), ("q_weight", rest["q_weight"], "[H · K, 1, taps]")):
        if x.ndim != 3:
            raise ValueError(f"{name} has shape {list(x.shape)}; it should be {axes}")
    (B, _, H), taps = a.shape, rest["q_weight"].shape[-1]
    if state.ndim != 4 or state.shape[:2] != (B, H):
        raise ValueError(f"state has shape {list(state.shape)}; it should be [{B}, {H}, K, V]")
    K, V = state.shape[2:]
    for name, width in (("K", K), ("V", V)):
        if width not in WIDTHS:
            raise ValueError(f"{name} is {width}; it should be one of {', '.join(map(str, WIDTHS))}")
    check_runs_here(q)
    wide, shapes = (q.dtype, torch.float32), {"A_log": (H,), "dt_bias": (H,), "norm_weight": (V,)}
    for name, x in {"q": q, "k": k, "v": v, "gate": gate, "a": a, "b": b}.items():
        width = {"q": H * K, "k": H * K, "a": H, "b": H}.get(name, H * V)
        check_tensor(name, x, (B, 1, width), q.device, q.dtype)
        if x.stride(-1) != 1:
            raise ValueError(f"{name} has gaps between its channels; each row should lie in one piece")
        if name in "qkv":
            shapes |= {f"{name}_weight": (width, 1, taps), f"{name}_tail": (B, taps - 1, width)}
    for name, x in rest.items():
        check_tensor(name, x, shapes[name], q.device, *((torch.float32,) if name.endswith("_tail") else wide))
    check_tensor("state", state, (B, H, K, V), q.device, torch.float32)
    check_tensor("arrivals", arrivals, (B, H), q.device, torch.int32)
    if lengths is not None:
        check_tensor("lengths", lengths, (B,), q.device, torch.int64)
        rest["lengths"] = lengths
    for name, x in {"state": state, "arrivals": arrivals, **rest}.items():
        if not x.is_contiguous():
            raise ValueError(f"{name} is not contiguous; the kernel needs it in one piece")
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, gate, a, b, state, *rest.values())):
        raise ValueError("decoding makes no gradients; call it under torch.no_grad()")


def decode_gated_deltanet(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, a: Tensor, b: Tensor, *,
    q_weight: Tensor, k_weight: Tensor, v_weight: Tensor, A_log: Tensor, dt_bias: Tensor, norm_weight: Tensor,
    eps: float, state: Tensor, q_tail: Tensor, k_tail: Tensor, v_tail: Tensor, arrivals: Tensor,
    lengths: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """One token of each row, without gradients: state and tails updated in place, the gated read-out returned."""
    tails = {"q_tail": q_tail, "k_tail": k_tail, "v_tail": v_tail}
    weights = {"q_weight": q_weight, "k_weight": k_weight, "v_weight": v_weight}
    numbers = {"A_log": A_log, "dt_bias": dt_bias, "norm_weight": norm_weight}
    check(q, k, v, gate, a, b, state=state, arrivals=arrivals, lengths=lengths, **tails, **weights, **numbers)
    (B, H, K, V), taps = state.shape, q_weight.shape[-1]
    out, answers = q.new_empty(B, 1, H * V), state.new_empty(B, H, V)
    if B * H:
        width = min(SLICE, V)
        decode_kernel[V // width, H, B](
            q, k, v, gate, a, b, q_weight, k_weight, v_weight, A_log, dt_bias, norm_weight,
            state, q_tail, k_tail, v_tail, state if lengths is None else lengths, arrivals, answers, out,
            q.stride(0), k.stride(0), v.stride(0), gate.stride(0), a.stride(0), b.stride(0), H, K**-0.5, eps,
            K, V, width, taps, lengths is not None, num_warps=warps(K),
        )  # fmt: skip
    return out


def warps(K: int) -> int:
    """At most 64 numbers of the state a thread."""
    return max(1, K * SLICE // 2048)
