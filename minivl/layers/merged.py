"""Projections of one input as one matrix: their weights laid side by side in memory, each still there under its name.

Several products of one input take longer than one product of the same size. So `merged` moves the weights of several
linear layers into one storage, where each layer's parameter is a view of its own rows: names, shapes, checkpoints and
the plain forms of all layers stay as they were, and the whole is there as one matrix beside.

    [q; k; v] = [W_q; W_k; W_v] x
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Matrix(NamedTuple):
    """What y = scale ∘ (W x) + bias needs; `scale` is for whole-number weights only."""

    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None


def merged(*linears: nn.Module) -> Matrix:
    """The linears as one, laid side by side if they aren't. All have biases, or none has; likewise scales."""
    return Matrix(*(_one_piece(linears, name) for name in Matrix._fields))


def _one_piece(linears: Sequence[nn.Module], name: str) -> Tensor | None:
    parts = [getattr(linear, name, None) for linear in linears]
    if parts[0] is None or len(parts) == 1:
        return parts[0]
    first, rows, place = parts[0], sum(len(part) for part in parts), parts[0].data_ptr()
    storage = first.untyped_storage().data_ptr()
    for part in parts:
        if part.data_ptr() != place or part.untyped_storage().data_ptr() != storage:
            return _lay(parts)
        place += part.nbytes
    return first.detach().as_strided((rows, *first.shape[1:]), first.stride())


@torch.inference_mode(False)  # weights that are laid out during inference may be trained afterwards
def _lay(parts: list[Tensor]) -> Tensor:
    if len(dtypes := {part.dtype for part in parts}) > 1:
        found = " and ".join(sorted(map(str, dtypes)))
        raise TypeError(f"the weights of one input are {found}; they should be of one dtype")
    whole = torch.cat([part.detach() for part in parts])
    for part, view in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        part.data = view  # a parameter stays the same parameter, a buffer the same buffer
    return whole
