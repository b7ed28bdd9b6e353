"""Four shifted copies, added."""

import torch


def short_conv(x, weight, *, tail=None, lengths=None):
    B, T, D = x.shape
    taps = weight.shape[-1]
    if tail is None:
        tail = torch.zeros(B, taps - 1, D, dtype=x.dtype)
    past = torch.cat([tail, x], 1)
    out = sum(weight[:, 0, i] * past[:, i : i + T] for i in range(taps))
    return out, past[:, past.shape[1] - (taps - 1) :]
