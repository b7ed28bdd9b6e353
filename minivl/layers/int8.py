"""Matrices in whole numbers of 8 bits: half the memory of bf16, and half the bytes to read for each decoded token.

Each row of a matrix gets a scale of its own, and each of its numbers becomes the nearest multiple of it. Only weights
are rounded: inputs, sums and all else stay as they were. An int8 number is exact in every dtype that a model runs in,
so the product is that of the whole numbers, summed in at least float32, then scaled, and rounded once. Inference only.

    scale = max |row| / 127        W₈ = round(W / scale)        y = scale ∘ (W₈ x) + bias

    code     shape      dtype                what
    weight   [out, in]  int8                 W₈, from −127 to 127
    scale    [out]      float32              of each row; 0 where the row is all zeros
    x, y     […, in]    any floating dtype   y […, out] is in x's
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.checks import state_dtype

LARGEST = 127
ROUNDED_AT_ONCE = 1 << 20  # numbers that are quantised at a time, which bounds what that takes beside the result
WIDENED_AT_ONCE = 32768  # of a longer matrix, such as the table of words, only so many rows are multiplied at a time


def quantised(matrix: Tensor, *, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """(weight, scale) on `device`, to which the matrix travels a few rows at a time; see `rounded`."""
    device = matrix.device if device is None else device
    weight = torch.empty(matrix.shape, dtype=torch.int8, device=device)
    scale = torch.empty(len(matrix), dtype=torch.float32, device=device)
    rows = max(1, ROUNDED_AT_ONCE // matrix.shape[1])
    for piece, *into in zip(matrix.detach().split(rows), weight.split(rows), scale.split(rows), strict=True):
        for part, whole in zip(rounded(piece.to(device)), into, strict=True):
            whole.copy_(part)
    return weight, scale


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """W / scale as the nearest whole numbers, not yet in int8, and the scale.

    A row whose scale float32 could not hold in full, below 1.2e-38, counts as zero. A row with NaN has scale NaN.
    """
    rows = rows.to(state_dtype(rows.dtype))
    low, high = rows.aminmax(dim=1)
    scale = (torch.maximum(-low, high) / LARGEST).float()
    scale = scale.masked_fill(scale < torch.finfo(scale.dtype).tiny, 0)
    steps = rows / scale.masked_fill(scale == 0, torch.inf)[:, None].to(rows.dtype)
    return steps.round_().clamp_(-LARGEST, LARGEST), scale


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """scale ∘ (W₈ x) + bias, in x's dtype."""
    if len(weight) > WIDENED_AT_ONCE:
        cut = [y.split(WIDENED_AT_ONCE) for y in (weight, scale) + (() if bias is None else (bias,))]
        return torch.cat([int8_linear(x, *part) for part in zip(*cut, strict=True)], dim=-1)
    wide = state_dtype(x.dtype)
    if x.is_cuda and x.dtype != wide:
        y = torch.mm(x.reshape(-1, x.shape[-1]), weight.to(x.dtype).T, out_dtype=wide)
        y = y.view(*x.shape[:-1], len(weight))
    else:
        y = F.linear(x.to(wide), weight.to(wide))
    y *= scale
    if bias is not None:
        y += bias
    return y.to(x.dtype)


class Int8(nn.Module):
    """The two buffers, and their names in a state dict."""

    def __init__(self, rows: int, columns: int, device=None):
        super().__init__()
        self.register_buffer("weight", torch.zeros(rows, columns, dtype=torch.int8, device=device))
        self.register_buffer("scale", torch.zeros(rows, dtype=torch.float32, device=device))

    def _apply(self, fn, recurse: bool = True) -> "Int8":
        """Wherever the module goes, and in whatever dtype it is to work, scales are never rounded."""
        scale = self.scale
        super()._apply(fn, recurse)
        if self.scale.dtype != scale.dtype:
            self.scale = scale.to(self.scale.device)
        return self


class Int8Linear(Int8):
    """In the place of an nn.Linear."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device=None, dtype=None):
        super().__init__(out_features, in_features, device)
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype), False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return int8_linear(x, self.weight, self.scale, self.bias)


class Int8Embedding(Int8):
    """In the place of an nn.Embedding: looked-up rows come in `dtype`. As a matrix it scores words, too."""

    def __init__(self, num_embeddings: int, embedding_dim: int, device=None, dtype: torch.dtype = torch.float32):
        super().__init__(num_embeddings, embedding_dim, device)
        self.dtype = dtype

    def _apply(self, fn, recurse: bool = True) -> "Int8Embedding":
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self.scale.device)).dtype
        return super()._apply(fn, recurse)

    def forward(self, ids: Tensor) -> Tensor:
        wide = state_dtype(self.dtype)
        return (self.weight[ids].to(wide) * self.scale[ids][..., None].to(wide)).to(self.dtype)


def matrices(model: nn.Module, *, vision: bool = False) -> dict[str, nn.Linear | nn.Embedding]:
    """What is quantised, by name: the decoder's projections and feed-forwards and its table; the tower's if asked."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Embedding) and (vision or "visual" not in name.split("."))
    }


def replace(model: nn.Module, name: str, *, dtype: torch.dtype) -> Int8:
    """Put an int8 layer without numbers into the place of the layer of this name; its bias stays."""
    old = model.get_submodule(name)
    if isinstance(old, nn.Embedding):
        new = Int8Embedding(old.num_embeddings, old.embedding_dim, device="meta", dtype=dtype)
    else:
        new = Int8Linear(old.in_features, old.out_features, bias=False, device="meta")
        new.bias = old.bias
    model.set_submodule(name, new)
    return new


def quantise(model: nn.Module, *, vision: bool = False) -> nn.Module:
    """The model with int8 matrices, in place; each is let go in turn. Before `fuse`, if that is wanted too."""
    chosen = matrices(model, vision=vision)
    for name, layer in chosen.items():
        x = layer.weight
        if x.untyped_storage().nbytes() > x.nbytes:
            raise ValueError(f"{name} is part of a merged matrix; quantise(model) should come before model.fuse()")
        if not torch.stack(x.detach().aminmax()).float().isfinite().all():
            raise ValueError(f"{name} has numbers that are not finite (NaN or infinite); it can't be quantised")
    model.requires_grad_(False)
    for name in list(chosen):
        layer = chosen.pop(name)
        new = replace(model, name, dtype=layer.weight.dtype)
        new.weight, new.scale = quantised(layer.weight)
    return model


def is_quantised(model: nn.Module) -> bool:
    return any(isinstance(layer, Int8) for layer in model.modules())


def nbytes(model: nn.Module) -> int:
    """Bytes of all weights, whole-numbered or not."""
    return sum(x.nbytes for x in (*model.parameters(), *model.buffers()))
