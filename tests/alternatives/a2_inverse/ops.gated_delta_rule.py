"""Decays put into the vectors by differences of running sums, and the plain inverse of one matrix."""

import torch

from . import checks
from .delta_rule import unit


def recurrent(q, k, v, *, log_decay, beta, state=None, scale=1.0, normalize_qk=False):
    columns = checks.recurrence(q, k, v, state=state, log_decay=log_decay, beta=beta).mT
    q, k = (unit(q), unit(k)) if normalize_qk else (q, k)
    out = torch.zeros_like(v)
    for t in range(q.shape[1]):
        columns = torch.exp(log_decay)[:, t, :, None, None] * columns
        key = k[:, t, :, :, None]
        columns = columns + beta[:, t, :, None, None] * (v[:, t, :, :, None] - columns @ key) @ key.mT
        out[:, t] = scale * (columns @ q[:, t, :, :, None])[..., 0]
    return out, columns.mT


def step(q, k, v, *, log_decay, beta, state, scale=1.0, normalize_qk=False):
    gates = {"log_decay": log_decay, "beta": beta}
    out, after = recurrent(q, k, v, **gates, state=state.clone(), scale=scale, normalize_qk=normalize_qk)
    state[...] = after
    return out, state


def chunk_decays(log_decay):
    total = log_decay.cumsum(-1)
    between = total[..., :, None] - total[..., None, :]
    future = torch.ones(between.shape[-2:], dtype=torch.bool).triu(1)
    return between.masked_fill(future, -torch.inf).exp(), total.exp(), (total[..., -1:] - total).exp()


def chunked(q, k, v, *, log_decay, beta, state=None, scale=1.0, normalize_qk=False, chunk=64):
    state = checks.recurrence(q, k, v, state=state, log_decay=log_decay, beta=beta)
    q, k = (unit(q), unit(k)) if normalize_qk else (q, k)
    out = [v[:, :0]]
    for start in range(0, q.shape[1], chunk):
        piece = slice(start, start + chunk)
        Q, K, V, gate, b = (x[:, piece].transpose(1, 2) for x in (q, k, v, log_decay, beta))
        decay, since, until = chunk_decays(gate)
        lower = (b[..., None] * decay * (K @ K.mT)).tril(-1) + torch.eye(K.shape[2], dtype=K.dtype)
        delta = torch.linalg.inv(lower) @ (b[..., None] * (V - since[..., None] * (K @ state)))
        out.append(scale * (since[..., None] * (Q @ state) + (decay * (Q @ K.mT)) @ delta).transpose(1, 2))
        state = gate.sum(-1)[..., None, None].exp() * state + (K * until[..., None]).mT @ delta
    return torch.cat(out, 1), state
