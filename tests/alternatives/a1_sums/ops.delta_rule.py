"""The correction as a matrix on the state; a chunk's system solved row by row, all chunks side by side."""

import torch
import torch.nn.functional as F


def householder(k, beta):
    scaled = k * beta[..., None]
    return torch.diag_embed(torch.ones_like(k)) - scaled[..., :, None] * k[..., None, :]


def recurrent(q, k, v, *, beta, state=None, scale=1.0):
    B, T, H, K = k.shape
    state = torch.zeros(B, H, K, v.shape[-1], dtype=v.dtype) if state is None else state
    out = torch.zeros_like(v)
    for t in range(T):
        written = beta[:, t, :, None, None] * k[:, t, :, :, None] * v[:, t, :, None, :]
        state = householder(k[:, t], beta[:, t]) @ state + written
        out[:, t] = scale * (q[:, t, :, None] @ state)[:, :, 0]
    return out, state


def chunked(q, k, v, *, beta, state=None, scale=1.0, chunk=64):
    B, T, H, K = q.shape
    state = torch.zeros(B, H, K, v.shape[-1], dtype=v.dtype) if state is None else state
    q, k, v = (F.pad(x.transpose(1, 2), (0, 0, 0, -T % chunk)).unflatten(2, (-1, chunk)) for x in (q, k, v))
    beta = F.pad(beta.transpose(1, 2), (0, -T % chunk)).unflatten(2, (-1, chunk))[..., None]
    alike = k @ k.mT
    erase, write = beta * k, beta * v  # row i of each still holds what rows before it must take away
    for i in range(1, chunk):
        found = beta[..., i, :, None] * alike[..., i : i + 1, :i]
        erase[..., i, :] -= (found @ erase[..., :i, :])[..., 0, :]
        write[..., i, :] -= (found @ write[..., :i, :])[..., 0, :]
    out = []
    for n in range(q.shape[2]):
        delta = write[:, :, n] - erase[:, :, n] @ state
        out.append(q[:, :, n] @ state + (q[:, :, n] @ k[:, :, n].mT).tril() @ delta)
        state = state + k[:, :, n].mT @ delta
    out = torch.cat(out, 2)[:, :, :T] if out else v.flatten(2, 3)
    return scale * out.transpose(1, 2), state
