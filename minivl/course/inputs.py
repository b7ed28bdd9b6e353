"""What checks draw: the inputs of a recurrence, from a seed, each hard in one way. tests/regimes.py says why.

decay   "wide" log α = logsigmoid(3n + 3);  "one" α = 1;  "strong" down to −20 a token beside weak ones;
        "always" between −10 and −20 at every token
beta    "wide" over (0, 1);  "one" β = 1
keys    "unit" of length 1;  "same" one for all tokens;  "long" of length √2;  "axes" orthogonal, one after the other
"""

import torch
import torch.nn.functional as F
from torch import Tensor


class Draw:
    """Random numbers of one seed, in float64."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.generator, dtype=torch.float64)

    def uniform(self, *size: int) -> Tensor:
        return torch.rand(*size, generator=self.generator, dtype=torch.float64)

    def unit(self, *size: int) -> Tensor:
        return F.normalize(self.normal(*size), dim=-1)

    def below(self, end: int) -> int:
        """A whole number from 0 to end − 1."""
        return int(torch.randint(end, (), generator=self.generator))


def recurrence(
    seed: int,
    T: int,
    *,
    B: int = 2,
    H: int = 2,
    K: int = 4,
    V: int = 4,
    state: bool = True,
    beta: str | None = None,
    decay: str | None = None,
    keys: str = "unit",
) -> dict[str, Tensor]:
    """q, k, v, and as asked for state, beta and log_decay."""
    draw = Draw(seed)
    drawn = {"q": draw.unit(B, T, H, K), "k": draw.unit(B, T, H, K), "v": draw.normal(B, T, H, V)}
    start, of_write, of_time = draw.normal(B, H, K, V), draw.uniform(B, T, H), draw.normal(B, T, H)
    if keys == "same":
        drawn["k"] = draw.unit(B, 1, H, K).repeat(1, T, 1, 1)
    elif keys == "long":
        drawn["k"] = 2**0.5 * drawn["k"]
    elif keys == "axes":
        drawn["k"] = torch.eye(K, dtype=torch.float64)[torch.arange(T) % K][None, :, None].repeat(B, 1, H, 1)
    if state:
        drawn["state"] = start
    if beta:
        drawn["beta"] = torch.ones(B, T, H, dtype=torch.float64) if beta == "one" else of_write
    if decay == "one":
        drawn["log_decay"] = torch.zeros(B, T, H, dtype=torch.float64)
    elif decay == "strong":
        strong = (draw.uniform(B, T, H) < 0.5) & (torch.arange(T) > 0)[:, None]
        drawn["log_decay"] = torch.where(strong, -1 - 19 * of_write, -0.05 * of_write)
    elif decay == "always":
        drawn["log_decay"] = -10 - 10 * of_write
    elif decay:
        drawn["log_decay"] = F.logsigmoid(3 * of_time + 3)
    return drawn
