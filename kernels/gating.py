"""What stands between two matrix products, each in one pass over its inputs instead of five or more.

    norm            weight ∘ x / rms(x)                   a layer's input; cast before the weight multiplies
    add_norm        x + y, and its norm                   a residual and the next layer's input
    gated_norm      weight ∘ x / rms(x) ∘ SiLU(gate)      a linear layer's read-out
    gated_product   SiLU(gate) ∘ x                        the feed-forward's inner layer
    gates           −exp(A_log) · softplus(a + dt_bias) and σ(b)      how much a linear layer keeps and writes

All in float32, and cast once, at the end, but for norm, which keeps the released model's order, and add_norm, whose sum
is rounded before it is normed. Operands may be slices of a wider matrix: their rows lie apart, and nothing is copied.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def norm_kernel(
    x, other, weight, total, out, rows, per, x_row, other_row, eps, D,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, ADDED: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """One program per ROWS rows of D channels; WIDTH is D's next power of two. `other` is added first, or is the gate.

    `per` rows lie side by side, in one piece of x; the next piece begins x_row after it, and other's other_row.
    """
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (column < D)[None, :]
    piece, within = (row // per).to(tl.int64)[:, None], (row % per).to(tl.int64)[:, None] * D + column[None, :]
    place = row.to(tl.int64)[:, None] * D + column[None, :]
    value = tl.load(x + piece * x_row + within, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32)
    if ADDED:
        value += tl.load(other + piece * other_row + within, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=inside)
        value = rounded.to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, 1) / D + eps)[:, None]
    if GATED:
        opening = tl.load(other + piece * other_row + within, mask=inside, other=0.0).to(tl.float32)
        value *= opening * tl.sigmoid(opening)
    else:
        value = value.to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + place, (value * scale[None, :]).to(out.dtype.element_ty), mask=inside)


@triton.jit
def product_kernel(x, gate, out, width, x_row, gate_row, BLOCK: tl.constexpr):
    """One program per BLOCK numbers of a row; the rows of out lie in one piece."""
    blocks = tl.cdiv(width, BLOCK)
    row, begin = (tl.program_id(0) // blocks).to(tl.int64), (tl.program_id(0) % blocks).to(tl.int64) * BLOCK
    column = tl.arange(0, BLOCK)
    inside = column < width - begin
    opening = tl.load(gate + row * gate_row + begin + column, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(x + row * x_row + begin + column, mask=inside, other=0.0).to(tl.float32)
    value *= opening * tl.sigmoid(opening)
    tl.store(out + row * width + begin + column, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log(1 + y) with y = e^−|x|; where 1 + y is rounded, log(1 + y) is mended for it."""
    y = tl.exp(-tl.abs(x))
    rounded = 1.0 + y
    small = rounded == 1.0
    return tl.maximum(x, 0.0) + tl.where(small, y, tl.log(rounded) * y / tl.where(small, 1.0, rounded - 1.0))


@triton.jit
def gates_kernel(
    a, b, A_log, dt_bias, log_decay, beta, rows, a_row, b_row, H, WIDTH: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """One program per ROWS tokens; WIDTH is H's next power of two."""
    row, head = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    real = head < H
    inside = (row < rows)[:, None] & real[None, :]
    place = row[:, None] * H + head[None, :]
    decay = tl.exp(tl.load(A_log + head, mask=real, other=0.0).to(tl.float32))
    bias = tl.load(dt_bias + head, mask=real, other=0.0).to(tl.float32)
    step = tl.load(a + row[:, None] * a_row + head[None, :], mask=inside, other=0.0).to(tl.float32)
    write = tl.load(b + row[:, None] * b_row + head[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(log_decay + place, -decay[None, :] * softplus(step + bias[None, :]), mask=inside)
    tl.store(beta + place, tl.sigmoid(write), mask=inside)


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., D]; weight [D]; no gradient."""
    return _norm(x, x, weight, eps)


def add_norm(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y and norm(x + y), bit for bit as one after the other; x and y [..., D]; weight [D]; no gradient."""
    total = torch.empty_like(x, memory_format=torch.contiguous_format)
    return total, _norm(x, y, weight, eps, total=total)


def gated_norm(x: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x and gate [..., V]; weight [V]; no gradient."""
    return _norm(x, gate, weight, eps, gated=True)


def _norm(
    x: Tensor, other: Tensor, weight: Tensor, eps: float, *, total: Tensor | None = None, gated: bool = False
) -> Tensor:
    out, D = torch.empty_like(x, memory_format=torch.contiguous_format), x.shape[-1]
    if x.numel():
        x, other = side_by_side(x, other)
        rows, width = x.numel() // D, triton.next_power_of_2(D)
        per_program = max(1, 1024 // width)
        norm_kernel[triton.cdiv(rows, per_program),](
            x, other, weight, out if total is None else total, out, rows, x.shape[1] // D, x.stride(0), other.stride(0),
            eps, D, width, per_program, total is not None, gated, num_warps=4,
        )  # fmt: skip
    return out


def gated_product(x: Tensor, gate: Tensor) -> Tensor:
    """x and gate of one shape; no gradient."""
    out, block = torch.empty_like(x, memory_format=torch.contiguous_format), 2048
    if x.numel():
        x, gate = side_by_side(x, gate)
        rows, width = x.shape
        grid = (rows * triton.cdiv(width, block),)
        product_kernel[grid](x, gate, out, width, x.stride(0), gate.stride(0), block, num_warps=4)
    return out


def gates(a: Tensor, b: Tensor, A_log: Tensor, dt_bias: Tensor) -> tuple[Tensor, Tensor]:
    """log_decay and beta, float32, of a and b [..., H]; A_log and dt_bias [H]; no gradient."""
    log_decay, beta = (torch.empty(a.shape, dtype=torch.float32, device=a.device) for _ in range(2))
    if a.numel():
        H = a.shape[-1]
        a, b = (x.reshape(-1, H) for x in side_by_side(a, b))
        width, rows = triton.next_power_of_2(H), len(a)
        per_program = max(1, 512 // width)
        gates_kernel[triton.cdiv(rows, per_program),](
            a, b, A_log, dt_bias, log_decay, beta, rows, a.stride(0), b.stride(0), H, width, per_program, num_warps=4
        )
    return log_decay, beta


def side_by_side(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors of one shape as matrices with rows as long as lie in one piece in both; copied only where a tensor's
    last axis has gaps, or its rows are not evenly apart."""
    if x.shape != y.shape:
        raise ValueError(f"the operands have shapes {list(x.shape)} and {list(y.shape)}; they should be alike")
    width = max(x.shape[-1], min(in_one_piece(x), in_one_piece(y)))
    return tuple(z if z.stride(1) == 1 else z.contiguous() for z in (x.reshape(-1, width), y.reshape(-1, width)))


def in_one_piece(x: Tensor) -> int:
    """How many numbers of x, its last axes taken together, follow one another in memory."""
    length = 1
    for size, stride in zip(reversed(x.shape), reversed(x.stride()), strict=True):
        if stride != length:
            break
        length *= size
    return length
