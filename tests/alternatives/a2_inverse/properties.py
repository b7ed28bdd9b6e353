"""The recurrence as oracle, in two regimes of gates."""

import torch
import torch.nn.functional as F

from minivl.ops.gated_delta_rule import recurrent


def close(a, b):
    return (a - b).abs().max() < 1e-8


def check(chunked):
    for seed, shift in ((1, 0), (2, 4)):
        generator = torch.Generator().manual_seed(seed)
        q, k, v = (torch.randn(2, 21, 3, 4, generator=generator, dtype=torch.float64) for _ in range(3))
        k = F.normalize(k, dim=-1)
        a, b = (torch.randn(2, 21, 3, generator=generator, dtype=torch.float64) for _ in range(2))
        state = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
        given = {"log_decay": F.logsigmoid(a + shift), "beta": b.sigmoid(), "state": state}
        out, end = chunked(q, k, v, **given, chunk=4)
        right, last = recurrent(q, k, v, **given)
        assert close(out, right)
        assert close(end, last)
