"""The delta rule: linear attention that corrects what it stored instead of piling more on top.

Linear attention adds v_t to whatever the state already answers for k_t; write a key twice and it answers with the
sum. The delta rule first reads that answer, S_{t−1}ᵀ k_t, and writes only what is missing from it. β_t says how much
of the correction is made: 1 replaces the old value, 0 leaves it alone.

    delta_t = β_t (v_t − S_{t−1}ᵀ k_t)        S_t = S_{t−1} + k_t delta_tᵀ        out_t = scale · S_tᵀ q_t

Put together, S_t = (I − β_t k_t k_tᵀ) S_{t−1} + β_t k_t v_tᵀ. The matrix in front is a generalised Householder
factor: with a unit key its eigenvalue along k is 1 − β (erase, for β = 1), and 1 in every other direction. A chunk of
C tokens multiplies C such factors, and the WY form writes their product as I − Kᵀ W with one C×C triangular matrix
(`mix`): that is what lets a chunk be processed with matrix products (`chunked`). docs/wy.md derives it step by step.

    code      symbol   shape          dtype                  range
    q, k      q, k     [B, T, H, K]   any float              keys of length 1, or the factors amplify; see `unit`
    v         v        [B, T, H, V]   q's                    any
    beta      β        [B, T, H]      q's or float32         [0, 1]
    state     S        [B, H, K, V]   float32 or float64     any
    delta     u        [.., C, V]     state's                what each token really writes
    gram               [.., C, C]     state's                tril(β_i k_i·k_j, −1): what token i finds of token j
    mix       T        [.., C, C]     state's                (I + gram)⁻¹ diag(β)
    out                [B, T, H, V]   q's
"""

import torch
from torch import Tensor

from . import checks
from .chunks import chunk_length, from_chunks, stack_time, to_chunks


def unit(x: Tensor) -> Tensor:
    """x / sqrt(Σ x² + 1e-6) over the last axis, in at least float32: the model's own normalisation of q and k."""
    wide = x.to(checks.state_dtype(x.dtype))
    return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + 1e-6)).to(x.dtype)


def householder(k: Tensor, beta: Tensor) -> Tensor:
    """I − β k kᵀ: k [..., K], beta [...] → [..., K, K]."""
    checks.tensor("k", k, None)
    checks.tensor("beta", beta, tuple(k.shape[:-1]), k.dtype, torch.float32)
    checks.same_device(k=k, beta=beta)
    identity = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    return identity - beta.to(k.dtype)[..., None, None] * k[..., :, None] * k[..., None, :]


def householder_product(k: Tensor, beta: Tensor) -> Tensor:
    """(I − β_T k_T k_Tᵀ) … (I − β_1 k_1 k_1ᵀ): k [..., T, K], beta [..., T] → [..., K, K], one factor at a time."""
    factors = householder(k, beta).unbind(-3)
    product = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device).expand(*k.shape[:-2], -1, -1)
    for factor in factors:
        product = factor @ product  # a later token acts on what earlier ones left, so it stands further left
    return product


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, *, beta: Tensor, state: Tensor | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """S_t = S_{t−1} + k_t (β_t (v_t − S_{t−1}ᵀ k_t))ᵀ;  out_t = scale · S_tᵀ q_t.  One token after the other."""
    state = checks.recurrence(q, k, v, state=state, beta=beta)
    like = v
    q, k, v, beta = (x.to(state.dtype) for x in (q, k, v, beta))
    out = []
    for t in range(q.shape[1]):
        found = torch.einsum("BHKV,BHK->BHV", state, k[:, t])
        delta = beta[:, t, :, None] * (v[:, t] - found)
        state = state + torch.einsum("BHK,BHV->BHKV", k[:, t], delta)
        out.append(scale * torch.einsum("BHKV,BHK->BHV", state, q[:, t]))
    return stack_time(out, like), state


def ut_transform(k: Tensor, beta: Tensor) -> Tensor:
    """mix = (I + gram)⁻¹ diag(β), gram = tril(β_i k_i·k_j, −1): k [..., C, K], beta [..., C] → [..., C, C].

    The deltas of a chunk depend on each other: token i reads what tokens j < i of the same chunk have just written,
    (I + gram) delta = β (v − K S). The system is triangular with a unit diagonal, so it is always solvable, exactly.
    """
    gram = (beta[..., :, None] * (k @ k.mT)).tril(-1)
    return torch.linalg.solve_triangular(gram, torch.diag_embed(beta), upper=False, unitriangular=True)


def wy(k: Tensor, v: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """The WY form of a chunk: (erased, written) = (mix K, mix V), [..., C, K] and [..., C, V].

    With them  product of Householder factors = I − Kᵀ erased   and   S_C = (I − Kᵀ erased) S_0 + Kᵀ written.
    """
    mix = ut_transform(k, beta)
    return mix @ k, mix @ v


def chunked(
    q: Tensor, k: Tensor, v: Tensor, *, beta: Tensor, state: Tensor | None = None, scale: float = 1.0, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Per chunk:  delta = mix (V − K S);  out = scale · (Q S + tril(Q Kᵀ) delta);  then S ← S + Kᵀ delta."""
    state = checks.recurrence(q, k, v, state=state, beta=beta)
    C, like = chunk_length(chunk, q.shape[1]), v
    q, k, v, beta = (to_chunks(x.to(state.dtype), C) for x in (q, k, v, beta))
    q, k = q.contiguous(), k.contiguous()  # or each product with them would copy them

    mix = ut_transform(k, beta)
    scores = (q @ k.mT).tril()
    out = []
    for n in range(len(q)):
        delta = mix[n] @ (v[n] - k[n] @ state)
        out.append(scale * (q[n] @ state + scores[n] @ delta))
        state = state + k[n].mT @ delta
    return from_chunks(out, like), state
