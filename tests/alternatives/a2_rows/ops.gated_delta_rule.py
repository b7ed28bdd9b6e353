"""The transition as one matrix a token; decays as products; a chunk's system solved row by row."""

import torch
import torch.nn.functional as F

from .delta_rule import unit


def recurrent(q, k, v, *, log_decay, beta, state=None, scale=1.0, normalize_qk=False):
    if normalize_qk:
        q, k = unit(q), unit(k)
    B, T, H, K = q.shape
    state = torch.zeros(B, H, K, v.shape[-1], dtype=v.dtype) if state is None else state
    alpha, out = log_decay.exp(), []
    for t in range(T):
        key, b = k[:, t], beta[:, t, :, None, None]
        factor = torch.eye(K, dtype=k.dtype) - b * key[..., :, None] * key[..., None, :]
        state = alpha[:, t, :, None, None] * (factor @ state) + b * key[..., :, None] * v[:, t, :, None, :]
        out.append((q[:, t, :, None] @ state)[:, :, 0])
    return scale * torch.stack(out, 1), state


def step(q, k, v, *, log_decay, beta, state, scale=1.0, normalize_qk=False):
    if normalize_qk:
        q, k = unit(q), unit(k)
    key, query = k[:, 0, :, :, None], q[:, 0, :, None]
    state *= log_decay[:, 0, :, None, None].exp()
    missing = v[:, 0, :, None] - key.mT @ state
    state += key @ (beta[:, 0, :, None, None] * missing)
    return scale * (query @ state).transpose(1, 2), state


def chunk_decays(log_decay):
    alpha, C = log_decay.exp(), log_decay.shape[-1]
    row, rows = torch.zeros_like(alpha), []
    for i in range(C):
        row = row * alpha[..., i : i + 1]
        row = torch.cat([row[..., :i], torch.ones_like(row[..., :1]), row[..., i + 1 :]], -1)
        rows.append(row)
    return torch.stack(rows, -2), alpha.cumprod(-1), row


def chunked(q, k, v, *, log_decay, beta, state=None, scale=1.0, normalize_qk=False, chunk=64):
    if normalize_qk:
        q, k = unit(q), unit(k)
    B, T, H, K = q.shape
    state = torch.zeros(B, H, K, v.shape[-1], dtype=v.dtype) if state is None else state
    q, k, v = (F.pad(x.transpose(1, 2), (0, 0, 0, -T % chunk)).unflatten(2, (-1, chunk)) for x in (q, k, v))
    gate, beta = (F.pad(x.transpose(1, 2), (0, -T % chunk)).unflatten(2, (-1, chunk)) for x in (log_decay, beta))
    decay, since, until = chunk_decays(gate)
    lower = beta[..., None] * decay * (k @ k.mT)
    erase, write = (beta * since)[..., None] * k, beta[..., None] * v
    for i in range(1, chunk):
        erase[..., i, :] -= (lower[..., i : i + 1, :i] @ erase[..., :i, :])[..., 0, :]
        write[..., i, :] -= (lower[..., i : i + 1, :i] @ write[..., :i, :])[..., 0, :]
    out, scores = [], decay * (q @ k.mT)
    for n in range(q.shape[2]):
        delta = write[:, :, n] - erase[:, :, n] @ state
        out.append(since[:, :, n, :, None] * (q[:, :, n] @ state) + scores[:, :, n] @ delta)
        state = since[:, :, n, -1:, None] * state + (until[:, :, n, :, None] * k[:, :, n]).mT @ delta
    return scale * torch.cat(out, 2)[:, :, :T].transpose(1, 2), state
