"""Two ways to train in less memory: 16-bit products, and layers that are run twice instead of remembered.

Under autocast matrix products take bf16, while weights, sums and norms stay as they are: the weights that learn are
float32, so that a small step is not rounded away. A layer that is recomputed keeps only its input until the gradient
comes by, and then runs again: a third more time, and the memory of one layer instead of all.
"""

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..model import InfiniteVL
from ..ops.checks import state_dtype


def autocast(device: torch.device, wanted: bool | None) -> AbstractContextManager:
    """bf16 products: always, never, or (None) on a GPU."""
    wanted = device.type == "cuda" if wanted is None else wanted
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def widen(model: nn.Module, *, all_of_it: bool) -> None:
    """What learns in at least float32; without autocast all of the model, since products don't mix dtypes."""
    for parameter in model.parameters():
        if parameter.requires_grad or all_of_it:
            parameter.data = parameter.data.to(state_dtype(parameter.dtype))


def recompute(model: InfiniteVL) -> None:
    """Run each decoder layer and each block of the tower again for its gradient, from now on. Names stay."""
    for layer in (*model.model.language_model.layers, *model.model.visual.blocks):
        if "forward" not in vars(layer):
            layer.forward = functools.partial(_twice, layer.forward)


def _twice(forward, *arguments, **named):
    if not torch.is_grad_enabled():
        return forward(*arguments, **named)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **named)
