"""Properties of a chunked form: each holds for every right one, and fails for wrong ones."""

import torch
import torch.nn.functional as F

from minivl.ops import gated_delta_rule


def check(chunked):
    """Raise AssertionError if `chunked` is wrong, whatever is wrong with it; do nothing if it is right.

    It is called like gated_delta_rule.chunked: chunked(q, k, v, log_decay=…, beta=…, state=…, scale=…, chunk=…). What
    it should give, gated_delta_rule.recurrent gives, which is right. Right versions differ from it by rounding: 1e-9
    of the size in float64 is right, 1e-3 is not.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    for T in (5, 16, 29):
        q, k = (F.normalize(normal(2, T, 2, 4), dim=-1) for _ in range(2))
        v, state = normal(2, T, 2, 4), normal(2, 2, 4, 4)
        log_decay, beta = F.logsigmoid(3 * normal(2, T, 2) + 3), normal(2, T, 2).sigmoid()
        given = {"log_decay": log_decay, "beta": beta, "state": state, "scale": 0.5}
        for found, right in zip(
            chunked(q, k, v, **given, chunk=8), gated_delta_rule.recurrent(q, k, v, **given), strict=True
        ):
            assert (found - right).norm() <= 1e-9 * right.norm()
