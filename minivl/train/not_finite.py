"""Where a NaN came from: the first weight, layer or gradient that is not finite.

A loss that is not finite says nothing about its cause, and one more step would spoil every weight. The step's batches
are run once more while each layer is watched; the one whose input was finite and whose output is not is named.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .examples import Batch
from .objectives import Objective


class NotFinite(ValueError):
    """Training has stopped, and the last checkpoint is as good as it was."""


def first_weight(model: nn.Module) -> str | None:
    """The first parameter that holds a NaN or an infinity."""
    return next((name for name, x in model.named_parameters() if not finite(x)), None)


def first_gradient(model: nn.Module) -> str | None:
    return next((name for name, x in model.named_parameters() if x.grad is not None and not finite(x.grad)), None)


def first_layer(objective: Objective, passes: nn.Module, batches: Iterable[Batch]) -> str | None:
    """The first layer, the teacher's or the student's, that makes numbers that are not finite of finite ones."""
    found: list[str] = []

    def watch(name: str):
        def look(module: nn.Module, given: tuple, out) -> None:
            if all(map(finite, tensors(given))) and not all(map(finite, tensors(out))):
                found.append(name)

        return look

    hooks = [
        module.register_forward_hook(watch(f"{whose}{name}"))
        for whose, model in (("the teacher's ", objective.teacher), ("", objective.student))
        if model is not None
        for name, module in parts(model)
    ]
    try:
        for batch in batches:  # all of them: a pass may be one of several processes' passes, which go together
            passes(batch.to(objective.student.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def parts(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """What is named: the words, each layer's mixer and feed-forward, each block of the tower, the norms."""
    for name, module in model.named_modules():
        end = name.rpartition(".")[2]
        if end in ("self_attn", "mlp", "embed_tokens", "merger", "norm", "attn") or end.endswith("layernorm"):
            yield name, module


def tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    return [x for one in value for x in tensors(one)] if isinstance(value, tuple | list) else []


def finite(x: Tensor) -> bool:
    x = x.to_local() if hasattr(x, "to_local") else x
    return bool(torch.isfinite(x).all())


def told(
    step: int, what: str, objective: Objective, passes: nn.Module, batches: Iterable[Batch], last: str
) -> NotFinite:
    """The error for this step, with what can be found out."""
    layer = first_layer(objective, passes, batches)
    if name := first_weight(objective.student):
        cause = f"the weight {name} is not finite"
    elif layer:
        cause = f"{layer} is the first to make numbers that are not finite"
    elif name := first_gradient(objective.student):
        cause = f"{name} has the first gradient that is not finite"
    else:
        cause = "every layer is finite here; another process may tell more"
    return NotFinite(f"step {step}: {what}; {cause}; {last}")
