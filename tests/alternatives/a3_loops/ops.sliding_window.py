"""Query by query, key head by key head; ring slots one token at a time."""

import torch


def visible(query, key, window):
    ages = query[..., :, None] - key[..., None, :]
    return (ages == ages.clamp(0, window - 1)) & (key[..., None, :] != -1)


def _answer(q, k, v, seen, scale):
    """q [Hq, K], k and v [keys, Hkv, K], seen [keys]."""
    group = q.shape[0] // k.shape[1]
    k, v = k[seen], v[seen]
    out = []
    for h in range(q.shape[0]):
        weights = torch.softmax(scale * (k[:, h // group] @ q[h]), 0)
        out.append(weights @ v[:, h // group])
    return torch.stack(out)


def banded(q, k, v, *, window, scale=None):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for i in range(q.shape[1]):
            seen = torch.zeros(q.shape[1], dtype=torch.bool)
            seen[max(0, i - window + 1) : i + 1] = True
            out[b, i] = _answer(q[b, i], k[b], v[b], seen, scale)
    return out


class Ring:
    @property
    def longest_write(self):
        slots = self.keys.shape[1]
        return max(length for length in range(1, slots + 1) if slots - length >= self.window - 1)

    def write(self, k, v, lengths=None, *, for_gradient=False):
        slots, numbers = self.keys.shape[1], []
        for t in range(k.shape[1]):
            for b in range(k.shape[0]):
                slot = int(self.seen[b]) % slots
                self.keys[b, slot], self.values[b, slot] = k[b, t], v[b, t]
                self.positions[b, slot] = self.seen[b]
            numbers.append(self.seen.clone())
            self.seen += 1
        return torch.stack(numbers, 1), self.keys, self.values


def ring(q, k, v, *, memory, scale=None, lengths=None):
    if k.shape[1] > memory.longest_write:
        raise ValueError(f"{k.shape[1]} tokens are more than {memory.longest_write}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    numbers, keys, values = memory.write(k, v)
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for i in range(q.shape[1]):
            age = numbers[b, i] - memory.positions[b]
            seen = (memory.positions[b] >= 0) & (age >= 0) & (age < memory.window)
            out[b, i] = _answer(q[b, i], keys[b], values[b], seen, scale)
    return out
