"""What only a GPU can show: the 16-bit kernels, every shipped configuration, and capture in a CUDA graph."""

import dataclasses

import pytest
import torch

from kernels import chunked_gated_delta_rule, configurations
from kernels.backward import backward
from kernels.chunked import forward
from tests import claims
from tests.cases import SCALE
from tests.kernels.rules import CHUNKED, HALF, NORMALIZED, STEP, case_of
from tests.regimes import GATED
from tests.tolerances import close

pytestmark = pytest.mark.gpu

CONFIGURATIONS = [
    pytest.param(row, way, K, dtype, id=f"{name}-{'backward' if way else 'forward'}-K{K}-{str(dtype)[6:]}")
    for name, row, widths, dtypes in (
        ("hopper", configurations.HOPPER, (16, 64, 128), HALF),
        ("narrow", configurations.NARROW, (16, 64, 128), HALF),
        ("wide", configurations.WIDE, (256,), HALF),
        ("narrow_exact", configurations.NARROW_EXACT, (16, 64, 128), [torch.float32]),
        ("wide_exact", configurations.WIDE_EXACT, (256,), [torch.float32]),
    )
    for way in (False, True)
    for K in widths
    for dtype in dtypes
]


@pytest.mark.parametrize(("row", "way", "K", "dtype"), CONFIGURATIONS)
def test_every_configuration_equals_the_recurrence(row, way, K, dtype):
    def configured(q, k, v, *, log_decay, beta, state, scale):
        return forward(q, k, v, log_decay, beta, state, scale, True, row[way])

    rule = dataclasses.replace(NORMALIZED, run=configured)
    for regime, V, T in (("wide", 256, 333), ("wide", 16, 64), ("static", 256, 150), ("bursts", 64, 65)):
        case = case_of(regime, T=T, K=K, V=V, dtype=dtype, seed=K)
        claims.it_equals_the_recurrence(rule, case)
        if way and regime != "static":  # where 16-bit gradients cancel: see docs/kernels.md
            inputs, draw = rule.inputs(case), torch.Generator().manual_seed(1)
            seeds = [torch.randn(x.shape, generator=draw).to(x) for x in (inputs["v"], inputs["state"])]
            leaves = {name: x.double().requires_grad_() for name, x in inputs.items()}
            exact = torch.autograd.grad(
                rule.oracle(**leaves, scale=SCALE), list(leaves.values()), [x.double() for x in seeds]
            )
            found = backward(*inputs.values(), *seeds, SCALE, True, config=row[way])
            for name, a, b in zip(inputs, found, exact, strict=True):
                rule.close(case, a, b, f"the gradient of {name}", of="gradient")


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("regime", GATED)
def test_16_bits_stay_close_at_the_models_widths(regime, dtype):
    claims.it_equals_the_recurrence(NORMALIZED, case_of(regime, T=1000, H=4, K=128, V=256, dtype=dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("regime", ["wide", "layer_at_initialisation", "layer_after_training"])
def test_16_bit_gradients_stay_close(regime, dtype):
    claims.gradients_equal_the_recurrences(NORMALIZED, case_of(regime, T=500, H=4, K=128, V=256, dtype=dtype))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_16_bit_steps_equal_the_recurrence(dtype):
    claims.it_equals_the_recurrence(STEP, case_of(B=3, T=5, H=16, K=128, V=256, dtype=dtype))


def test_captured_in_a_graph_equals_eager():
    inputs = CHUNKED.inputs(case_of(T=300, H=4, K=128, V=256, dtype=torch.bfloat16))
    out, state = chunked_gated_delta_rule(**inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = chunked_gated_delta_rule(**inputs)
    for x in captured:
        x.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured[0], out)
    assert torch.equal(captured[1], state)


def unaligned(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, starting one element past an aligned address."""
    return torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape)


def test_a_launch_remembered_is_not_taken_for_another():
    """Each variant differs from the first in one thing that a kernel is compiled for; all of them, and then again."""
    plain = case_of(T=64, K=64, V=64, dtype=torch.bfloat16)
    variants = {
        "plain": lambda x: x,
        "gates in 16 bits": lambda x: x | {name: x[name].bfloat16() for name in ("log_decay", "beta")},
        "all unaligned": lambda x: {name: unaligned(y) for name, y in x.items()},
        "v unaligned": lambda x: x | {"v": unaligned(x["v"])},
        "float32": lambda x: {name: y.float() for name, y in x.items()},
    }
    for case in (plain, plain.like(T=70), plain.like(H=1), plain.like(V=32)) * 2:
        for name, change in variants.items():
            inputs = change(CHUNKED.inputs(case))
            CHUNKED.agree(case, CHUNKED.answer(case, inputs), CHUNKED.truth(inputs), f", {name},")
            del inputs["state"]
            zeros = torch.zeros_like(CHUNKED.inputs(case)["state"])
            CHUNKED.agree(case, CHUNKED.answer(case, inputs), CHUNKED.truth(inputs | {"state": zeros}), f", {name},")


def test_a_long_input_needs_little_memory_and_keeps_its_digits():
    inputs = CHUNKED.inputs(case_of("layer_at_initialisation", T=40_000, H=2, K=128, V=256, dtype=torch.bfloat16))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out, state = chunked_gated_delta_rule(**inputs)
    beyond = torch.cuda.max_memory_allocated() - before - out.nbytes - state.nbytes
    assert beyond < 60e6  # a span's workspace; all at once it would be over 100 MB
    exact = chunked_gated_delta_rule(**{name: x.float() for name, x in inputs.items()})
    close(out, exact[0], tolerance=4e-3)
    close(state, exact[1], tolerance=3e-3)
