"""The ring's attention kernel against banded attention in float64, and the ring's own PyTorch form."""

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import window, window_attention
from kernels.window_tiles import EXACT, FEW, HOPPER, OTHERS, Configuration, configuration, splits_of
from minivl.ops.sliding_window import Ring, banded
from tests.kernels.rules import DEVICE
from tests.tolerances import relative_error as error

# Both forms of the loop and both ways to the keys, in tiles that the interpreter has done with soon.
SMALL = [Configuration(32, 16, 4, 2, late, tiles) for late in (False, True) for tiles in (False, True)]
SHIPPED = [*FEW, *HOPPER, *OTHERS, EXACT]
LIMIT = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 4e-3}


@contextlib.contextmanager
def tiled(row, splits=None):
    """The kernel with this row of the table, and that many programs to a tile: whatever the card and the dtype."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "configuration", lambda *_, **__: row)
        if splits:
            patch.setattr(window, "splits_of", lambda *_: splits)
        yield


def streamed(q, k, v, cuts, *, W, slots, scale=None):
    """Write and attend piece by piece, the way ops.sliding_window.ring does; what was not written is not a number."""
    memory = Ring(len(q), slots, k.shape[2], k.shape[3], window=W, dtype=k.dtype, device=k.device)
    memory.keys.fill_(torch.nan)
    memory.values.fill_(torch.nan)
    out = []
    for a, b in zip([0, *cuts], [*cuts, q.shape[1]], strict=True):
        number, keys, values = memory.write(k[:, a:b], v[:, a:b])
        out.append(window_attention(q[:, a:b], keys, values, number, window=W, scale=scale))
    return torch.cat(out, 1)


def draw(B, T, group, Hkv, K, seed, dtype=torch.float32, device=DEVICE):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(B, T, group * Hkv, K), (B, T, Hkv, K), (B, T, Hkv, K)]
    return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]


@given(
    B=st.integers(1, 2), T=st.integers(1, 28), group=st.sampled_from([1, 2, 3, 8]), Hkv=st.integers(1, 2),
    K=st.sampled_from([16, 32]), W=st.integers(1, 50), longest=st.integers(1, 20), spare=st.integers(0, 30),
    row=st.sampled_from(SMALL), splits=st.sampled_from([1, 2, 8]), seed=st.integers(0, 999),
)  # fmt: skip
def test_any_split_equals_banded_across_the_wrap(B, T, group, Hkv, K, W, longest, spare, row, splits, seed):
    q, k, v = draw(B, T, group, Hkv, K, seed)
    oracle = banded(q.double(), k.double(), v.double(), window=W)
    with tiled(row, splits):
        out = streamed(q, k, v, list(range(longest, T, longest)), W=W, slots=W - 1 + longest + spare)
    assert error(out, oracle) < 1e-5


@pytest.mark.parametrize(("splits", "row"), [(2, SMALL[0]), (8, SMALL[-1])])
def test_a_split_among_programs_changes_nothing(splits, row):
    q, k, v = draw(2, 75, 2, 1, 64, 0)
    oracle = banded(q.double(), k.double(), v.double(), window=34)
    with tiled(row, splits):  # a ring that is one slot short of whole blocks
        assert error(streamed(q, k, v, [30, 31, 48], W=34, slots=63), oracle) < 1e-5


@pytest.mark.parametrize("row", SHIPPED)
def test_every_shipped_row_equals_banded_past_the_wrap(row):
    q, k, v = draw(1, 150, 2, 1, 16, 0)
    oracle = banded(q.double(), k.double(), v.double(), window=70)
    with tiled(row):
        assert error(streamed(q, k, v, [70, 140, 141], W=70, slots=139), oracle) < 1e-5


@pytest.mark.parametrize("row", SMALL[::3])
def test_a_tile_may_stand_anywhere_among_the_blocks(row):
    """The masks' edges fall on every place of a block once; what lies beyond them is there to be seen by mistake."""
    q, k, v = draw(1, 80, 4, 1, 16, 7)
    oracle = banded(q.double(), k.double(), v.double(), window=43)
    for start in range(56, 56 + row.block):
        piece = slice(start, start + 8)
        with tiled(row):
            out = window_attention(q[:, piece], k, v, torch.arange(80, device=DEVICE)[None, piece], window=43)
        assert error(out, oracle[:, piece]) < 1e-5


@pytest.mark.parametrize("row", SMALL)
@pytest.mark.parametrize("slots", [13, 40])
def test_a_ring_may_be_smaller_than_a_block_or_hold_far_more_than_is_seen(slots, row):
    q, k, v = draw(1, 30, 2, 1, 16, 1)
    oracle = banded(q.double(), k.double(), v.double(), window=4)
    cuts = range(slots - 3, 30, slots - 3)
    with tiled(row):
        assert error(streamed(q, k, v, cuts, W=4, slots=slots), oracle) < 1e-5


@pytest.mark.parametrize("row", SMALL[::3])
@pytest.mark.parametrize("scale", [0.0, -0.7, 2.0])
def test_any_scale_is_banded_s(scale, row):
    q, k, v = draw(1, 30, 2, 1, 16, 4)
    oracle = banded(q.double(), k.double(), v.double(), window=20, scale=scale)
    with tiled(row):
        assert error(streamed(q, k, v, [25], W=20, slots=45, scale=scale), oracle) < 1e-5


@pytest.mark.parametrize("row", SMALL[::3])
def test_without_a_memory_the_keys_are_a_ring_of_their_own_length(row):
    q, k, v = draw(1, 45, 3, 2, 16, 5)
    number = torch.arange(45, device=DEVICE)[None]
    for W in (1, 20, 1000):
        with tiled(row):
            out = window_attention(q, k, v, number, window=W)
        assert error(out, banded(q.double(), k.double(), v.double(), window=W)) < 1e-5


def test_keys_that_tma_cannot_fetch_are_read_by_pointers():
    q, k, v = draw(1, 20, 2, 1, 16, 6)
    number = torch.arange(20, device=DEVICE)[None]
    oracle = banded(q.double(), k.double(), v.double(), window=9)
    askew = torch.empty(k.numel() + 1, device=DEVICE)[1:].view_as(k).copy_(k)
    with tiled(SMALL[-1]):
        assert error(window_attention(q, askew, v, number, window=9), oracle) < 1e-5
        assert error(window_attention(q, k, askew, number, window=9), banded(q, k, k, window=9).double()) < 1e-5


def test_few_queries_are_split_and_many_are_not():
    assert splits_of(programs=2, span=8192, least=256) == 32
    assert splits_of(programs=2, span=8192, least=64) == 128
    assert splits_of(programs=2, span=700, least=256) == 2
    assert splits_of(programs=256, span=8192, least=256) == 1
    assert splits_of(programs=1, span=1, least=64) == 1


def test_only_hopper_fetches_by_tma_and_only_for_many_queries():
    for capability in ((8, 0), (8, 9), (9, 0), (12, 0)):
        for K in (16, 128, 256):
            assert configuration(torch.bfloat16, K, capability, few=False).tiles == (capability == (9, 0))
            assert not configuration(torch.bfloat16, K, capability, few=True).tiles
            assert configuration(torch.float32, K, capability, few=False) == EXACT


@pytest.mark.parametrize("row", SMALL[::3])
def test_rows_of_a_batch_may_be_padded_and_stand_at_different_places_of_their_rings(row):
    first, second = draw(2, 9, 2, 1, 16, 3), draw(2, 25, 2, 1, 16, 2)
    real = (9, 4)
    memory = Ring(2, 31, 1, 16, window=7, dtype=torch.float32, device=DEVICE)
    out = []
    for (q, k, v), lengths in ((first, torch.tensor(real, device=DEVICE)), (second, None)):
        number, keys, values = memory.write(k, v, lengths)
        with tiled(row):
            out.append(window_attention(q, keys, values, number, window=7))
    for one, length in enumerate(real):
        whole = (torch.cat([x[one, :length], y[one]])[None].double() for x, y in zip(first, second, strict=True))
        assert error(torch.cat([out[0][one, :length], out[1][one]])[None], banded(*whole, window=7)) < 1e-5


def test_a_ring_too_large_for_32_bit_offsets_is_refused():
    q = torch.empty(1, 1, 2, 256, device="meta")
    keys = torch.empty(1, 2**23, 1, 256, device="meta")
    with pytest.raises(ValueError, match="keys has 8388608 slots of 1 heads of 256"):
        window_attention(q, keys, keys, torch.empty(1, 1, dtype=torch.int64, device="meta"), window=9)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize("K", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("T", [1, 2, 256, 1500])
def test_on_a_gpu_every_configuration_equals_banded_past_the_wrap(T, K, dtype):
    W, total = 700, 3000
    q, k, v = draw(2, total, 8, 2, K, T, dtype, "cuda")
    oracle = banded(q.double(), k.double(), v.double(), window=W)
    cuts = list(range(T, total, T)) if T > 2 else [1500, 2900, *range(2900 + T, total, T)]
    assert error(streamed(q, k, v, cuts, W=W, slots=W - 1 + 1500), oracle) < LIMIT[dtype]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("K", [16, 64, 128, 256])
def test_on_a_gpu_so_do_other_cards_rows_and_the_pointers_of_hopper_s(K, dtype):
    q, k, v = draw(2, 1000, 8, 2, K, K, dtype, "cuda")
    oracle = banded(q.double(), k.double(), v.double(), window=300)
    for row in (OTHERS[K > 128], HOPPER[K > 128]._replace(tiles=False)):
        with tiled(row):
            assert error(streamed(q, k, v, [501, 750], W=300, slots=800), oracle) < LIMIT[dtype]


@pytest.mark.gpu
@pytest.mark.parametrize("slots", [33, 64, 200])
@pytest.mark.parametrize("group", [1, 3, 16])
def test_on_a_gpu_any_group_and_any_ring_will_do(group, slots):
    q, k, v = draw(3, 500, group, 2, 128, group, torch.bfloat16, "cuda")
    oracle = banded(q.double(), k.double(), v.double(), window=20)
    out = streamed(q, k, v, range(slots - 19, 500, slots - 19), W=20, slots=slots)
    assert error(out, oracle) < LIMIT[torch.bfloat16]


@pytest.mark.gpu
@pytest.mark.parametrize("T", [1, 256])
def test_on_a_gpu_a_captured_call_reads_what_the_ring_holds_at_replay(T):
    W, slots = 500, 900
    q, k, v = draw(1, 3 * 256, 8, 2, 128, T, torch.bfloat16, "cuda")
    memory = Ring(1, slots, 2, 128, window=W, dtype=torch.bfloat16, device="cuda")
    number, keys, values = memory.write(k[:, :T], v[:, :T])
    query, number = q[:, :T].clone(), number.clone()
    window_attention(query, keys, values, number, window=W)  # compiled before the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = window_attention(query, keys, values, number, window=W)
    oracle = banded(q.double(), k.double(), v.double(), window=W)
    for start in range(T, 3 * T, T):
        number.copy_(memory.write(k[:, start : start + T], v[:, start : start + T])[0])
        query.copy_(q[:, start : start + T])
        graph.replay()
        assert error(out, oracle[:, start : start + T]) < LIMIT[torch.bfloat16]


@pytest.mark.gpu
def test_on_a_gpu_the_ring_takes_the_kernel(monkeypatch):
    """Which implementation ran is told by taking the other one away."""
    from minivl.ops import sliding_window

    def refuse(*_):
        raise AssertionError("PyTorch's attention ran")

    monkeypatch.setattr(sliding_window, "attend", refuse)
    q, k, v = draw(1, 40, 2, 2, 32, 0, torch.bfloat16, "cuda")
    with torch.no_grad():
        whole = sliding_window.blocked(q, k, v, window=9)
        memory = Ring(1, 48, 2, 32, window=9, dtype=torch.bfloat16, device="cuda")
        assert error(sliding_window.ring(q, k, v, memory=memory), whole.double()) < 4e-3
