"""The kernels that turn queries and keys against ops/rotary.py and the ring's own write, to the last bit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.rotary import store_turned, turn_in_place
from minivl.ops.rotary import mrope, rope, rotate
from minivl.ops.sliding_window import Ring
from tests.kernels.rules import DEVICE, HALF
from tests.regimes import Draw

SIXTEEN_BITS = torch.float16  # of 16-bit dtypes the interpreter rounds only this one; bfloat16 it cuts off


def ring_of(B: int, heads: int, K: int, *, W: int, R: int, dtype: torch.dtype) -> Ring:
    """A ring that has taken in a different number of tokens in each row."""
    ring = Ring(B, R, heads, K, window=W, dtype=dtype, device=DEVICE)
    before = Draw(7).normal(B, W, heads, K).to(ring.keys)
    ring.write(before, -before, torch.arange(B, device=DEVICE) % (W + 1))
    return ring


def angles(ring: Ring, T: int, K: int) -> tuple[Tensor, Tensor]:
    """Of tokens whose three positions differ, float32."""
    steps = ring.seen[:, None] + torch.arange(T, device=DEVICE)
    positions = torch.stack([steps, 3 * steps + 1, 1000 - steps])
    return tuple(x.float() for x in mrope(positions, width=K, theta=1e4, sections=(K // 2 - 2, 1, 1)))


def heads_of(qkv: Tensor, heads: int, key_heads: int, K: int) -> tuple[Tensor, ...]:
    return tuple(x.unflatten(-1, (-1, K)) for x in qkv.split([heads * K, key_heads * K, key_heads * K], -1))


def check_writes(B, group, Hkv, K, W, room, writes, dtype, *, padded, merged, seed):
    """Some writes, one after the other: the answers and the rings are the same, whatever way they were made."""
    R, Hq, draw = W - 1 + room, group * Hkv, Draw(seed)
    plain, fast = (ring_of(B, Hkv, K, W=W, R=R, dtype=dtype) for _ in range(2))
    for T in writes:
        qkv = draw.normal(B, T, (Hq + 2 * Hkv) * K + 16 * merged).to(DEVICE, dtype)[..., 16 * merged :]
        lengths = torch.randint(0, T + 1, (B,), generator=torch.Generator().manual_seed(seed + T)).to(DEVICE)
        lengths = lengths if padded else None
        cos, sin = angles(plain, T, K)
        q, k, v = heads_of(qkv, Hq, Hkv, K)
        before = fast.seen.clone()
        turned, number = store_turned(qkv, cos, sin, **fast.tensors(), lengths=lengths)
        assert torch.equal(fast.seen, before), "seen has moved"
        fast.seen += T if lengths is None else lengths
        expected, _, _ = plain.write(rotate(k, cos, sin), v, lengths)
        assert torch.equal(turned, rotate(q, cos, sin)), "q"
        assert turned.is_contiguous()
        assert torch.equal(number, expected), "number"
        for name, x in plain.tensors().items():
            assert torch.equal(fast.tensors()[name], x), name


@pytest.mark.parametrize("padded", [False, True])
@given(
    B=st.integers(1, 3), group=st.sampled_from([1, 3, 8]), Hkv=st.integers(1, 2), K=st.sampled_from([16, 32, 48]),
    W=st.integers(1, 9), room=st.integers(1, 12), dtype=st.sampled_from([torch.float32, SIXTEEN_BITS]),
    merged=st.booleans(), seed=st.integers(0, 999),
)  # fmt: skip
def test_a_write_equals_the_rings_own_to_the_bit_past_the_wrap(B, group, Hkv, K, W, room, dtype, padded, merged, seed):
    writes = [1, room, max(1, room // 2), room, 1]
    check_writes(B, group, Hkv, K, W, room, writes, dtype, padded=padded, merged=merged, seed=seed)


def test_a_write_may_fill_the_whole_ring_and_no_tokens_change_nothing():
    check_writes(2, 2, 1, 16, 1, 7, [7, 0, 7, 3, 7], torch.float32, padded=False, merged=True, seed=0)


FAULTS = {
    "qkv has 80 channels; it should have heads of 32 numbers, 2 of k": lambda c: {"qkv": c["qkv"][..., :80]},
    "qkv has 128 channels; it should have heads of 32 numbers, 2 of k": lambda c: {"qkv": c["qkv"][..., :128]},
    r"qkv has shape \[3, 256\]; it should be \[B, T, channels\]": lambda c: {"qkv": c["qkv"][0]},
    r"cos has shape \[2, 3, 16\]; it should be \[2, 3, 32\]": lambda c: {"cos": c["cos"][..., :16]},
    "sin is torch.float64; it should be torch.float32": lambda c: {"sin": c["sin"].double()},
    "keys is torch.float16; it should be torch.float32": lambda c: {"keys": c["keys"].half()},
    "values is not contiguous": lambda c: {"values": c["values"].mT.contiguous().mT},
    r"positions has shape \[2, 8\]; it should be \[2, 9\]": lambda c: {"positions": c["positions"][:, 1:]},
    "seen is torch.int32; it should be torch.int64": lambda c: {"seen": c["seen"].int()},
    r"lengths has shape \[3\]; it should be \[2\]": lambda c: {"lengths": torch.ones(3, dtype=torch.int64)},
    "qkv has 3 tokens; the ring has room for 2": lambda c: {"keys": c["keys"][:, :2]},
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_fault_is_told_in_one_sentence(message):
    ring = ring_of(2, 2, 32, W=5, R=9, dtype=torch.float32)
    cos, sin = angles(ring, 3, 32)
    given = {"qkv": Draw(0).normal(2, 3, 256).to(DEVICE, torch.float32), "cos": cos, "sin": sin, **ring.tensors()}
    with pytest.raises((TypeError, ValueError), match=message):
        store_turned(**given | FAULTS[message](given))


def check_turn(patches, heads, K, dtype, *, gap, seed):
    """In float32 and rounded once; v, and what lies between the rows, stay as they were."""
    wide = Draw(seed).normal(patches, 3 * heads * K + gap).to(DEVICE, dtype)
    positions = torch.arange(patches, device=DEVICE)[None] * 17 % 61
    cos, sin = (x[0].float() for x in rope(positions, width=K, theta=1e4))
    old = wide[:, : 3 * heads * K].unflatten(1, (3 * heads, K)).clone()
    between = wide[:, 3 * heads * K :].clone()
    turn_in_place(wide[:, : 3 * heads * K], cos, sin, heads)
    new = wide[:, : 3 * heads * K].unflatten(1, (3 * heads, K))
    expected = rotate(old[None, :, : 2 * heads].float(), cos[None], sin[None])[0].to(dtype)
    assert torch.equal(new[:, 2 * heads :], old[:, 2 * heads :]), "v"
    assert torch.equal(wide[:, 3 * heads * K :], between), "what lies between the rows"
    assert torch.equal(new[:, : 2 * heads], expected), "q or k"


@given(
    patches=st.integers(0, 9), heads=st.integers(1, 5), K=st.sampled_from([2, 16, 20, 80]),
    dtype=st.sampled_from([torch.float32, SIXTEEN_BITS]), gap=st.sampled_from([0, 3]), seed=st.integers(0, 999),
)  # fmt: skip
def test_turning_in_place_equals_turning_in_float32(patches, heads, K, dtype, gap, seed):
    check_turn(patches, heads, K, dtype, gap=gap, seed=seed)


def test_faults_of_turning_in_place_are_told():
    cos = torch.zeros(4, 16, device=DEVICE)
    with pytest.raises(ValueError, match=r"qkv has shape \[4, 48\]; it should be \[4, 96\]"):
        turn_in_place(torch.zeros(4, 48, device=DEVICE), cos, cos, 2)
    with pytest.raises(ValueError, match="qkv has gaps between its channels"):
        turn_in_place(torch.zeros(48, 4, device=DEVICE).T, cos, cos, 1)
    with pytest.raises(TypeError, match=r"sin is torch.float64; it should be torch.float32"):
        turn_in_place(torch.zeros(4, 48, device=DEVICE), cos, cos.double(), 1)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_on_a_gpu_16_bit_writes_equal_the_rings_own_to_the_bit(dtype, padded):
    writes = [1, 1, 256, 1500, 1, 1500, 7]
    check_writes(2, 8, 2, 128, 700, 1500, writes, dtype, padded=padded, merged=True, seed=3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_on_a_gpu_turning_in_place_rounds_once(dtype):
    check_turn(1024, 16, 80, dtype, gap=0, seed=0)


@pytest.mark.gpu
def test_captured_in_a_graph_a_token_finds_its_slot_at_each_replay():
    plain, fast = (ring_of(2, 2, 128, W=5, R=8, dtype=torch.bfloat16) for _ in range(2))
    qkv = torch.zeros(2, 1, 20 * 128, dtype=torch.bfloat16, device=DEVICE)
    cos, sin = angles(plain, 1, 128)
    store_turned(qkv, cos, sin, **ring_of(2, 2, 128, W=5, R=8, dtype=torch.bfloat16).tensors())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        q, number = store_turned(qkv, cos, sin, **fast.tensors())
        fast.seen += 1
    for t in range(20):
        qkv.copy_(Draw(t).normal(*qkv.shape))
        for kept, new in zip((cos, sin), angles(plain, 1, 128), strict=True):
            kept.copy_(new)
        graph.replay()
        queries, k, v = heads_of(qkv, 16, 2, 128)
        expected, _, _ = plain.write(rotate(k, cos, sin), v)
        assert torch.equal(number, expected), f"token {t}"
        assert torch.equal(q, rotate(queries, cos, sin)), f"token {t}"
        assert all(torch.equal(fast.tensors()[name], x) for name, x in plain.tensors().items()), f"token {t}"
