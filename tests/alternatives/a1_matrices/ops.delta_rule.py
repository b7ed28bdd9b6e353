"""The recurrence on the state's transpose; a chunk by the plain inverse of one matrix."""

import torch

from . import checks


def householder(k, beta):
    return torch.eye(k.shape[-1], dtype=k.dtype) - torch.einsum("...,...i,...j->...ij", beta, k, k)


def recurrent(q, k, v, *, beta, state=None, scale=1.0):
    columns = checks.recurrence(q, k, v, state=state, beta=beta).mT
    out = v.new_empty(v.shape)
    for t in range(q.shape[1]):
        key = k[:, t, :, :, None]
        missing = v[:, t, :, :, None] - columns @ key
        columns = columns + beta[:, t, :, None, None] * missing @ key.mT
        out[:, t] = (columns @ q[:, t, :, :, None])[..., 0]
    return scale * out, columns.mT


def chunked(q, k, v, *, beta, state=None, scale=1.0, chunk=64):
    state = checks.recurrence(q, k, v, state=state, beta=beta)
    out = [v[:, :0]]
    for start in range(0, q.shape[1], chunk):
        piece = slice(start, start + chunk)
        Q, K, V, b = (x[:, piece].transpose(1, 2) for x in (q, k, v, beta))
        lower = torch.eye(K.shape[2], dtype=K.dtype) + b[..., None] * (K @ K.mT).tril(-1)
        delta = torch.linalg.inv(lower) @ (b[..., None] * (V - K @ state))
        out.append(scale * (Q @ state + (Q @ K.mT).tril() @ delta).transpose(1, 2))
        state = state + K.mT @ delta
    return torch.cat(out, 1), state
