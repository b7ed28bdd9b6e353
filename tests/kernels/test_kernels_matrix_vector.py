"""A matrix times a few vectors, with the norm before it and the sums after it: against modules in float64."""

import itertools
import sys

import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.matrix_vector import MOST_ROWS, Configuration, launch, matvec, weight_rows
from minivl.layers.norm import RMSNorm
from tests.kernels.rules import DEVICE, HALF
from tests.regimes import Draw
from tests.tolerances import close

EPS = 0.1  # large, to be seen
ROUNDED = [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]  # the interpreter cuts bfloat16 off
PARTS = ("bias", "norm", "gated", "residual", "int8")


def operands(
    B: int, Out: int, In: int, *parts: str, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor | float | bool | None]:
    """Everything lies in the middle of a storage whose other numbers are NaN, or 127, so that none may be read."""

    def placed(x: Tensor) -> Tensor:
        around = x.new_full((x.numel() + 64,), 127 if x.dtype == torch.int8 else float("nan"))
        around[32:-32] = x.flatten()
        return around[32:-32].view(x.shape)

    draw, outputs = Draw(seed), Out // 2 if "gated" in parts else Out
    drawn = {"x": draw.normal(B, 1, In), "weight": draw.normal(Out, In) * In**-0.5}
    drawn |= {"bias": draw.normal(Out)} if "bias" in parts else {}
    drawn |= {"norm_weight": 1 + 0.3 * draw.normal(In)} if "norm" in parts else {}
    drawn |= {"residual": draw.normal(B, 1, outputs)} if "residual" in parts else {}
    found = {name: placed(x.to(DEVICE, dtype)) for name, x in drawn.items()}
    if "int8" in parts:
        found["weight"] = placed((30 * In**0.5 * drawn["weight"]).round().clamp(-127, 127).to(DEVICE, torch.int8))
        found["scale"] = placed((In**-0.5 * (0.5 + draw.normal(Out).abs()) / 30).to(DEVICE, torch.float32))
    return found | {"gated": "gated" in parts, "eps": EPS}


def oracle(
    x: Tensor, weight: Tensor, *, bias: Tensor | None = None, scale: Tensor | None = None,
    norm_weight: Tensor | None = None, eps: float = 0.0, gated: bool = False, residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The modules it stands for, in float64, but for the norm's two roundings to x's dtype."""
    h = x.double()
    if norm_weight is not None:
        h = (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
        h = (norm_weight.double() * h.double()).to(x.dtype).double()
    exact = weight.double() if scale is None else weight.double() * scale.double()[:, None]
    y = F.linear(h, exact, None if bias is None else bias.double())
    if gated:
        gate, up = y.chunk(2, -1)
        y = F.silu(gate) * up
    return y if residual is None else residual.double() + y


@pytest.mark.parametrize("parts", [c for n in range(len(PARTS) + 1) for c in itertools.combinations(PARTS, n)], ids=str)
@torch.no_grad()
def test_every_combination_equals_the_modules(parts):
    """Out is not a multiple of any tile, In neither a power of two nor, for most, one block."""
    for B, Out, In in ((1, 26, 48), (3, 10, 1040), (1, 4, 4096)):
        case = operands(B, Out, In, *parts)
        close(matvec(**case), oracle(**case), tolerance=1e-6)


@given(
    B=st.integers(1, MOST_ROWS),
    half=st.integers(1, 40),
    In=st.sampled_from([1, 7, 16, 31, 64, 176, 513, 2048, 3000, 4112]),
    parts=st.sets(st.sampled_from(PARTS)),
    seed=st.integers(0, 2**16),
)
@torch.no_grad()
def test_it_equals_the_modules_at_any_width(B, half, In, parts, seed):
    case = operands(B, 2 * half, In, *parts, seed=seed)
    close(matvec(**case), oracle(**case), tolerance=1e-6)


@torch.no_grad()
def test_it_is_the_norm_and_the_linear_layer_and_two_axes_are_three():
    case = operands(2, 24, 64, "norm", "bias", "residual")
    norm, linear = RMSNorm(64, EPS).to(DEVICE), torch.nn.Linear(64, 24).to(DEVICE)
    norm.weight.copy_(case["norm_weight"])
    linear.weight.copy_(case["weight"])
    linear.bias.copy_(case["bias"])
    out = matvec(**case)
    close(out, case["residual"] + linear(norm(case["x"])), tolerance=1e-6)
    flat = case | {name: case[name][:, 0] for name in ("x", "residual")}
    assert torch.equal(matvec(**flat), out[:, 0])


@pytest.mark.parametrize(
    "cut", [(4, 32, 4, 0), (8, 32, 1, 1), (2, 128, 4, 3), (16, 64, 2, 2), (2, 64, 4, 100)], ids=str
)
@pytest.mark.parametrize("parts", [("norm", "gated"), ("int8", "bias", "residual")], ids=str)
@torch.no_grad()
def test_however_it_is_cut_up_the_sums_are_the_same(cut, parts):
    """One tile or many for a program, one block or many for a tile, and more programs than tiles."""
    case = operands(2, 46, 112, *parts)
    names = ("x", "weight", "bias", "scale", "norm_weight", "eps", "gated", "residual")
    out = launch(*(case.get(name) for name in names), Configuration(*cut), False)
    close(out, oracle(**case), tolerance=1e-6)


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
@pytest.mark.parametrize("B", [1, 3])
@torch.no_grad()
def test_the_norm_is_rounded_before_its_weight_multiplies_and_after(B, dtype):
    """Through the identity the normed vector comes out as it went in; any other order differs in a third of it."""
    case = operands(B, 256, 256, "norm", dtype=dtype)
    case["weight"] = torch.eye(256, dtype=dtype, device=DEVICE)
    different = matvec(**case) != oracle(**case).to(dtype)
    assert different.float().mean() < 0.01


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
@pytest.mark.parametrize("parts", [("bias", "residual"), ("bias", "gated"), ("int8", "gated", "residual")], ids=str)
@torch.no_grad()
def test_all_else_is_rounded_once(parts, dtype):
    """A product rounded before its bias, gate or residual comes would differ in a third of its numbers."""
    case = operands(2, 512, 64, *parts, dtype=dtype)
    different = matvec(**case) != oracle(**case).to(dtype)
    assert different.float().mean() < 0.01


@triton.jit
def rows_kernel(out, tile, outputs, ROWS: tl.constexpr, OUTPUTS: tl.constexpr):
    tl.store(out + tl.arange(0, ROWS), weight_rows(tile, outputs, ROWS, OUTPUTS))


@pytest.mark.parametrize(
    ("tile", "gated", "rows"),
    [
        (0, False, [0, 1, 2, 3, 4, 5, 6, 7]),
        (1, False, [8, 9, 9, 9, 9, 9, 9, 9]),
        (1, True, [4, 5, 6, 7, 14, 15, 16, 17]),
        (2, True, [8, 9, 9, 9, 18, 19, 19, 19]),
    ],
)
def test_no_row_past_the_end_is_read(tile, gated, rows):
    """Ten outputs: the last tile reads the last row again, in each half, and leaves what comes of it."""
    out = torch.empty(8, dtype=torch.int64, device=DEVICE)
    rows_kernel[(1,)](out, tile, 10, 8, 4 if gated else 8)
    assert out.tolist() == rows


@torch.no_grad()
def test_vectors_with_gaps_between_them_are_taken_as_they_are():
    case = operands(3, 20, 48, "residual")
    apart = {name: torch.stack([case[name], case[name] + 1], -1)[..., 0] for name in ("x", "residual")}
    assert torch.equal(matvec(**case | apart), matvec(**case))


FAULTS = {
    r"x has 9 rows; it should have 1 to 8": lambda c: {"x": c["x"].repeat(5, 1, 1)[:9]},
    r"x has shape \[2, 1, 32\]; it should be \[B, 48\] or \[B, 1, 48\]": lambda c: {"x": c["x"][..., :32]},
    r"x has shape \[1, 2, 48\]": lambda c: {"x": c["x"].transpose(0, 1)},
    "x is torch.float64": lambda c: {"x": c["x"].double()},
    "weight is a list; it should be a tensor": lambda c: {"weight": [1.0]},
    r"weight has shape \[48\]": lambda c: {"weight": c["weight"][0]},
    r"weight has shape \[0, 48\]": lambda c: {"weight": c["weight"][:0]},
    "weight is torch.bfloat16; it should be torch.float32 or torch.int8": lambda c: {"weight": c["weight"].bfloat16()},
    "weight is not contiguous": lambda c: {"weight": c["weight"].T.contiguous().T},
    "scale is missing, and weight is torch.int8": lambda c: {"weight": c["weight"].to(torch.int8)},
    "scale is given, and weight is torch.float32": lambda c: {"scale": c["bias"]},
    r"bias has shape \[10\]; it should be \[20\]": lambda c: {"bias": c["bias"][:10]},
    r"norm_weight has shape \[20\]; it should be \[48\]": lambda c: {"norm_weight": c["bias"]},
    r"residual has shape \[2, 1, 20\]; it should be \[2, 1, 10\]": lambda c: {"gated": True},
    r"residual has shape \[2, 20\]; it should be \[2, 1, 20\]": lambda c: {"residual": c["residual"][:, 0]},
    "weight has 19 rows; gated, it should have two halves": lambda c: {"weight": c["weight"][:19], "gated": True},
}


@pytest.mark.parametrize("message", FAULTS)
@torch.no_grad()
def test_a_fault_is_told_in_one_sentence(message):
    case = operands(2, 20, 48, "bias", "residual")
    with pytest.raises((TypeError, ValueError), match=message):
        matvec(**case | FAULTS[message](case))


def test_gradients_are_refused():
    case = operands(1, 20, 48)
    case["weight"].requires_grad_()
    with pytest.raises(ValueError, match="matvec makes no gradients"):
        matvec(**case)


SHAPES = {  # the model's widths, and one that no tile divides
    "delta_in": (1540, 2048, ("norm",)),
    "window_in": (2560, 2048, ("norm", "bias")),
    "delta_out": (2048, 4096, ("residual",)),
    "window_out": (2048, 2048, ("residual",)),
    "gate_up": (2752, 2048, ("norm", "gated")),
    "down": (2048, 11008, ("residual",)),
    "ragged": (1234, 1000, ("norm", "bias", "gated", "residual")),
    "narrow": (6, 16, ("norm", "gated")),
}


@pytest.mark.gpu
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_16_bits_stay_close_to_float64(shape, dtype, int8):
    Out, In, parts = SHAPES[shape]
    case = operands(MOST_ROWS, Out, In, *parts, *(["int8"] if int8 else []), dtype=dtype)
    for B in (1, 2, 5, MOST_ROWS):
        few = case | {name: case[name][:B] for name in ("x", "residual") if name in case}
        close(matvec(**few), oracle(**few), tolerance=4e-3, what=f"{B} vectors")


@pytest.mark.gpu
@pytest.mark.parametrize("int8", [False, True])
@torch.no_grad()
def test_captured_in_a_graph_a_chain_of_them_is_the_same_to_the_bit(int8, monkeypatch):
    """Where kernels overlap, one that read its input too early would see the replay before."""
    kind = ["int8"] if int8 else []
    into = operands(1, 1024, 512, "norm", "gated", *kind, dtype=torch.bfloat16)
    back = operands(1, 512, 512, "residual", *kind, dtype=torch.bfloat16)
    inputs, x = [Draw(seed).normal(1, 1, 512).to(into["x"]) for seed in range(8)], into["x"].clone()

    def chain(y: Tensor) -> Tensor:
        for _ in range(40):
            y = matvec(**back | {"x": matvec(**into | {"x": y}), "residual": y})
        return y

    eager = [chain(y) for y in inputs]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = chain(x)
    monkeypatch.setattr(sys.modules[matvec.__module__], "can_overlap", lambda device: False)
    for seed, y in enumerate(inputs):
        x.copy_(y)
        graph.replay()
        assert torch.equal(out, eager[seed]), f"replay {seed}"
        assert torch.equal(out, chain(y)), f"one after the other, {seed}"


@pytest.mark.gpu
@torch.no_grad()
def test_weights_written_just_before_are_the_ones_that_are_read():
    """A kernel that starts before the one ahead has ended may prefetch weights, not take them for read."""
    case = operands(1, 2048, 4096, dtype=torch.bfloat16)
    other = operands(1, 2048, 4096, seed=1, dtype=torch.bfloat16)["weight"]
    weight = case["weight"].clone()
    expected = [matvec(**case | {"weight": w}).clone() for w in (case["weight"], other)]
    for turn in range(100):
        weight.copy_((case["weight"], other)[turn % 2])
        assert torch.equal(matvec(**case | {"weight": weight}), expected[turn % 2]), f"turn {turn}"
