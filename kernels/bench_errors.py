"""How far ours and the peers are from the float64 recurrence: output, state and all gradients, regime by regime.

The regimes are those of the tests that a layer meets, or that break kernels, at the model's widths and 1,000 tokens:

    wide                     random keys, β over (0, 1), log α = logsigmoid(3n + 3)
    strong decay             every other token, more or less, forgets between −1 and −20, the rest hardly at all
    correlated               any two keys have a cosine of about 0.9
    static                   one key for all tokens, β = 0.999, α = 0.9999: a video that stands still
    layer at initialisation  the gates and the mostly positive keys of a fresh layer: α = 0.999, β = 0.5
    layer after training     the same with its parameters spread: heads that forget at once, heads that hardly do
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minivl.ops.gated_delta_rule import recurrent

from .bench_peers import SCALE, Library
from .bench_report import B, H, K, V

DEVICE = "cuda"
LENGTH = 1000


class Draw:
    """Random numbers of one seed."""

    def __init__(self, seed: int):
        self.options = {"device": DEVICE, "generator": torch.Generator(DEVICE).manual_seed(seed)}

    def normal(self, *size: int) -> Tensor:
        return torch.randn(*size, **self.options)

    def uniform(self, *size: int) -> Tensor:
        return torch.rand(*size, **self.options)


def wide(draw: Draw, batch: int, T: int) -> dict[str, Tensor]:
    case = {name: draw.normal(batch, T, H, width).bfloat16() for name, width in (("q", K), ("k", K), ("v", V))}
    case["log_decay"] = F.logsigmoid(3 * draw.normal(batch, T, H) + 3)
    case["beta"] = draw.normal(batch, T, H).sigmoid()
    return case | {"state": draw.normal(batch, H, K, V)}


def strong_decay(draw: Draw, batch: int, T: int) -> dict[str, Tensor]:
    case, gate = wide(draw, batch, T), (batch, T, H)
    strong = draw.uniform(*gate) < 0.5
    return case | {"log_decay": torch.where(strong, -1 - 19 * draw.uniform(*gate), -0.05 * draw.uniform(*gate))}


def correlated(draw: Draw, batch: int, T: int) -> dict[str, Tensor]:
    case = wide(draw, batch, T)
    shared, own = (F.normalize(draw.normal(batch, length, H, K), dim=-1) for length in (1, T))
    return case | {"k": (0.9**0.5 * shared + 0.1**0.5 * own).bfloat16()}


def static(draw: Draw, batch: int, T: int) -> dict[str, Tensor]:
    case = wide(draw, batch, T)
    case["log_decay"].fill_(-1e-4)
    case["beta"].fill_(0.999)
    return case | {"k": case["k"][:, :1].expand_as(case["k"]).contiguous()}


def layer_at_initialisation(draw: Draw, batch: int, T: int) -> dict[str, Tensor]:
    case = wide(draw, batch, T)
    case["log_decay"].fill_(-0.001)
    case["beta"].fill_(0.5)
    return case | {name: F.silu(case[name]) for name in "qk"}


def layer_after_training(draw: Draw, batch: int, T: int) -> dict[str, Tensor]:
    case = layer_at_initialisation(draw, batch, T)
    rate, time_step = 16 * draw.uniform(H), 0.001 * 100 ** draw.uniform(H)
    case["log_decay"] = -rate * F.softplus(draw.normal(batch, T, H) + time_step.expm1().log())
    return case | {"beta": torch.sigmoid(2 * draw.normal(batch, T, H))}


REGIMES: dict[str, Callable[[Draw, int, int], dict[str, Tensor]]] = {
    regime.__name__.replace("_", " "): regime
    for regime in (wide, strong_decay, correlated, static, layer_at_initialisation, layer_after_training)
}


@dataclass(frozen=True)
class Exact:
    """A case, what the float64 recurrence makes of it, the seeds of a backward pass and the exact gradients."""

    case: dict[str, Tensor]
    results: tuple[Tensor, Tensor]
    seeds: tuple[Tensor, Tensor]
    gradients: tuple[Tensor, ...]


def exact(regime: Callable) -> Exact:
    draw = Draw(0)
    case = regime(draw, B, LENGTH)
    leaves = {name: x.double().requires_grad_() for name, x in case.items()}
    results = recurrent(**leaves, scale=SCALE, normalize_qk=True)
    seeds = tuple(draw.normal(*x.shape).to(x.dtype) for x in (case["v"], case["state"]))
    gradients = torch.autograd.grad(results, list(leaves.values()), [x.double() for x in seeds])
    return Exact(case, tuple(x.detach() for x in results), seeds, gradients)


def relative(found: Tensor, exact: Tensor) -> float:
    return ((found.double() - exact).norm() / exact.norm()).item()


def in_regime(library: Library, wanted: Exact) -> dict[str, float | None]:
    """{out, state, d_q, …: relative error}; None where the library refuses, or where it is not what is asked about."""
    names = ("out", "state", *(f"d_{name}" for name in wanted.case))
    leaves = {name: x.detach().requires_grad_() for name, x in wanted.case.items()}
    results, refused = library.attempt(lambda: library.join(*library.rule(**library.fit(leaves))))
    if refused:
        return dict.fromkeys(names)
    gradients, _ = library.attempt(lambda: torch.autograd.grad(results, list(leaves.values()), wanted.seeds))
    found = [None] * 2 if library.backward_only else list(results)
    found += gradients or [None] * len(leaves)
    pairs = zip(names, found, (*wanted.results, *wanted.gradients), strict=True)
    return {name: None if x is None else relative(x, y) for name, x, y in pairs}


def errors(found: dict[str, Library]) -> dict[str, dict[str, float | None]]:
    """{library: {"wide out": error, …}}, and of the step after one token."""
    table = {name: {} for name in found}
    for title, regime in REGIMES.items():
        wanted = exact(regime)
        for name, library in found.items():
            table[name] |= {f"{title} {key}": value for key, value in in_regime(library, wanted).items()}
    case = wide(Draw(0), 2, 1)
    out, _ = recurrent(**{name: x.double() for name, x in case.items()}, scale=SCALE, normalize_qk=True)
    for name, library in found.items():
        own = {key: x.clone() for key, x in case.items()}  # our step writes the state in place
        with torch.no_grad():
            step, _ = library.attempt(lambda: library.step(**own)) if library.step else (None, None)  # noqa: B023
        table[name]["step out"] = None if step is None else relative(step[0], out)
    return table
