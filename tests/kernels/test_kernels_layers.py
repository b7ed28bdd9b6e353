"""The kernels between a layer's matrix products against the modules that they stand in for."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from kernels import short_conv as short_conv_kernels
from kernels.gating import add_norm, gated_norm, gated_product, gates, norm, side_by_side
from kernels.short_conv import short_conv_silu, short_convs_silu
from minivl.layers.gated_deltanet import GatedDeltaNet
from minivl.layers.norm import GatedRMSNorm, RMSNorm
from minivl.ops.short_conv import short_conv
from tests.kernels.rules import DEVICE, HALF
from tests.models import small_config
from tests.tolerances import relative_error as error

ROUNDED = [torch.float32, torch.float16]  # the interpreter cuts bfloat16 off instead of rounding it


def draw(*shape, seed=0, dtype=torch.float32, device=DEVICE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def check_conv(B, T, D, taps, carried, lengths, seed, dtype=torch.float32, device=DEVICE, limit=1e-5):
    x, weight = draw(B, T, D, seed=seed, dtype=dtype, device=device), draw(D, 1, taps, seed=seed + 1).to(device, dtype)
    tail = draw(B, taps - 1, D, seed=seed + 2, device=device).to(dtype).float() if carried else None
    exact, exact_tail = short_conv(
        x.double(), weight.double(), tail=None if tail is None else tail.double(), lengths=lengths
    )
    out, new_tail = short_conv_silu(x, weight, tail=tail, lengths=lengths)
    assert error(out, F.silu(exact)) < limit
    assert torch.equal(new_tail.double(), exact_tail)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("carried", [False, True])
@given(
    B=st.integers(1, 3), T=st.integers(0, 40), D=st.integers(1, 140), taps=st.integers(1, 5), seed=st.integers(0, 999)
)
def test_the_convolution_equals_its_op_and_carries_the_same_tail(B, T, D, taps, carried, padded, seed):
    lengths = torch.randint(0, T + 1, (B,), generator=torch.Generator().manual_seed(seed)) if padded else None
    lengths = None if lengths is None else lengths.to(DEVICE)
    check_conv(B, T, D, taps, carried, lengths, seed)


@given(rows=st.integers(0, 30), D=st.integers(1, 300), seed=st.integers(0, 999))
def test_norms_and_product_equal_their_modules(rows, D, seed):
    x, gate = draw(2, rows, D, seed=seed), draw(2, rows, D, seed=seed + 1)
    plain, gated = RMSNorm(D, 1e-6).to(DEVICE).double(), GatedRMSNorm(D, 1e-5).to(DEVICE).double()
    for module in (plain, gated):
        module.weight.data = draw(D, seed=seed + 2).double()
    weight = plain.weight.data.float()
    assert error(norm(x, weight, 1e-6), plain(x.double())) < 1e-5
    assert error(gated_norm(x, gate, weight, 1e-5), gated(x.double(), gate.double())) < 1e-5
    assert error(gated_product(x, gate), x.double() * F.silu(gate.double())) < 1e-5


def check_add_norm(x, y, weight):
    total, normed = add_norm(x, y, weight, 1e-6)
    assert torch.equal(total, x + y)
    assert torch.equal(normed, norm(x + y, weight, 1e-6))


@given(rows=st.integers(0, 30), D=st.integers(1, 300), dtype=st.sampled_from(ROUNDED), seed=st.integers(0, 999))
def test_a_sum_and_its_norm_are_made_as_one_after_the_other_to_the_bit(rows, D, dtype, seed):
    x, y = (draw(2, rows, D, seed=seed + i, dtype=dtype) for i in range(2))
    check_add_norm(x, y, draw(D, seed=seed + 2, dtype=dtype))


def test_a_norm_is_rounded_before_its_weight_multiplies():
    """The released model's order. In float16, where the interpreter rounds as a card does."""
    x, weight = draw(40, 64, dtype=torch.float16), draw(64, seed=1, dtype=torch.float16)
    scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
    released = weight * (x.float() * scale).half()
    once = (weight.float() * x.float() * scale).half()
    out = norm(x, weight, 1e-6)
    assert (out != released).float().mean() < 0.01  # a last place of the root, here and there
    assert (out != once).float().mean() > 0.1


def test_columns_of_a_wider_matrix_are_taken_as_they_are():
    wide = draw(3, 5, 64)
    x, gate, weight = wide[..., :32], wide[..., 32:], draw(32)
    assert torch.equal(gated_product(x, gate), gated_product(x.clone(), gate.clone()))
    assert torch.equal(gated_norm(x, gate, weight, 1e-5), gated_norm(x.clone(), gate.clone(), weight, 1e-5))
    assert torch.equal(norm(x, weight, 1e-5), norm(x.clone(), weight, 1e-5))
    check_add_norm(x, gate, weight)
    conv = draw(32, 1, 4)
    assert torch.equal(short_conv_silu(x, conv)[0], short_conv_silu(x.clone(), conv)[0])


LAYOUTS = {
    "a slice": lambda x: torch.cat([x, x], -1)[..., x.shape[-1] :],
    "heads of a slice": lambda x: torch.cat([x.flatten(2), x.flatten(2)], -1).chunk(2, -1)[1].unflatten(2, x.shape[2:]),
    "in one piece": lambda x: x,
    "axes exchanged": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "gaps": lambda x: torch.stack([x, x], -1)[..., 0],
    "one number again and again": lambda x: x[..., :1].expand_as(x),
}


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", ["a slice", "heads of a slice", "in one piece"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 24), (1, 1, 4, 24)], ids=str)
def test_layout_in_memory_does_not_matter(first, second, shape):
    x, gate, weight = LAYOUTS[first](draw(*shape)), LAYOUTS[second](draw(*shape, seed=1)), draw(24, seed=2)
    alike = x.contiguous(), gate.contiguous()
    for found, expected in (
        (gated_norm(x, gate, weight, 1e-5), gated_norm(*alike, weight, 1e-5)),
        (gated_product(x, gate), gated_product(*alike)),
        (add_norm(x, gate, weight, 1e-5)[1], norm(alike[0] + alike[1], weight, 1e-5)),
        (torch.stack(gates(x, gate, weight, weight)), torch.stack(gates(*alike, weight, weight))),
    ):
        assert torch.equal(found, expected)
        assert found.is_contiguous()


def test_slices_of_a_merged_projection_are_not_copied():
    merged = draw(2, 5, 3 * 48)
    contiguous, slices = draw(2, 5, 48), merged.split(48, -1)
    heads = [x.unflatten(-1, (3, 16)) for x in (contiguous, slices[2])]
    for x, y in ((contiguous, slices[1]), (slices[0], slices[1]), (contiguous, contiguous), heads):
        for operand, taken in zip((x, y), side_by_side(x, y), strict=True):
            assert taken.data_ptr() == operand.data_ptr()


def test_operands_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"the operands have shapes \[2, 8\] and \[2, 6\]; they should be alike"):
        gated_product(draw(2, 8), draw(2, 6))


@given(
    B=st.integers(1, 3), T=st.integers(0, 40), H=st.integers(1, 20), shift=st.sampled_from([-80, -20, -9, 0, 5, 30]),
    seed=st.integers(0, 999), dtype=st.sampled_from([*ROUNDED, torch.bfloat16]),
)  # fmt: skip
def test_gates_keep_their_digits_however_far_out(B, T, H, shift, seed, dtype):
    """softplus(−80) is 1e-35. Each number is right to a millionth of itself, and e^x to x last digits more."""
    merged, A_log, dt_bias = draw(B, T, 2 * H + 3, seed=seed, dtype=dtype), draw(H, seed=seed + 1), draw(H) + shift
    a, b = merged[..., 3 : H + 3], merged[..., H + 3 :]
    log_decay, beta = gates(a, b, A_log, dt_bias.to(dtype))
    argument = (a.float() + dt_bias.to(dtype).float()).double()
    expected = -A_log.double().exp() * (argument.clamp(min=0) + torch.log1p(torch.exp(-argument.abs())))
    for found, oracle, x in ((log_decay, expected, argument), (beta, b.double().sigmoid(), b.double())):
        assert found.dtype == torch.float32
        assert found.shape == oracle.shape
        assert ((found.double() - oracle).abs() <= (1e-6 + 1.2e-7 * x.abs()) * oracle.abs()).all()


@torch.no_grad()
def test_gates_are_the_layers():
    layer = GatedDeltaNet(small_config("linear only")).to(DEVICE)
    x = draw(2, 7, layer.config.hidden_size)
    log_decay, beta = gates(layer.a_proj(x), layer.b_proj(x), layer.A_log, layer.dt_bias)
    expected = layer.gates(x)
    assert error(log_decay, expected["log_decay"].double()) < 1e-6
    assert error(beta, expected["beta"].double()) < 1e-6


def check_convs(B, T, widths, taps, lengths, seed, dtype=torch.float32, device=DEVICE):
    """Each of the three, and its tail in place, is to the bit what it is alone; alone it is held to its op above."""
    projected = draw(B, T, sum(widths) + 5, seed=seed, dtype=dtype, device=device)
    weights = [draw(D, 1, taps, seed=seed + 1 + i, dtype=dtype, device=device) for i, D in enumerate(widths)]
    tails = [draw(B, taps - 1, D, seed=seed + 4 + i, device=device).to(dtype).float() for i, D in enumerate(widths)]
    alone = [
        short_conv_silu(x.contiguous(), weight, tail=tail, lengths=lengths)
        for x, weight, tail in zip(projected.split([*widths, 5], -1)[:3], weights, tails, strict=True)
    ]
    found = short_convs_silu(projected, tuple(weights), tuple(tails), lengths=lengths)
    for name, out, tail, (expected, expected_tail) in zip("qkv", found, tails, alone, strict=True):
        assert out.is_contiguous()
        assert torch.equal(out, expected), name
        assert torch.equal(tail, expected_tail), f"{name}'s tail"


@pytest.mark.parametrize("padded", [False, True])
@given(
    B=st.integers(1, 2), T=st.integers(0, 12), widths=st.permutations([1, 30, 300]),
    taps=st.integers(1, 5), dtype=st.sampled_from(ROUNDED), seed=st.integers(0, 999),
)  # fmt: skip
def test_three_convolutions_of_one_projection_are_each_one_alone(B, T, widths, taps, padded, dtype, seed):
    lengths = torch.randint(0, T + 1, (B,), generator=torch.Generator().manual_seed(seed)) if padded else None
    check_convs(B, T, widths, taps, None if lengths is None else lengths.to(DEVICE), seed, dtype)


@pytest.mark.parametrize("taps", [2, 4])
def test_any_split_of_a_stream_moves_the_tails_on_alike(taps):
    """Pieces shorter than the tail too, and one of nothing; a row without tokens in a piece keeps its tails."""
    widths, pieces = (3, 1, 4), [1, 2, 0, 1, 9]
    projected, weights = draw(2, sum(pieces), 8), tuple(draw(D, 1, taps, seed=D) for D in widths)
    whole, split, paused = (tuple(draw(2, taps - 1, D, seed=9 + D) for D in widths) for _ in range(3))
    expected = short_convs_silu(projected, weights, whole)
    out = [short_convs_silu(piece, weights, split) for piece in projected.split(pieces, 1)]
    for piece in projected.split(pieces, 1):
        idle = piece.masked_fill(torch.tensor([False, True], device=DEVICE)[:, None, None], torch.nan)
        short_convs_silu(idle, weights, paused, lengths=torch.tensor([piece.shape[1], 0], device=DEVICE))
    for i, D in enumerate(widths):
        assert torch.equal(torch.cat([piece[i] for piece in out], 1), expected[i])
        assert torch.equal(split[i], whole[i])
        assert torch.equal(paused[i][0], whole[i][0])
        assert torch.equal(paused[i][1], draw(2, taps - 1, D, seed=9 + D)[1])


def test_a_filter_may_be_longer_than_a_programs_stride():
    check_conv(2, 30, 5, 12, True, None, 0)


@pytest.mark.parametrize("T", [64, 150])
def test_long_pieces_take_long_strides(T, monkeypatch):
    monkeypatch.setattr(short_conv_kernels, "LONG", 64)
    check_conv(1, T, 3, 4, True, None, T)


CONV_FAULTS = {
    r"q's tail has shape \[2, 2, 4\]; it should be \[2, 3, 4\]": lambda p, w, t: (p, w, (t[0][:, 1:], *t[1:])),
    "v's tail is torch.float64; it should be torch.float32": lambda p, w, t: (p, w, (*t[:2], t[2].double())),
    "k's weight or tail is not contiguous": lambda p, w, t: (p, w, (t[0], t[1].mT.contiguous().mT, t[2])),
    r"k's weight has shape \[5, 1, 3\]; it should be \[5, 1, 4\]": lambda p, w, t: (p, (w[0], w[1][..., 1:], w[2]), t),
    "projected has 14 channels; the weights have 15": lambda p, w, t: (p[..., 1:], w, t),
}


@pytest.mark.parametrize("message", CONV_FAULTS)
def test_a_fault_of_the_convolutions_is_told_in_one_sentence(message):
    widths = (4, 5, 6)
    given = draw(2, 3, 15), tuple(draw(D, 1, 4) for D in widths), tuple(draw(2, 3, D) for D in widths)
    with pytest.raises((TypeError, ValueError), match=message):
        short_convs_silu(*CONV_FAULTS[message](*given))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu_16_bits_stay_within_their_rounding(dtype):
    """Rounding once, at the end, is all that these may do; norm rounds twice, as the released model does."""
    place = torch.finfo(dtype).eps
    for T in (1, 7, 3000):
        check_conv(2, T, 4096, 4, True, torch.tensor([T, T // 2], device="cuda"), T, dtype, "cuda", place)
    x, gate = draw(3, 500, 2048, dtype=dtype, device="cuda"), draw(3, 500, 2048, seed=1).to("cuda", dtype)
    weight = draw(2048, seed=2).to("cuda", dtype)
    with torch.no_grad():
        plain, gated = RMSNorm(2048, 1e-6).cuda().double(), GatedRMSNorm(2048, 1e-5).cuda().double()
        plain.weight.data = gated.weight.data = weight.double()
        assert error(norm(x, weight, 1e-6), plain(x.double())) < place
        assert error(gated_norm(x, gate, weight, 1e-5), gated(x.double(), gate.double())) < place
        twice_rounded = plain.to(dtype).weight * F.rms_norm(x, (2048,), eps=1e-6)
        assert (norm(x, weight, 1e-6) != twice_rounded).float().mean() < 1e-3  # where the sums' last digits differ
    assert error(gated_product(x, gate), x.double() * F.silu(gate.double())) < place


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_on_a_gpu_the_fused_forms_equal_the_single_ones_to_the_bit(dtype):
    for T in (1, 2, 3, 7, 256, 3000):
        lengths = None if T == 256 else torch.tensor([T, T // 2], device="cuda")
        check_convs(2, T, (2048, 2048, 4096), 4, lengths, T, dtype, "cuda")
    for D in (1280, 2048):
        x, y = (draw(3, 500, D, seed=seed, device="cuda").to(dtype) for seed in range(2))
        check_add_norm(x, y, draw(D, seed=2, device="cuda").to(dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("T", [1, 256])
def test_captured_in_a_graph_each_equals_eager(T):
    """Of one merged projection, as a layer has it; the tails move on at each replay."""
    widths, dtype = (2048, 2048, 4096), torch.bfloat16
    merged, weight = draw(1, T, 12_320, dtype=dtype, device="cuda"), draw(4096, dtype=dtype, device="cuda")
    weights = tuple(draw(D, 1, 4, seed=D, dtype=dtype, device="cuda") for D in widths)

    def run(tails):
        *_, gate, a, b = merged.split([*widths, 4096, 16, 16], -1)
        q, k, v = short_convs_silu(merged, weights, tails)
        total, normed = add_norm(v, v, weight, 1e-6)
        heads = normed.unflatten(-1, (16, 256)), gate.unflatten(-1, (16, 256))
        return (
            q,
            k,
            v,
            total,
            gated_norm(*heads, weight[:256], 1e-6),
            gated_product(v, gate),
            *gates(a, b, weight[:16], weight[16:32]),
        )

    tails, eager = (tuple(torch.zeros(1, 3, D, device="cuda") for D in widths) for _ in range(2))
    run(tuple(tail.clone() for tail in tails))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run(tails)
    for seed in range(3):
        merged.copy_(draw(1, T, 12_320, seed=seed))
        graph.replay()
        for found, expected in zip((*out, *tails), (*run(eager), *eager), strict=True):
            assert torch.equal(found, expected)
