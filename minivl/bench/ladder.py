"""Every rung of the ladder as two functions of one set of inputs: the naive form and the fast one.

The benchmark times them and the demo checks them; both hold them against the naive form in float64. All forms do the
same work from the same inputs: where a rule wants unit keys, normalising them is part of the form.

    code        shape          range
    q, k        [B, T, H, K]   standard normal
    v           [B, T, H, V]   standard normal
    log_decay   [B, T, H]      logsigmoid(3n + 3): most tokens forget little, some nearly all
    beta        [B, T, H]      uniform over (0, 1)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import delta_rule, gated_delta_rule, linear_attention, sliding_window
from ..ops.delta_rule import unit


@dataclass(frozen=True)
class Inputs:
    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor
    beta: Tensor
    window: int

    @classmethod
    def random(cls, *, B: int = 1, T: int, H: int, K: int, V: int, window: int, seed: int = 0) -> "Inputs":
        """Drawn in float32."""
        source = torch.Generator().manual_seed(seed)
        q, k = torch.randn(2, B, T, H, K, generator=source)
        v = torch.randn(B, T, H, V, generator=source)
        log_decay = F.logsigmoid(3 * torch.randn(B, T, H, generator=source) + 3)
        return cls(q, k, v, log_decay, torch.rand(B, T, H, generator=source), window)

    def double(self) -> "Inputs":
        """The very same numbers in float64."""
        tensors = (x.double() for x in (self.q, self.k, self.v, self.log_decay, self.beta))
        return Inputs(*tensors, self.window)

    @property
    def scale(self) -> float:
        return self.q.shape[-1] ** -0.5


Form = Callable[[Inputs], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Rung:
    """Two forms, each returning (out, state), and the names of the functions that they call."""

    naive: Form
    fast: Form
    naive_name: str = "recurrent"
    fast_name: str = "chunked"


def linear(function) -> Form:
    return lambda x: function(unit(x.q), unit(x.k), x.v, scale=x.scale)


def delta(function) -> Form:
    return lambda x: function(unit(x.q), unit(x.k), x.v, beta=x.beta, scale=x.scale)


def gated(function) -> Form:
    return lambda x: function(x.q, x.k, x.v, log_decay=x.log_decay, beta=x.beta, scale=x.scale, normalize_qk=True)


def window(function) -> Form:
    """Softmax attention needs values as wide as its keys, and it leaves no state: what it remembers are keys."""
    return lambda x: (function(x.q, x.k, x.v[..., : x.k.shape[-1]], window=x.window), None)


LADDER = {
    "linear attention": Rung(linear(linear_attention.recurrent), linear(linear_attention.chunked)),
    "delta rule": Rung(delta(delta_rule.recurrent), delta(delta_rule.chunked)),
    "gated delta rule": Rung(gated(gated_delta_rule.recurrent), gated(gated_delta_rule.chunked)),
    "sliding window": Rung(window(sliding_window.banded), window(sliding_window.blocked), "banded", "blocked"),
}


def relative_error(actual: Tensor | None, oracle: Tensor | None) -> float | None:
    """|actual − oracle| / |oracle|, in float64; None where a form has no such tensor."""
    if actual is None or oracle is None:
        return None
    return ((actual.double() - oracle).norm() / oracle.norm()).item()
