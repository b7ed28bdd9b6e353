"""The ladder and the model on a GPU: the CPU's answers, and captured steps that stay right past the wrap."""

import pytest
import torch

from minivl.captured import CapturedStep
from minivl.generate import step as eager_step
from minivl.memory import Memory
from minivl.ops import delta_rule, fused, gated_delta_rule, linear_attention

from .conversations import conversation
from .fakes import tiny_model
from .model_claims import small_model
from .models import PATTERNS, error, in_pieces, new_memory, small_block, tokens
from .regimes import BY_NAME, GATED, Shape

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("regime", GATED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_rung_gives_the_oracle_s_answer(regime, dtype):
    inputs = BY_NAME[regime](Shape(T=150), 0, dtype, "cuda")
    q, k, v, state = (inputs[name] for name in ("q", "k", "v", "state"))
    gates = {name: inputs[name] for name in ("log_decay", "beta")}
    bound = {torch.float64: 1e-8, torch.float32: 1e-5}[dtype]
    for rung, taken in ((linear_attention, {}), (delta_rule, {"beta": gates["beta"]}), (gated_delta_rule, gates)):
        exact = {name: x.double() for name, x in taken.items()}
        oracle = rung.recurrent(q.double(), k.double(), v.double(), state=state.double(), **exact)
        answer = rung.chunked(q, k, v, state=state, **taken)
        for actual, expected in zip(answer, oracle, strict=True):
            assert error(actual, expected) < bound, rung.__name__


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_block_gives_the_cpu_s_answer_in_any_split(pattern):
    x = tokens(2, 60)
    with torch.no_grad():
        oracle = small_block(pattern)(x)
        block = small_block(pattern).cuda()
        assert error(block(x.cuda()).cpu(), oracle) < 1e-10
        assert error(in_pieces(block, x.cuda(), [1, 2, 30]).cpu(), oracle) < 1e-10
        single = small_block(pattern).float().cuda()
        assert error(in_pieces(single, x.float().cuda(), [1, 2, 30]).cpu(), oracle) < 1e-5


def test_a_memory_moves_between_devices_through_a_file(tmp_path):
    block, x = small_block(), tokens(1, 20)
    with torch.no_grad():
        memory = new_memory(block)
        block(x, memory=memory)
        memory.save(tmp_path / "m")
        resumed = Memory.resume(tmp_path / "m", small_block().cuda())
        assert all(x.is_cuda for x in resumed.tensors().values())
        assert error(small_block().cuda()(x.cuda(), memory=resumed).cpu(), block(x, memory=memory)) < 1e-10


@pytest.mark.parametrize("T", [1, 4])
@pytest.mark.parametrize("pattern", ["1 + 3", "window only", "linear only"])
def test_captured_equals_eager_past_the_wrap(pattern, T):
    """One capture, replayed many times round the ring: the counters live on the device, so nothing in it goes stale.

    At these widths the linear layers run the Triton kernels.
    """
    block = small_block(pattern, K=16, dtype=torch.float32).cuda()
    memory, eager_memory = new_memory(block), new_memory(block)
    frame = torch.zeros(1, T, 24, device="cuda")
    with torch.no_grad():
        block(frame, memory=memory.clone())  # first-call set-up stays out of the graph
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = block(frame, memory=memory)
        for turn in range(20):  # capturing ran nothing, so the memory is still empty here
            x = tokens(1, T, turn, torch.float32).cuda()
            frame.copy_(x)
            graph.replay()
            assert torch.equal(out, block(x, memory=eager_memory)), f"turn {turn}"
        for name, kept in eager_memory.tensors().items():
            assert torch.equal(memory.tensors()[name], kept), name
    assert memory.tokens_seen == 20 * T
    if pattern != "window only":
        assert gated_delta_rule.gated_delta_rule.last_backend == ("triton_step" if T == 1 else "triton")


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_captured_token_equals_an_eager_one_past_the_wrap(rows, dtype, fused):
    """Through the whole model, with rows that end before others: what they hold stays as it was."""
    model = tiny_model(dtype).cuda()  # at its widths bf16 runs the Triton kernels
    model = model.fuse() if fused else model
    memory = model.new_memory(rows, longest_write=4)
    eager, step = memory.clone(), CapturedStep(eager_step, model, memory)
    slots = memory.layers[0].keys.shape[1]
    with torch.no_grad():
        for turn in range(3 * slots):
            token = torch.randint(0, 20, (rows,), generator=torch.Generator().manual_seed(turn)).cuda()
            mask = None
            if rows > 1 and turn > slots:
                mask = torch.tensor([True] + (rows - 1) * [turn < 2 * slots], device="cuda")
            scores = step(token, mask)
            assert torch.equal(scores, eager_step(model, eager, token, mask)), f"turn {turn}"
    assert step.alone.graph is not None
    assert (step.masked.graph is not None) == (rows > 1)
    for name, kept in eager.tensors().items():
        assert torch.equal(memory.tensors()[name], kept), name
    assert memory.seen.tolist() == [3 * slots] + (rows - 1) * [2 * slots]
    assert memory._taken == eager._taken


@pytest.mark.parametrize("pattern", ["1 + 3", "teacher"])
def test_the_model_gives_the_cpu_s_logits(pattern):
    row = conversation(3)
    on_gpu = {name: x if x is None else x.cuda() for name, x in row.arguments().items()}
    with torch.no_grad():
        oracle = small_model(pattern)(**row.arguments())
        for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            assert error(small_model(pattern).to(dtype).cuda().fuse()(**on_gpu).cpu(), oracle) < bound, dtype


def test_bf16_by_the_kernels_stays_as_close_as_bf16_without_them(monkeypatch):
    ids = torch.arange(300).remainder(200)[None].cuda()
    with torch.no_grad():
        oracle = tiny_model(torch.float64)(ids.cpu())
        model = tiny_model(torch.bfloat16).cuda()
        by_kernels = error(model(ids).cpu(), oracle)
        monkeypatch.setattr(fused, "kernels", lambda *_: None)
        without = error(model(ids).cpu(), oracle)
    assert by_kernels < 1.2 * without
