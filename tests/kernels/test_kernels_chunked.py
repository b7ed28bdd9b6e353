"""The chunked kernels in float32 against the float64 recurrence: on a GPU where there is one, else interpreted."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from kernels import chunked_gated_delta_rule
from minivl.ops.gated_delta_rule import gated_delta_rule
from tests import claims
from tests.cases import by_name, gradients
from tests.kernels.rules import CHUNKED, NORMALIZED, case_of, configured
from tests.regimes import GATED, lengths_around
from tests.tolerances import close

CLAIMS = [claim for claim in claims.claims_of(CHUNKED) if claim is not claims.gradients_equal_finite_differences]


@pytest.mark.parametrize("T", [17, 70])
@pytest.mark.parametrize("regime", GATED)
def test_the_kernels_equal_the_recurrence(regime, T):
    claims.it_equals_the_recurrence(CHUNKED, case_of(regime, T=T, K=32, seed=T))


@pytest.mark.parametrize("T", lengths_around(16))
def test_every_edge_of_time(T):
    claims.it_equals_the_recurrence(CHUNKED, case_of(T=T, K=32))


@pytest.mark.parametrize(("K", "V"), [(16, 256), (256, 16), (64, 32), (256, 256)])
def test_every_width_equals_the_recurrence(K, V):
    claims.it_equals_the_recurrence(NORMALIZED, case_of(B=2, T=35, H=1, K=K, V=V))


@pytest.mark.parametrize("chunk", [32, 64])
@pytest.mark.parametrize("regime", GATED)
def test_every_chunk_length_equals_the_recurrence(regime, chunk):
    """The GPU's 16-bit configurations have longer chunks than float32's, and the inverse more halvings."""
    claims.it_equals_the_recurrence(configured(chunk=chunk), case_of(regime, T=130, H=1, V=32))


@pytest.mark.parametrize("rule", [CHUNKED, NORMALIZED], ids=by_name)
@pytest.mark.parametrize("regime", GATED)
def test_gradients_equal_the_recurrences(regime, rule):
    claims.gradients_equal_the_recurrences(rule, case_of(regime, H=1, V=32))


def test_the_models_widths_equal_the_recurrence_gradients_included():
    case = case_of(T=67, H=1, K=128, V=256)
    claims.it_equals_the_recurrence(NORMALIZED, case)
    claims.gradients_equal_the_recurrences(NORMALIZED, case)


@pytest.mark.parametrize("claim", CLAIMS, ids=by_name)
def test_claim(claim):
    """Every claim that all rungs of the ladder must meet; on a GPU in every regime, interpreted in the hardest."""
    for regime in GATED if torch.cuda.is_available() else ("wide",):
        claim(CHUNKED, case_of(regime, B=2, T=17))


def test_the_dispatcher_reaches_the_kernels():
    inputs = CHUNKED.inputs(case_of())
    answer = gated_delta_rule(**inputs, backend="triton")
    assert gated_delta_rule.last_backend == "triton"
    CHUNKED.agree(case_of(), answer, CHUNKED.truth(inputs, scale=1.0))


def test_spans_of_a_long_input_are_one_input():
    claims.it_equals_the_recurrence(configured(span=32), case_of(B=2, T=101))


@pytest.mark.parametrize(("left", "right"), [(5, 0), (0, 30)])
def test_padding_is_inert_on_either_side(left, right):
    case = case_of(T=40)
    inputs = CHUNKED.inputs(case)
    padded = {
        name: x if name == "state" else torch.nn.functional.pad(x, [0, 0] * (x.ndim - 2) + [left, right])
        for name, x in inputs.items()
    }
    out, state = CHUNKED.answer(case, padded)
    CHUNKED.agree(case, (out[:, left : left + 40], state), CHUNKED.truth(inputs))


def test_the_operator_is_registered_as_pytorch_demands():
    leaves = [x.requires_grad_() for x in CHUNKED.inputs(case_of(T=5)).values()]
    torch.library.opcheck(torch.ops.minivl.chunked_gated_delta_rule.default, (*leaves, 0.5, True))


BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.gpu)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:TensorFloat32")  # inductor's own, as it loads
@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_compile_keeps_the_graph_whole(backend):
    """With fullgraph it would raise where the graph broke."""
    inputs = NORMALIZED.inputs(case_of(T=20))

    def among_others(leaves):
        out, state = chunked_gated_delta_rule(**{name: 1.5 * x for name, x in leaves.items()}, normalize_qk=True)
        return out.relu(), state + 1

    torch._dynamo.reset()
    compiled = torch.compile(among_others, fullgraph=True, backend=backend)
    for found, exact in zip(compiled(inputs), among_others(inputs), strict=True):
        close(found, exact, tolerance=1e-6)
    exact = gradients(among_others, inputs, 0)
    for name, found in gradients(compiled, inputs, 0).items():
        close(found, exact[name], tolerance=1e-6, what=name)


def test_checkpointing_gives_the_same_gradients():
    inputs = CHUNKED.inputs(case_of(T=20))

    def recomputed(leaves):
        return checkpoint(lambda: chunked_gated_delta_rule(**leaves), use_reentrant=False)

    exact = gradients(lambda leaves: chunked_gated_delta_rule(**leaves), inputs, 0)
    for name, found in gradients(recomputed, inputs, 0).items():
        assert torch.equal(found, exact[name]), name


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
    inputs = CHUNKED.inputs(case_of())
    with pytest.raises((TypeError, ValueError), match=message):
        chunked_gated_delta_rule(**inputs | FAULTS[message](inputs))


def test_without_gpu_or_interpreter_it_says_so(monkeypatch):
    monkeypatch.setattr("kernels.operators.INTERPRETED", False)
    inputs = {name: x.cpu() for name, x in CHUNKED.inputs(case_of()).items()}
    with pytest.raises(ValueError, match="the tensors are on cpu; the kernels run on a CUDA device"):
        chunked_gated_delta_rule(**inputs)
