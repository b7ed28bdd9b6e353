"""Attention over a sliding window: banded, blocked and the ring, in one write, in any pieces, token by token."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.ops import sliding_window as ops

from . import window_claims
from .cases import by_name
from .regimes import Draw
from .rungs import attentions
from .window_claims import REGIMES, WindowCase, truth, window_cases

BANDED, BLOCKED, RING_AT_ONCE, RING_IN_PIECES, RING_TOKEN_BY_TOKEN, RING_OF_PADDED_ROWS = EVERY = attentions(ops)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("op", EVERY, ids=by_name)
@pytest.mark.parametrize("claim", window_claims.CLAIMS, ids=by_name)
@given(data=st.data())
def test_claim(claim, op, regime, data):
    claim(op, data.draw(window_cases(regime)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("op", EVERY, ids=by_name)
def test_narrower_dtypes_keep_their_tolerance(op, regime, dtype):
    case = WindowCase(regime, T=70, K=16, window=9, slack=4, dtype=dtype)
    window_claims.the_output_keeps_its_dtype(op, case)


@pytest.mark.parametrize("op", [BANDED, BLOCKED, RING_AT_ONCE], ids=by_name)
@given(case=window_cases(shortest=1))
def test_gradients_equal_bandeds(op, case):
    compare_gradients(case, lambda *inputs: op.run(case, *inputs), lambda *inputs: truth(case, *inputs))


@given(case=window_cases(shortest=1))
def test_gradients_of_a_write_reach_its_own_keys_and_stop_at_the_stored_ones(case):
    """One backward pass after all writes: it equals banded's, with the tokens before each write detached."""
    compare_gradients(case, lambda *inputs: in_pieces(case, *inputs), lambda *inputs: banded_in_pieces(case, *inputs))


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_gradients_of_one_input_alone_survive_later_writes(name):
    """The ring overwrites its slots in place, also those that an earlier call's backward pass still needs."""
    case = WindowCase(T=30, window=4, slack=1)
    inputs = dict(zip("qkv", case.inputs(), strict=True))
    gradients = []
    for attention in (in_pieces, banded_in_pieces):
        leaf = inputs[name].clone().requires_grad_()
        out = attention(case, **inputs | {name: leaf})
        gradients.append(torch.autograd.grad(out.square().sum(), leaf)[0])
    case.close(*gradients, f"the gradient of {name}")


def in_pieces(case, q, k, v):
    memory = case.new_ring()
    pieces = case.pieces(memory.longest_write)
    return torch.cat([ops.ring(q[:, now], k[:, now], v[:, now], memory=memory) for now in pieces], 1)


def banded_in_pieces(case, q, k, v):
    out = []
    for now in case.pieces(case.new_ring().longest_write):
        keys, values = (torch.cat([x[:, : now.start].detach(), x[:, now]], 1) for x in (k, v))
        out.append(truth(case, q[:, : now.stop], keys, values)[:, now])
    return torch.cat(out, 1)


def test_padding_spoils_no_gradient():
    """Not even where the padded keys and values are NaN."""
    case = WindowCase(B=2, T=6, window=4, slack=5)
    lengths = torch.tensor([6, 2])
    real = torch.arange(case.T) < lengths[:, None]
    q, k, v = case.inputs()
    k, v = (x.masked_fill(~real[..., None, None], torch.nan) for x in (k, v))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = ops.ring(*leaves, memory=case.new_ring(), lengths=lengths)
    gradients = torch.autograd.grad(out[real].square().sum(), leaves)
    clean = [x.requires_grad_() for x in case.inputs()]
    oracle = torch.autograd.grad(truth(case, *clean)[real].square().sum(), clean)
    for name, actual, expected in zip("qkv", gradients, oracle, strict=True):
        case.close(actual, expected, f"the gradient of {name}")


def compare_gradients(case, run, oracle):
    """All three gradients as one vector: that of q alone is nothing but rounding where only one key is visible."""
    gradients = []
    for attention in (run, oracle):
        leaves = [x.requires_grad_() for x in case.inputs()]
        out = attention(*leaves)
        weight = Draw(case.seed).normal(*out.shape)
        of_each = torch.autograd.grad((out * weight).sum(), leaves, materialize_grads=True)
        gradients.append(torch.cat([gradient.flatten() for gradient in of_each]))
    case.close(*gradients, "the gradient")


def test_gradients_equal_finite_differences():
    case = WindowCase(B=1, T=5, heads=1, K=2, window=3)
    leaves = [x.requires_grad_() for x in case.inputs()]
    for op in (BANDED, BLOCKED, RING_AT_ONCE):
        assert torch.autograd.gradcheck(lambda *inputs, op=op: op.run(case, *inputs), leaves)


@given(case=window_cases())
def test_the_ring_holds_the_newest_tokens_each_in_the_slot_of_its_number(case):
    q, k, v = case.inputs()
    memory = case.new_ring()
    for piece in case.pieces(memory.longest_write):
        ops.ring(q[:, piece], k[:, piece], v[:, piece], memory=memory)
    R = case.window + case.slack
    for slot in range(R):
        newest = max((t for t in range(case.T) if t % R == slot), default=None)
        assert (memory.positions[:, slot] == (-1 if newest is None else newest)).all()
        if newest is not None:
            assert torch.equal(memory.keys[:, slot], k[:, newest])
            assert torch.equal(memory.values[:, slot], v[:, newest])
    assert memory.seen.tolist() == [case.T] * case.B


@given(case=window_cases())
def test_nothing_depends_on_how_long_the_stream_has_run(case):
    """A ring that starts at token number 2⁴⁰ gives what one gives that starts at 0."""
    q, k, v = case.inputs()
    memory = case.new_ring()
    memory.seen += 2**40
    out = [torch.zeros_like(q[:, :0])]
    for piece in case.pieces(memory.longest_write):
        out.append(ops.ring(q[:, piece], k[:, piece], v[:, piece], memory=memory))
    case.close(torch.cat(out, 1), truth(case, q, k, v))


def test_a_write_of_no_real_tokens_changes_nothing():
    case = WindowCase(T=20)
    q, k, v = case.inputs()
    memory = case.new_ring()
    for t in range(20):
        ops.ring(q[:, [t]], k[:, [t]], v[:, [t]], memory=memory)
    before = {name: x.clone() for name, x in memory.tensors().items()}
    nothing = torch.full_like(k[:, :3], torch.nan)
    ops.ring(q[:, :3], nothing, nothing, memory=memory, lengths=torch.zeros(case.B, dtype=torch.int64))
    for name, x in memory.tensors().items():
        assert torch.equal(x, before[name]), f"a write of no real tokens changed the ring's {name}"


def test_a_ring_stores_copies():
    """What is done to k and v after the call does not reach the ring."""
    case = WindowCase(T=4)
    q, k, v = case.inputs()
    memory = case.new_ring()
    ops.ring(q, k, v, memory=memory)
    k.zero_(), v.zero_()
    assert memory.keys[:, :4].abs().min() > 0
    assert memory.values[:, :4].abs().min() > 0


@pytest.mark.gpu
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("op", EVERY, ids=by_name)
@pytest.mark.parametrize("claim", window_claims.CLAIMS, ids=by_name)
def test_claim_on_a_gpu(claim, op, regime):
    claim(op, WindowCase(regime, T=60, K=16, window=9, slack=4, dtype=torch.float32, device="cuda"))


def test_not_a_number_in_the_padding_reaches_no_gradient():
    draw, lengths = Draw(0), torch.tensor([3, 0])
    padding = (torch.arange(5) >= lengths[:, None])[..., None, None]
    inputs = [draw.normal(2, 5, heads, 8).masked_fill(padding, torch.nan).requires_grad_() for heads in (4, 2, 2)]
    memory = ops.Ring(2, 16, 2, 8, window=4, dtype=torch.float64)
    out = ops.ring(*inputs, memory=memory, lengths=lengths)
    grads = torch.autograd.grad(out[0, :3].square().sum(), inputs)
    clean = [x.detach()[:1, :3].requires_grad_() for x in inputs]
    alone = torch.autograd.grad(ops.banded(*clean, window=4).square().sum(), clean)
    for together, row in zip(grads, alone, strict=True):
        assert (together[0, :3] - row[0]).norm() < 1e-10 * row.norm()
        assert (together[0, 3:] == 0).all()
        assert (together[1] == 0).all()
