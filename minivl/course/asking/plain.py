"""A function of tensors and numbers."""

import inspect

import torch
from torch import Tensor


def accepted(function, **options) -> dict:
    """Those options that the function takes: an oracle knows no chunks."""
    taken = inspect.signature(function).parameters
    return {name: x for name, x in options.items() if name in taken}


def values(find, tensors, *, function: str, parts: list[int] | None = None, **options) -> dict[str, Tensor]:
    """A function of tensors, by name, that gives a tensor or several; of them `parts`, from … to, are looked at."""
    run = find(function)
    out = run(**tensors, **accepted(run, **options))
    if not isinstance(out, tuple | list):
        return {"value": as_tensor(out)}
    return {f"value {i}": as_tensor(x) for i, x in enumerate(out) if parts is None or parts[0] <= i < parts[1]}


def as_tensor(x) -> Tensor:
    return x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64 if isinstance(x, float) else None)
