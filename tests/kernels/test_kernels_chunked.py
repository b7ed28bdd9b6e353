"""The chunked kernels in float32 against the float64 recurrence: on a GPU where there is one, else interpreted."""

import dataclasses

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from kernels import chunked_gated_delta_rule
from kernels.chunked import forward
from kernels.configurations import configuration
from minivl.ops.gated_delta_rule import gated_delta_rule, recurrent
from tests.kernels.cases import REGIMES, error, gradients, inputs, oracle, seeds_like

TOLERANCE = 1e-5


def assert_equals_recurrence(case, **options):
    exact = oracle(case, **options)
    found = chunked_gated_delta_rule(**case, **options)
    assert found[0].dtype == case["v"].dtype
    assert found[1].dtype == torch.float32
    assert error(found[0], exact[0]) < TOLERANCE
    assert error(found[1], exact[1]) < TOLERANCE


@pytest.mark.parametrize("T", [1, 15, 16, 17, 70])
@pytest.mark.parametrize("regime", REGIMES)
def test_the_kernels_equal_the_recurrence(regime, T):
    assert_equals_recurrence(inputs(regime, T=T, K=32, V=16, seed=T), scale=0.3)


@pytest.mark.parametrize(("K", "V"), [(16, 256), (256, 16), (64, 32), (256, 256)])
def test_every_width_equals_the_recurrence(K, V):
    assert_equals_recurrence(inputs("wide", B=2, T=35, H=1, K=K, V=V), scale=0.3, normalize_qk=True)


@pytest.mark.parametrize("chunk", [16, 32, 64])
@pytest.mark.parametrize("regime", REGIMES)
def test_every_chunk_length_equals_the_recurrence(regime, chunk):
    """The GPU's 16-bit configurations have longer chunks than float32's, and the inverse more halvings."""
    case = inputs(regime, T=130, K=16, V=32)
    config = dataclasses.replace(configuration(case["q"]), chunk=chunk)
    found = forward(**case, scale=1.0, normalize_qk=False, config=config)
    for a, b in zip(found, oracle(case), strict=True):
        assert error(a, b) < TOLERANCE


@pytest.mark.parametrize("normalize_qk", [False, True])
@pytest.mark.parametrize("regime", REGIMES)
def test_gradients_equal_the_recurrences(regime, normalize_qk):
    case = inputs(regime, T=37, K=16, V=32)
    options, seeds = {"scale": 0.3, "normalize_qk": normalize_qk}, seeds_like(case)
    exact = gradients(recurrent, case, seeds, torch.float64, **options)
    found = gradients(chunked_gated_delta_rule, case, seeds, **options)
    for name, a, b in zip(case, found, exact, strict=True):
        assert error(a, b) < TOLERANCE, name


def test_the_models_widths_equal_the_recurrence_gradients_included():
    case = inputs("wide", T=67, H=1, K=128, V=256)
    seeds = seeds_like(case)
    assert_equals_recurrence(case, scale=128**-0.5, normalize_qk=True)
    exact = gradients(recurrent, case, seeds, torch.float64, normalize_qk=True)
    for a, b in zip(gradients(chunked_gated_delta_rule, case, seeds, normalize_qk=True), exact, strict=True):
        assert error(a, b) < TOLERANCE


def test_the_dispatcher_reaches_the_kernels():
    case = inputs("wide")
    out, _ = gated_delta_rule(**case, backend="triton")
    assert gated_delta_rule.last_backend == "triton"
    assert error(out, oracle(case)[0]) < TOLERANCE


def test_no_token_leaves_the_state_alone():
    case = inputs("wide", T=0)
    out, state = chunked_gated_delta_rule(**case)
    assert out.shape == case["v"].shape
    assert torch.equal(state, case["state"])
    assert state is not case["state"]


def test_no_state_means_zeros():
    case = inputs("wide")
    del case["state"]
    out, state = chunked_gated_delta_rule(**case)
    exact = recurrent(**{name: x.double() for name, x in case.items()})
    assert error(out, exact[0]) < TOLERANCE
    assert error(state, exact[1]) < TOLERANCE


@pytest.mark.parametrize("cut", [1, 16, 30])
def test_splitting_anywhere_preserves_the_state(cut):
    case = inputs("wide", T=50)
    state, out = case.pop("state"), []
    exact = oracle(case | {"state": state})
    for piece in (slice(cut), slice(cut, None)):
        found, state = chunked_gated_delta_rule(**{name: x[:, piece] for name, x in case.items()}, state=state)
        out.append(found)
    assert error(torch.cat(out, 1), exact[0]) < TOLERANCE
    assert error(state, exact[1]) < TOLERANCE


def test_spans_of_a_long_input_are_one_input():
    case = inputs("wide", B=2, T=101)
    config = dataclasses.replace(configuration(case["q"]), span=32)
    for a, b in zip(forward(**case, scale=1.0, normalize_qk=False, config=config), oracle(case), strict=True):
        assert error(a, b) < TOLERANCE


def test_padding_is_inert_on_either_side():
    case = inputs("wide", T=40)
    out, state = chunked_gated_delta_rule(**case)
    for left, right in ((5, 0), (0, 30)):
        padded = {
            name: x if name == "state" else torch.nn.functional.pad(x, [0, 0] * (x.ndim - 2) + [left, right])
            for name, x in case.items()
        }
        again, after = chunked_gated_delta_rule(**padded)
        assert error(again[:, left : left + 40], out.double()) < TOLERANCE
        assert error(after, state.double()) < TOLERANCE


def test_heads_and_batch_are_independent():
    case = inputs("wide", B=2, T=20, H=3)
    out, state = chunked_gated_delta_rule(**case)
    alone = {name: x[1:, 2:] if name == "state" else x[1:, :, 2:] for name, x in case.items()}  # not contiguous
    out_alone, state_alone = chunked_gated_delta_rule(**alone)
    assert torch.equal(out[1:, :, 2:], out_alone)
    assert torch.equal(state[1:, 2:], state_alone)


def test_inputs_stay_as_they_were():
    case = inputs("wide")
    before = {name: x.clone() for name, x in case.items()}
    chunked_gated_delta_rule(**case)
    assert all(torch.equal(x, before[name]) for name, x in case.items())


def test_the_operator_is_registered_as_pytorch_demands():
    case = inputs("wide", T=5)
    leaves = [x.requires_grad_() for x in case.values()]
    torch.library.opcheck(torch.ops.minivl.chunked_gated_delta_rule.default, (*leaves, 0.5, True))


def test_torch_compile_keeps_the_graph_whole():
    case = inputs("wide", T=20)
    seeds = seeds_like(case)
    compiled = torch.compile(lambda **x: chunked_gated_delta_rule(**x), fullgraph=True, backend="aot_eager")
    exact = gradients(chunked_gated_delta_rule, case, seeds)
    for a, b in zip(gradients(compiled, case, seeds), exact, strict=True):
        assert error(a, b.double()) < 1e-6


def test_checkpointing_gives_the_same_gradients():
    case = inputs("wide", T=20)
    seeds = seeds_like(case)

    def recomputed(**leaves):
        return checkpoint(lambda: chunked_gated_delta_rule(**leaves), use_reentrant=False)

    exact = gradients(chunked_gated_delta_rule, case, seeds)
    for a, b in zip(gradients(recomputed, case, seeds), exact, strict=True):
        assert torch.equal(a, b)


FAULTS = {
    "K is 8; it should be one of 16, 32, 64, 128, 256": lambda c: {"q": c["q"][..., :8], "k": c["k"][..., :8]},
    r"k has shape \[1, 9, 2, 16\]; it should be \[1, 37, 2, 16\]": lambda c: {"k": c["k"][:, :9]},
    r"v has shape \[37, 2, 16\]; it should be \[B, T, H, V\]": lambda c: {"v": c["v"][0]},
    "q is torch.float64; it should be torch.bfloat16 or": lambda c: {name: c[name].double() for name in "qkv"},
    "k is torch.bfloat16; it should be torch.float32": lambda c: {"k": c["k"].bfloat16()},
    "beta is torch.float64; it should be torch.float32": lambda c: {"beta": c["beta"].double()},
    "state is torch.bfloat16; it should be torch.float32": lambda c: {"state": c["state"].bfloat16()},
    r"state has shape \[1, 2, 16, 8\]; it should be \[1, 2, 16, 16\]": lambda c: {"state": c["state"][..., :8]},
    "q is a list; it should be a tensor": lambda c: {"q": [1.0]},
    "beta is a float; it should be a tensor": lambda c: {"beta": 0.5},
    "scale is 'x'; it should be a number": lambda c: {"scale": "x"},
    "log_decay is on meta; it should be on": lambda c: {"log_decay": c["log_decay"].to("meta")},
}


@pytest.mark.parametrize("message", FAULTS)
def test_every_fault_is_told_in_one_sentence(message):
    case = inputs("wide")
    with pytest.raises((TypeError, ValueError), match=message):
        chunked_gated_delta_rule(**case | FAULTS[message](case))


def test_without_gpu_or_interpreter_it_says_so(monkeypatch):
    monkeypatch.setattr("kernels.operators.INTERPRETED", False)
    case = {name: x.cpu() for name, x in inputs("wide").items()}
    with pytest.raises(ValueError, match="q is on cpu; the kernels run on a CUDA device"):
        chunked_gated_delta_rule(**case)
