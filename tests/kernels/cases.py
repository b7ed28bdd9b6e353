"""Inputs for the kernels in regimes that are hard in different ways, and the float64 recurrence they are held to."""

import torch
import torch.nn.functional as F
from torch import Tensor

from minivl.ops.gated_delta_rule import recurrent

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REGIMES = ("wide", "alpha_one", "strong", "resets", "static", "frozen", "correlated", "zero_keys", "shut", "layer")


def inputs(regime: str, *, B=1, T=37, H=2, K=16, V=16, dtype=torch.float32, seed=0) -> dict[str, Tensor]:
    """q, k [B, T, H, K] of length 1, v, gates in float32, and a random starting state."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    q, k, v = F.normalize(normal(B, T, H, K), dim=-1), normal(B, T, H, K), normal(B, T, H, V)
    log_decay, beta = F.logsigmoid(3 * normal(B, T, H) + 3), uniform(B, T, H)
    if regime == "alpha_one":
        log_decay = torch.zeros_like(log_decay)
    elif regime == "strong":  # runs of strong decay, weak ones between: large sums beside small differences
        in_a_run = (torch.arange(T) % 64 < 40)[None, :, None]
        log_decay = torch.where(in_a_run, -10 - 10 * uniform(B, T, H), -1e-3 * uniform(B, T, H))
    elif regime == "resets":
        log_decay = torch.where(uniform(B, T, H) < 0.2, -torch.inf, log_decay)
    elif regime in ("static", "frozen"):
        k = k[:, :1].expand_as(k)
        near = 0.0 if regime == "frozen" else 1e-3
        log_decay, beta = -near * uniform(B, T, H), 1 - near * uniform(B, T, H)
    elif regime == "correlated":
        k = 0.1 * F.normalize(k, dim=-1) + F.normalize(k[:, :1], dim=-1)
    elif regime == "zero_keys":
        k = k * (uniform(B, T, H, 1) < 0.7)
    elif regime == "shut":  # tokens that write nothing, and tokens that write next to nothing
        beta = beta * (uniform(B, T, H) < 0.6) * torch.where(uniform(B, T, H) < 0.5, 1.0, 1e-3)
    elif regime == "layer":
        log_decay, beta = -0.001 - 0.02 * uniform(B, T, H), 0.5 + 0.1 * normal(B, T, H).clamp(-3, 3)
    k = F.normalize(k, dim=-1)
    case = {"q": q, "k": k, "v": v, "log_decay": log_decay, "beta": beta, "state": normal(B, H, K, V)}
    return {name: x.to(DEVICE, dtype if name in "qkv" else torch.float32) for name, x in case.items()}


def oracle(case: dict[str, Tensor], **options) -> tuple[Tensor, Tensor]:
    """(out, state) of the recurrence in float64, from the very numbers that the kernels get."""
    return recurrent(**{name: x.double() for name, x in case.items()}, **options)


def gradients(run, case: dict[str, Tensor], seeds: tuple[Tensor, Tensor], dtype=None, **options) -> list[Tensor]:
    """Of <out, seed> + <state, seed> by autograd, for every input, in the order of `inputs`."""
    leaves = {name: x.to(dtype or x.dtype).detach().requires_grad_() for name, x in case.items()}
    found = run(**leaves, **options)
    return torch.autograd.grad(found, list(leaves.values()), [s.to(f.dtype) for s, f in zip(seeds, found, strict=True)])


def seeds_like(case: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(case[name].shape, generator=generator).to(DEVICE, case[name].dtype) for name in ("v", "state")
    )


def error(found: Tensor, exact: Tensor) -> float:
    """‖found − exact‖ / ‖exact‖, or the plain distance where the exact answer is next to nothing; NaN stays NaN."""
    return ((found.double() - exact).norm() / exact.norm().clamp(min=1e-3)).item() if exact.numel() else 0.0
