"""Without the recurrence: cutting anywhere, and what the rule does by its own words to a key that comes again."""

import torch
import torch.nn.functional as F


def check(chunked):
    torch.manual_seed(3)
    T, options = 27, {"dtype": torch.float64}
    q, k = (F.normalize(torch.randn(1, T, 1, 5, **options), dim=-1) for _ in range(2))
    v, state = torch.randn(1, T, 1, 3, **options), torch.randn(1, 1, 5, 3, **options)
    gates = {"log_decay": -torch.rand(1, T, 1, **options), "beta": torch.rand(1, T, 1, **options)}
    out, end = chunked(q, k, v, state=state, **gates, chunk=8)
    memory, told = state.clone(), []
    for t in range(T):
        memory = memory * gates["log_decay"][:, t].exp()[..., None, None]
        answer = (k[:, t, :, None] @ memory)[:, :, 0]
        memory = memory + k[:, t, :, :, None] * (gates["beta"][:, t, :, None] * (v[:, t] - answer))[:, :, None]
        told.append((q[:, t, :, None] @ memory)[:, :, 0])
    assert torch.allclose(out, torch.stack(told, 1), rtol=1e-7, atol=1e-9)
    assert torch.allclose(end, memory, rtol=1e-7, atol=1e-9)
