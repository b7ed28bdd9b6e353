"""Windows of four by unfold, one einsum."""

import torch


def short_conv(x, weight, *, tail=None, lengths=None):
    keep = weight.shape[-1] - 1
    tail = x.new_zeros(len(x), keep, x.shape[-1]) if tail is None else tail
    past = torch.cat((tail, x), dim=1)
    out = torch.einsum("btdi,di->btd", past.unfold(1, keep + 1, 1), weight[:, 0])
    return out, past[:, -keep:].clone()
