"""Token by token, and softmax by its definition."""

import torch


def layer_distance(student, teacher, mask=None):
    total = torch.zeros((), dtype=student.dtype)
    for b in range(student.shape[0]):
        for t in range(student.shape[1]):
            if mask is None or mask[b, t]:
                difference = student[b, t] - teacher[b, t]
                total = total + difference @ difference / difference.numel()
    return total


def divergence(student, teacher, *, temperature=1.0):
    s, t = student / temperature, teacher / temperature
    p = (t - t.logsumexp(-1, keepdim=True)).exp()
    gap = (t - s) - (t.logsumexp(-1, keepdim=True) - s.logsumexp(-1, keepdim=True))
    return temperature * temperature * torch.einsum("...w,...w->", p, gap)
