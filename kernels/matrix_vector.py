"""A matrix times one vector: the products of a decoded token, with the norm before them and the sum after them.

    h   = norm_weight ∘ x / rms(x), or x itself; rounded as RMSNorm rounds it
    y   = scale ∘ (weight h) + bias
    out = y,   residual + y,   or SiLU(gate) ∘ up, with [gate; up] = y

A token's time is that of reading every weight once, so all here serves the reads. A program takes two or four whole
rows in one go, with no loop: it asks for all of its weights before anything else, and there are so many programs that
memory always has something to send. The norm is done anew by each of them, which costs less than a kernel of its own
and a wait between the two. Sums are in float32, each in one fixed order, and rounded once, at the end.

    code          shape          dtype          what
    x             [1, 1, In]     bf16, fp16 …   In at most 16,384
    weight        [Out, In]      x's, or int8
    scale         [Out]          float32        with an int8 weight, and only then
    norm_weight   [In]           x's
    bias          [Out]          x's
    residual      [1, 1, Out]    x's
    out           [1, 1, Out]    x's            Out / 2 where gated
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .operators import DTYPES, check_runs_here, check_tensor

WIDEST = 16384


@triton.jit
def matvec_kernel(
    x, weight, scales, norm_weight, bias, residual, out, outputs, eps,
    IN: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, GATED: tl.constexpr, SCALED: tl.constexpr,
    NORMED: tl.constexpr, BIASED: tl.constexpr, ADDED: tl.constexpr,
):  # fmt: skip
    """One program per ROWS rows of the weight; gated, one half are gates and the other what they open."""
    OUTPUTS: tl.constexpr = ROWS // 2 if GATED else ROWS
    dtype: tl.constexpr = out.dtype.element_ty
    column, row = tl.arange(0, WIDTH), tl.arange(0, ROWS)
    row = (tl.minimum(tl.program_id(0) * OUTPUTS + row % OUTPUTS, outputs - 1) + row // OUTPUTS * outputs).to(tl.int64)
    inside = column < IN
    weights = tl.load(
        weight + row[:, None] * IN + column[None, :], mask=inside[None, :], other=0, eviction_policy="evict_first"
    )
    h = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
    if NORMED:
        gain = tl.load(norm_weight + column, mask=inside, other=0.0).to(tl.float32)
        h = (h * tl.rsqrt(tl.sum(h * h, 0) / IN + eps)).to(dtype).to(tl.float32)
        h = (h * gain).to(dtype).to(tl.float32)
    y = tl.sum(weights.to(tl.float32) * h[None, :], 1)
    if SCALED:
        y *= tl.load(scales + row)
    if BIASED:
        y += tl.load(bias + row).to(tl.float32)
    if GATED:
        gate, up = tl.split(tl.trans(tl.reshape(y, (2, OUTPUTS))))
        y = gate * tl.sigmoid(gate) * up
    place = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    if ADDED:
        y += tl.load(residual + place, mask=place < outputs, other=0.0).to(tl.float32)
    tl.store(out + place, y.to(dtype), mask=place < outputs)


def configuration(In: int, itemsize: int, *, gated: bool) -> tuple[int, int]:
    """Rows per program and warps, on every card: 8 to 64 KB of weights asked for at once."""
    rows = 4 if gated or (itemsize == 1 and In <= 2048) else 2
    return rows, 4 if In <= 4096 else 8


def check(
    x: Tensor, weight: Tensor, bias: Tensor | None, scale: Tensor | None, norm_weight: Tensor | None, gated: bool,
    residual: Tensor | None,
) -> None:  # fmt: skip
    """Every demand of the kernel, each fault told in one sentence."""
    for name, given in (("x", x), ("weight", weight)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} is a {type(given).__name__}; it should be a tensor")
    if weight.ndim != 2 or not weight.numel():
        raise ValueError(f"weight has shape {list(weight.shape)}; it should be [Out, In], neither of them 0")
    Out, In = weight.shape
    if In > WIDEST:
        raise ValueError(f"weight has rows of {In}; they should have at most {WIDEST:,}")
    if gated and Out % 2:
        raise ValueError(f"weight has {Out} rows; gated, it should have two halves: those of the gate and of up")
    check_tensor("x", x, (1, 1, In), x.device, *DTYPES)
    check_tensor("weight", weight, (Out, In), x.device, x.dtype, torch.int8)
    if (scale is None) == (weight.dtype == torch.int8):
        found = "is missing" if scale is None else "is given"
        raise ValueError(f"scale {found}, and weight is {weight.dtype}; an int8 weight needs it, and no other has it")
    vectors = {"bias": (bias, (Out,), x.dtype), "scale": (scale, (Out,), torch.float32)}
    vectors |= {"norm_weight": (norm_weight, (In,), x.dtype)}
    vectors |= {"residual": (residual, (1, 1, Out // 2 if gated else Out), x.dtype)}
    for name, (given, shape, dtype) in vectors.items():
        if given is not None:
            check_tensor(name, given, shape, x.device, dtype)
    for name, given in {"x": x, "weight": weight, **{name: given for name, (given, *_) in vectors.items()}}.items():
        if given is not None and not given.is_contiguous():
            raise ValueError(f"{name} is not contiguous; the kernel needs it in one piece")
    check_runs_here(x)
    tensors = (x, weight, bias, scale, norm_weight, residual)
    if torch.is_grad_enabled() and any(given is not None and given.requires_grad for given in tensors):
        raise ValueError("matvec makes no gradients; call it under torch.no_grad()")


def matvec(
    x: Tensor, weight: Tensor, *, bias: Tensor | None = None, scale: Tensor | None = None,
    norm_weight: Tensor | None = None, eps: float = 0.0, gated: bool = False, residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """One product with what surrounds it, without gradients: all in the table and the equations above."""
    check(x, weight, bias, scale, norm_weight, gated, residual)
    Out, In = weight.shape
    outputs = Out // 2 if gated else Out
    rows, warps = configuration(In, weight.element_size(), gated=gated)
    out = x.new_empty(1, 1, outputs)
    given = (out if tensor is None else tensor for tensor in (scale, norm_weight, bias, residual))
    matvec_kernel[(triton.cdiv(outputs, rows // 2 if gated else rows),)](
        x, weight, *given, out, outputs, eps, In, triton.next_power_of_2(In), rows, gated, scale is not None,
        norm_weight is not None, bias is not None, residual is not None, num_warps=warps,
    )  # fmt: skip
    return out
