"""A matrix times a vector, with the norm before it and the sums after it: against modules in float64."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.matrix_vector import WIDEST, matvec
from kernels.operators import INTERPRETED
from minivl.layers.norm import RMSNorm
from tests.kernels.rules import DEVICE, HALF
from tests.regimes import Draw
from tests.tolerances import close

EPS = 0.1  # large, to be seen
ROUNDED = [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]  # the interpreter cuts bfloat16 off
PARTS = ("bias", "norm", "gated", "residual", "int8")


def operands(
    outputs: int, In: int, *parts: str, seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor | float | bool | None]:
    """Everything lies in the middle of a storage whose other numbers are NaN, or 127, so that none may be used."""

    def placed(x: Tensor) -> Tensor:
        around = x.new_full((x.numel() + 64,), 127 if x.dtype == torch.int8 else float("nan"))
        around[32:-32] = x.flatten()
        return around[32:-32].view(x.shape)

    draw, Out = Draw(seed), 2 * outputs if "gated" in parts else outputs
    drawn = {"x": draw.normal(1, 1, In), "weight": draw.normal(Out, In) * In**-0.5}
    drawn |= {"bias": draw.normal(Out)} if "bias" in parts else {}
    drawn |= {"norm_weight": 1 + 0.3 * draw.normal(In)} if "norm" in parts else {}
    drawn |= {"residual": draw.normal(1, 1, outputs)} if "residual" in parts else {}
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


@torch.no_grad()
def it_equals_the_modules(outputs: int, In: int, *parts: str, seed: int = 0, run=matvec) -> None:
    case = operands(outputs, In, *parts, seed=seed)
    close(run(**case), oracle(**case), tolerance=1e-6)


@torch.no_grad()
def the_norm_is_rounded_before_its_weight_multiplies_and_after(dtype: torch.dtype, *, run=matvec) -> None:
    """Each answer is the sum of two numbers of the normed vector; in any other order a tenth of them differ."""
    case, identity = operands(128, 128, "norm", dtype=dtype), torch.eye(128, dtype=dtype, device=DEVICE)
    case["weight"] = identity + identity.roll(1, 0)
    different = run(**case) != oracle(**case).to(dtype)
    assert different.float().mean() < 0.01, f"{different.sum()} of 128 numbers were rounded otherwise"


@torch.no_grad()
def all_else_is_rounded_once(parts: tuple[str, ...], dtype: torch.dtype, *, run=matvec) -> None:
    """A product rounded before its bias, gate or residual comes would differ in a third of its numbers."""
    case = operands(129, 64, *parts, dtype=dtype)
    different = run(**case) != oracle(**case).to(dtype)
    assert different.float().mean() < 0.01, f"{different.sum()} of 129 numbers were rounded more than once"


@torch.no_grad()
def nothing_but_the_tensors_is_touched(outputs: int, In: int, *parts: str, run=matvec) -> None:
    """Each address that any program reads lies in a tensor given, each that it writes in the answer, and only once."""
    from triton.runtime.interpreter import interpreter_builder as builder

    case, read, written = operands(outputs, In, *parts), [], []
    load, store = builder.create_masked_load, builder.create_masked_store

    def seen_load(pointers, mask, *rest):
        read.append(np.broadcast_to(pointers.data, mask.data.shape)[mask.data])
        return load(pointers, mask, *rest)

    def seen_store(pointers, value, mask, *rest):
        written.append(np.broadcast_to(pointers.data, mask.data.shape)[mask.data])
        return store(pointers, value, mask, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "create_masked_load", seen_load)
        patch.setattr(builder, "create_masked_store", seen_store)
        out = run(**case)
    read = np.unique(np.concatenate(read))
    for x in case.values():
        if isinstance(x, Tensor):
            read = np.setdiff1d(read, x.data_ptr() + x.element_size() * np.arange(x.numel()), assume_unique=True)
    assert not len(read), f"{len(read)} addresses outside the tensors were read"
    places = out.data_ptr() + out.element_size() * np.arange(out.numel())
    assert np.array_equal(np.sort(np.concatenate(written)), places), "not each number of the answer was written once"


@pytest.mark.parametrize("parts", [c for n in range(len(PARTS) + 1) for c in itertools.combinations(PARTS, n)], ids=str)
def test_every_combination_equals_the_modules(parts):
    """No number of rows for a program divides Out, and In is neither even nor a power of two."""
    for outputs, In in ((27, 47), (9, 1041), (5, 4097)):
        it_equals_the_modules(outputs, In, *parts)


@given(
    outputs=st.integers(1, 40), In=st.sampled_from([1, 2, 7, 16, 31, 64, 176, 513, 2048, 3000]),
    parts=st.sets(st.sampled_from(PARTS)), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_it_equals_the_modules_at_any_width(outputs, In, parts, seed):
    it_equals_the_modules(outputs, In, *parts, seed=seed)


@pytest.mark.parametrize("parts", [("residual",), PARTS], ids=str)
def test_the_widest_rows_too(parts):
    it_equals_the_modules(3, WIDEST, *parts)


@torch.no_grad()
def test_it_is_the_norm_and_the_linear_layer():
    case = operands(24, 64, "norm", "bias", "residual")
    norm, linear = RMSNorm(64, EPS).to(DEVICE), torch.nn.Linear(64, 24).to(DEVICE)
    norm.weight.copy_(case["norm_weight"])
    linear.weight.copy_(case["weight"])
    linear.bias.copy_(case["bias"])
    close(matvec(**case), case["residual"] + linear(norm(case["x"])), tolerance=1e-6)


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
def test_the_norm_is_rounded_before_its_weight_multiplies_and_after(dtype):
    the_norm_is_rounded_before_its_weight_multiplies_and_after(dtype)


@pytest.mark.parametrize("dtype", ROUNDED, ids=str)
@pytest.mark.parametrize("parts", [("bias", "residual"), ("bias", "gated"), ("int8", "gated", "residual")], ids=str)
def test_gate_and_up_and_all_else_meet_before_the_one_rounding(parts, dtype):
    all_else_is_rounded_once(parts, dtype)


@pytest.mark.skipif(not INTERPRETED, reason="only Triton's interpreter shows which addresses are read")
@pytest.mark.parametrize("parts", [(), ("int8",), PARTS], ids=str)
@pytest.mark.parametrize(("outputs", "In"), [(1, 1), (5, 33), (7, 64)])
def test_no_row_or_column_past_the_end_is_read(outputs, In, parts):
    nothing_but_the_tensors_is_touched(outputs, In, *parts)


FAULTS = {
    r"x has shape \[2, 1, 48\]; it should be \[1, 1, 48\]": lambda c: {"x": c["x"].repeat(2, 1, 1)},
    r"x has shape \[1, 2, 48\]; it should be \[1, 1, 48\]": lambda c: {"x": c["x"].repeat(1, 2, 1)},
    r"x has shape \[1, 1, 32\]; it should be \[1, 1, 48\]": lambda c: {"x": c["x"][..., :32]},
    r"x has shape \[1, 48\]; it should be \[1, 1, 48\]": lambda c: {"x": c["x"][0]},
    "x is torch.float64": lambda c: {"x": c["x"].double()},
    "x is not contiguous": lambda c: {"x": torch.cat([c["x"], c["x"]], -1)[..., ::2]},
    "weight is a list; it should be a tensor": lambda c: {"weight": [1.0]},
    r"weight has shape \[48\]; it should be \[Out, In\]": lambda c: {"weight": c["weight"][0]},
    r"weight has shape \[0, 48\]; it should be \[Out, In\]": lambda c: {"weight": c["weight"][:0]},
    "weight has rows of 16385; they should have at most 16,384": lambda c: {"weight": c["weight"].new_ones(2, 16385)},
    "weight is torch.bfloat16; it should be torch.float32 or torch.int8": lambda c: {"weight": c["weight"].bfloat16()},
    "weight is not contiguous": lambda c: {"weight": c["weight"].T.contiguous().T},
    "scale is missing, and weight is torch.int8": lambda c: {"weight": c["weight"].to(torch.int8)},
    "scale is given, and weight is torch.float32": lambda c: {"scale": c["bias"]},
    "scale is torch.float16; it should be torch.float32": lambda c: {
        "weight": c["weight"].to(torch.int8),
        "scale": c["bias"].half(),
    },
    r"bias has shape \[10\]; it should be \[20\]": lambda c: {"bias": c["bias"][:10]},
    "bias is torch.float16; it should be torch.float32": lambda c: {"bias": c["bias"].half()},
    r"norm_weight has shape \[20\]; it should be \[48\]": lambda c: {"norm_weight": c["bias"]},
    r"residual has shape \[1, 1, 20\]; it should be \[1, 1, 10\]": lambda c: {"gated": True},
    r"residual has shape \[1, 20\]; it should be \[1, 1, 20\]": lambda c: {"residual": c["residual"][:, 0]},
    "weight has 19 rows; gated, it should have two halves": lambda c: {"weight": c["weight"][:19], "gated": True},
}


@pytest.mark.parametrize("message", FAULTS)
@torch.no_grad()
def test_a_fault_is_told_in_one_sentence(message):
    case = operands(20, 48, "bias", "residual")
    with pytest.raises((TypeError, ValueError), match=message):
        matvec(**case | FAULTS[message](case))


def test_without_gpu_or_interpreter_it_says_so(monkeypatch):
    monkeypatch.setattr("kernels.operators.INTERPRETED", False)
    with pytest.raises(ValueError, match="the kernels run on a CUDA device"):
        matvec(torch.ones(1, 1, 4), torch.ones(2, 4))


@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual", "norm_weight"])
def test_gradients_are_refused(name):
    case = operands(20, 48, "bias", "residual", "norm")
    case[name].requires_grad_()
    with pytest.raises(ValueError, match="matvec makes no gradients"):
        matvec(**case)


SHAPES = {  # outputs, In and parts: the model's, and one that no program's rows divide
    "delta_in": (12_320, 2048, ("norm",)),
    "window_in": (2560, 2048, ("norm", "bias")),
    "delta_out": (2048, 4096, ("residual",)),
    "window_out": (2048, 2048, ("residual",)),
    "gate_up": (11_008, 2048, ("norm", "gated")),
    "down": (2048, 11_008, ("residual",)),
    "ragged": (617, 999, ("norm", "bias", "gated", "residual")),
    "widest": (31, WIDEST, ("norm", "bias", "gated", "residual")),
}


@pytest.mark.gpu
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_16_bits_stay_close_to_float64(shape, dtype, int8):
    outputs, In, parts = SHAPES[shape]
    case = operands(outputs, In, *parts, *(["int8"] if int8 else []), dtype=dtype)
    close(matvec(**case), oracle(**case), tolerance=4e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("int8", [False, True])
@torch.no_grad()
def test_captured_in_a_graph_a_chain_of_them_is_the_same_to_the_bit(int8):
    kind = ["int8"] if int8 else []
    into = operands(512, 512, "norm", "gated", *kind, dtype=torch.bfloat16)
    back = operands(512, 512, "residual", *kind, dtype=torch.bfloat16)
    inputs, x = [Draw(seed).normal(1, 1, 512).to(into["x"]) for seed in range(8)], into["x"].clone()

    def chain(y: Tensor) -> Tensor:
        for _ in range(40):
            y = matvec(**back | {"x": matvec(**into | {"x": y}), "residual": y})
        return y

    eager = [chain(y) for y in inputs]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = chain(x)
    for seed, y in enumerate(inputs):
        x.copy_(y)
        graph.replay()
        assert torch.equal(out, eager[seed]), f"replay {seed}"
