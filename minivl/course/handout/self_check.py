"""Half an hour before the first task: einsum, running sums, a triangular solve, autograd.

    python self_check.py

Fill in the four functions, one line each. If you need longer than half an hour, read PyTorch's pages of the functions
that the hints name before you begin with the assignment; everything in it is made of these four.
"""

import torch
from torch import Tensor


def outer_products(k: Tensor, v: Tensor) -> Tensor:
    """k [B, T, K], v [B, T, V] → Σ_t k_t v_tᵀ, [B, K, V]. Hint: torch.einsum, or a matrix product."""
    raise NotImplementedError("outer_products")


def decays(log_decay: Tensor) -> Tensor:
    """log_decay [T] → the product of exp(log_decay) over all tokens up to and with t, [T]. Hint: cumsum."""
    raise NotImplementedError("decays")


def solved(lower: Tensor, b: Tensor) -> Tensor:
    """x with (I + lower) x = b, lower [C, C] strictly lower triangular. Hint: torch.linalg.solve_triangular."""
    raise NotImplementedError("solved")


def slope(x: float) -> float:
    """The derivative of exp(−softplus(x)) at x, by autograd. Hint: requires_grad=True, backward(), .grad."""
    raise NotImplementedError("slope")


def main() -> None:
    torch.manual_seed(0)
    k, v, gates = torch.randn(2, 5, 3), torch.randn(2, 5, 4), -torch.rand(6)
    lower, b = torch.randn(5, 5).tril(-1), torch.randn(5, 2)
    by_hand = sum(k[:, t, :, None] * v[:, t, None, :] for t in range(5))
    running = torch.stack([gates[: t + 1].exp().prod() for t in range(6)])
    checks = {
        "outer_products": lambda: torch.allclose(outer_products(k, v), by_hand, atol=1e-5),
        "decays": lambda: torch.allclose(decays(gates), running, atol=1e-5),
        "solved": lambda: torch.allclose(solved(lower, b) + lower @ solved(lower, b), b, atol=1e-4),
        "slope": lambda: abs(slope(0.3) - -0.244458) < 1e-4,
    }
    for name, check in checks.items():
        try:
            verdict = "ok" if check() else "not yet: another answer is right"
        except NotImplementedError:
            verdict = "not written"
        print(f"{name:15} {verdict}")


if __name__ == "__main__":
    main()
