"""PyTorch's own attention; ring slots by index assignment, read back in the order of time."""

import torch
import torch.nn.functional as F


def visible(query, key, window):
    i, j = query.unsqueeze(-1), key.unsqueeze(-2)
    return (j <= i) & (j > i - window) & (j >= 0)


def banded(q, k, v, *, window, scale=None):
    T = q.shape[1]
    mask = torch.ones(T, T, dtype=torch.bool).tril().triu(1 - window)
    heads = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale, enable_gqa=True).transpose(1, 2)


class Ring:
    @property
    def longest_write(self):
        return self.positions.shape[1] - (self.window - 1)

    def write(self, k, v, lengths=None, *, for_gradient=False):
        B, T = k.shape[:2]
        numbers = torch.stack([self.seen + t for t in range(T)], 1)
        slots = numbers.remainder(self.positions.shape[1])
        rows = torch.arange(B)[:, None]
        self.keys[rows, slots], self.values[rows, slots], self.positions[rows, slots] = k, v, numbers
        self.seen.add_(T)
        return numbers, self.keys, self.values


def ring(q, k, v, *, memory, scale=None, lengths=None):
    if q.shape[1] > memory.longest_write:
        raise ValueError("too long")
    numbers, keys, values = memory.write(k, v)
    order = memory.positions.argsort(1)
    positions = memory.positions.gather(1, order)
    pick = order[:, :, None, None].expand_as(keys)
    keys, values = keys.gather(1, pick), values.gather(1, pick)
    mask = visible(numbers, positions, memory.window)[:, None]
    heads = (x.transpose(1, 2) for x in (q, keys, values))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale, enable_gqa=True).transpose(1, 2)
