"""Linear attention: softmax attention with the softmax taken out, and what that buys.

Without the softmax, out_t = Σ_{j≤t} (q_t·k_j) v_j is a product of matrices, and a product may be bracketed in two
ways. (Q Kᵀ) V compares all pairs of tokens, which costs T² (`parallel`). Q (Kᵀ V) first sums the outer products
k_j v_jᵀ into one K×V matrix, the state, which costs T and remembers any past in constant memory (`recurrent`).
`chunked` uses the first bracketing inside short chunks and the second between them: linear cost, and matrix products.

    S_t = S_{t−1} + k_t v_tᵀ        out_t = scale · S_tᵀ q_t

    code      symbol   shape          dtype                  range
    q, k      q, k     [B, T, H, K]   any float              any; q is read with, k is written under
    v         v        [B, T, H, V]   q's                    any
    state     S        [B, H, K, V]   float32 or float64     any; grows with T, since nothing is ever forgotten
    out                [B, T, H, V]   q's
"""

import torch
from torch import Tensor

from . import checks
from .chunks import chunk_length, from_chunks, stack_time, to_chunks


def recurrent(
    q: Tensor, k: Tensor, v: Tensor, *, state: Tensor | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """S_t = S_{t−1} + k_t v_tᵀ;  out_t = scale · S_tᵀ q_t.  One token after the other."""
    state = checks.recurrence(q, k, v, state=state)
    like = v
    q, k, v = (x.to(state.dtype) for x in (q, k, v))
    out = []
    for t in range(q.shape[1]):
        state = state + torch.einsum("BHK,BHV->BHKV", k[:, t], v[:, t])
        out.append(scale * torch.einsum("BHKV,BHK->BHV", state, q[:, t]))
    return stack_time(out, like), state


def parallel(q: Tensor, k: Tensor, v: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """out = tril(scale · Q Kᵀ) V, all tokens at once; the state that it leaves is Kᵀ V."""
    state = checks.recurrence(q, k, v)
    like = v
    q, k, v = (x.to(state.dtype) for x in (q, k, v))
    scores = (scale * torch.einsum("BiHK,BjHK->BHij", q, k)).tril()
    out = torch.einsum("BHij,BjHV->BiHV", scores, v)
    return out.to(like.dtype), torch.einsum("BTHK,BTHV->BHKV", k, v)


def chunked(
    q: Tensor, k: Tensor, v: Tensor, *, state: Tensor | None = None, scale: float = 1.0, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Per chunk:  out = scale · (Q S + tril(Q Kᵀ) V);  then S ← S + Kᵀ V."""
    state = checks.recurrence(q, k, v, state=state)
    C, like = chunk_length(chunk, q.shape[1]), v
    q, k, v = (to_chunks(x.to(state.dtype), C) for x in (q, k, v))
    q, k = q.contiguous(), k.contiguous()  # or each product with them would copy them

    scores = (q @ k.mT).tril()
    out = []
    for n in range(len(q)):
        out.append(scale * (q[n] @ state + scores[n] @ v[n]))
        state = state + k[n].mT @ v[n]
    return from_chunks(out, like), state
