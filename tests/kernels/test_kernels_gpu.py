"""What only a GPU can show: the 16-bit kernels, every shipped configuration, and capture in a CUDA graph."""

import pytest
import torch

from kernels import chunked_gated_delta_rule, configurations, step_gated_delta_rule
from kernels.backward import backward
from kernels.chunked import forward
from minivl.ops.gated_delta_rule import recurrent
from tests.kernels.cases import REGIMES, error, gradients, inputs, oracle, seeds_like

pytestmark = pytest.mark.gpu

HALF = [torch.bfloat16, torch.float16]
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
    limit = 1e-5 if dtype == torch.float32 else 1e-2
    for regime, V, T in (("wide", 256, 333), ("wide", 16, 64), ("static", 256, 150), ("strong", 64, 65)):
        case = inputs(regime, T=T, K=K, V=V, dtype=dtype, seed=K)
        options = {"scale": 0.3, "normalize_qk": True}
        found = forward(**case, **options, config=row[way])
        for a, b in zip(found, oracle(case, **options), strict=True):
            assert error(a, b) < limit, (regime, V, T)
        if way and regime != "static":
            seeds = seeds_like(case)
            exact = gradients(recurrent, case, seeds, torch.float64, **options)
            d_inputs = backward(*case.values(), *seeds, 0.3, True, config=row[way])
            for name, a, b in zip(case, d_inputs, exact, strict=True):
                assert error(a, b) < limit, (name, regime, V, T)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("regime", REGIMES)
def test_16_bits_stay_close_at_the_models_widths(regime, dtype):
    case = inputs(regime, T=1000, H=4, K=128, V=256, dtype=dtype)
    exact = oracle(case, scale=128**-0.5, normalize_qk=True)
    out, state = chunked_gated_delta_rule(**case, scale=128**-0.5, normalize_qk=True)
    assert error(out, exact[0]) < (4e-3 if regime == "layer" else 1e-2)
    assert error(state, exact[1]) < (3e-3 if regime == "layer" else 1e-2)


@pytest.mark.parametrize("dtype", HALF)
def test_16_bit_gradients_stay_close(dtype):
    case = inputs("layer", T=500, H=4, K=128, V=256, dtype=dtype)
    seeds = seeds_like(case)
    options = {"scale": 128**-0.5, "normalize_qk": True}
    exact = gradients(recurrent, case, seeds, torch.float64, **options)
    for name, a, b in zip(case, gradients(chunked_gated_delta_rule, case, seeds, **options), exact, strict=True):
        assert error(a, b) < 1e-2, name


@pytest.mark.parametrize("dtype", HALF)
def test_a_16_bit_step_equals_the_recurrence(dtype):
    case = inputs("wide", B=3, T=1, H=16, K=128, V=256, dtype=dtype)
    exact = oracle(case, normalize_qk=True)
    out, state = step_gated_delta_rule(**case, normalize_qk=True)
    assert error(out, exact[0]) < 4e-3
    assert error(state, exact[1]) < 1e-5


def test_captured_in_a_graph_equals_eager():
    case = inputs("wide", T=300, H=4, K=128, V=256, dtype=torch.bfloat16)
    out, state = chunked_gated_delta_rule(**case)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = chunked_gated_delta_rule(**case)
    for x in captured:
        x.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured[0], out)
    assert torch.equal(captured[1], state)


def test_a_long_input_needs_little_memory_and_keeps_its_digits():
    case = inputs("layer", T=40_000, H=2, K=128, V=256, dtype=torch.bfloat16)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    out, state = chunked_gated_delta_rule(**case)
    beyond = torch.cuda.max_memory_allocated() - before - out.nbytes - state.nbytes
    assert beyond < 60e6  # a span's workspace; all at once it would be over 100 MB
    exact = chunked_gated_delta_rule(**{name: x.float() for name, x in case.items()})
    assert error(out, exact[0].double()) < 4e-3
    assert error(state, exact[1].double()) < 3e-3
