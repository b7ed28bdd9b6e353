"""One token of the gated delta rule on a GPU, for decoding: the state is read once, updated in place, written once.

    S' = α S;   error = v − S'ᵀ k;   S ← S' + k (β error)ᵀ;   out = scale · Sᵀ q = scale · (S'ᵀ q + (k·q) β error)

At one token all is memory traffic: K · V · 8 bytes a head. Each program holds a slice of V columns of one head's state
in registers. The second form of `out` reads the old state too, so that both sums over K are made at the same time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def step_kernel(
    q, k, v, log_decay, beta, state, out, scale,
    K: tl.constexpr, V: tl.constexpr, SLICE: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    """One program per head of the batch and slice of V."""
    head = tl.program_id(1).to(tl.int64)
    width = tl.arange(0, K)
    column = tl.program_id(0) * SLICE + tl.arange(0, SLICE)
    pointers = state + head * K * V + width[:, None] * V + column[None, :]
    S = tl.load(pointers)
    query, key = tl.load(q + head * K + width).to(tl.float32), tl.load(k + head * K + width).to(tl.float32)
    value = tl.load(v + head * V + column).to(tl.float32)
    alpha, write = tl.exp(tl.load(log_decay + head).to(tl.float32)), tl.load(beta + head).to(tl.float32)
    if NORMALIZE:
        query *= tl.rsqrt(tl.sum(query * query, 0) + 1e-6)
        key *= tl.rsqrt(tl.sum(key * key, 0) + 1e-6)
    S *= alpha
    found, answer = tl.sum(S * key[:, None], 0), tl.sum(S * query[:, None], 0)
    delta = write * (value - found)
    tl.store(pointers, S + key[:, None] * delta[None, :])
    answer = scale * (answer + tl.sum(query * key, 0) * delta)
    tl.store(out + head * V + column, answer.to(out.dtype.element_ty))


def step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor, scale: float, normalize_qk: bool,
    width: int = 32, warps: int = 2,
) -> Tensor:  # fmt: skip
    """The bare launcher: contiguous, checked arguments with T = 1; state updated in place, out returned."""
    B, _, H, K = q.shape
    V = v.shape[-1]
    out, width = torch.empty_like(v), min(width, V)
    if B * H:
        step_kernel[V // width, B * H](
            q, k, v, log_decay, beta, state, out, scale, K, V, width, normalize_qk, num_warps=warps
        )
    return out
