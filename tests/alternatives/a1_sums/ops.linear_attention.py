"""Without a loop: running sums over all tokens, and over all chunks."""

import torch
import torch.nn.functional as F


def recurrent(q, k, v, *, state=None, scale=1.0):
    written = (k[..., :, None] * v[..., None, :]).cumsum(1)
    if state is not None:
        written = written + state[:, None]
    last = written[:, -1] if q.shape[1] else state
    return scale * (q[..., None, :] @ written).squeeze(-2), last


def parallel(q, k, v, *, scale=1.0):
    weights = scale * q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
    keep = torch.ones(weights.shape[-2:], dtype=torch.bool, device=q.device).tril()
    out = torch.where(keep, weights, 0) @ v.transpose(1, 2)
    return out.transpose(1, 2), k.permute(0, 2, 3, 1) @ v.transpose(1, 2)


def _cut(x, chunk):
    x = F.pad(x.transpose(1, 2), (0, 0, 0, -x.shape[1] % chunk))
    return x.unflatten(2, (-1, chunk))


def chunked(q, k, v, *, state=None, scale=1.0, chunk=64):
    if q.shape[1] == 0:
        return torch.zeros_like(v), state
    queries, keys, values = (_cut(x, chunk) for x in (q, k, v))
    added = (keys.mT @ values).cumsum(2)
    before = F.pad(added[:, :, :-1], (0, 0, 0, 0, 1, 0))
    if state is not None:
        before, added = before + state[:, :, None], added + state[:, :, None]
    out = queries @ before + (queries @ keys.mT).tril() @ values
    return scale * out.flatten(2, 3)[:, :, : q.shape[1]].transpose(1, 2), added[:, :, -1]
