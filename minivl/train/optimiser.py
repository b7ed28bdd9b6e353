"""AdamW as the paper sets it, the rate's rise and fall, and the gradient's longest step.

Decay pulls matrices towards zero; a norm's weights, biases, short filters and decay rates are left alone. The rate is a
function of the step's number and of nothing else, so that a run that goes on needs to know only where it is.

    rate(s) = peak · (s + 1) / warm                              s < warm, the first steps
            = peak · ½ (1 + cos(π (s − warm) / (steps − warm)))  then; s counts from 0
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

BETAS = (0.9, 0.999)


def warm_steps(steps: int, share: float) -> int:
    """How many of the steps warm up: this share, rounded up, but never all of them."""
    return min(math.ceil(steps * share), steps - 1)


def rate(step: int, *, steps: int, warm: int, peak: float) -> float:
    """The learning rate of step number `step`, from 0."""
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def adamw(learning: Mapping[str, nn.Parameter], *, weight_decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW over these parameters, with decay on matrices. `rate` sets the rate before every step."""
    matrices = [x for x in learning.values() if x.ndim == 2]
    others = [x for x in learning.values() if x.ndim != 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    fused = all(x.is_cuda and not isinstance(x, DTensor) for x in learning.values())  # a few kernels for all of them
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=BETAS, fused=fused)


def set_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = value


def fill_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """A parameter that no example reached has a gradient of zeros, however many processes looked for one."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def gradient_length(parameters: Iterable[nn.Parameter]) -> float:
    """The Euclidean length of all gradients together, as one vector."""
    length = nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    return float(length.full_tensor() if hasattr(length, "full_tensor") else length)


def clip(parameters: Iterable[nn.Parameter], length: float, longest: float) -> None:
    """Shorten the whole gradient, of this length, to the longest that it may have."""
    if length > longest:
        torch._foreach_mul_([parameter.grad for parameter in parameters], longest / length)


def moments(optimiser: torch.optim.AdamW, learning: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimiser's two averages of each parameter, by name; none before the first step."""
    kept = ("exp_avg", "exp_avg_sq")
    states = {name: optimiser.state.get(parameter, {}) for name, parameter in learning.items()}
    return {f"{which}.{name}": state[which] for name, state in states.items() for which in kept if state}
