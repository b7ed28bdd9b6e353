"""Layers against token-by-token references written straight from the released model's semantics."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.config import MIXERS, DecoderConfig
from minivl.layers.decoder import DecoderLayer, HybridBlock
from minivl.layers.feed_forward import SwiGLU
from minivl.ops.gated_delta_rule import gated_delta_rule

from . import layer_claims
from .layer_claims import BOUND, LayerCase, real
from .models import PATTERNS, error, in_pieces, new_memory, small_block, tokens
from .released import released_shapes

every_pattern = pytest.mark.parametrize("pattern", PATTERNS)
every_mixer = pytest.mark.parametrize("mixer", MIXERS)


@every_mixer
@given(T=st.integers(1, 24), seed=st.integers(0, 99))
def test_a_linear_layer_equals_its_token_by_token_reference(mixer, T, seed):
    case = LayerCase("linear only", mixer, T, seed)
    layer_claims.a_linear_layer_equals_its_token_by_token_reference(real, case)


@pytest.mark.parametrize("pattern", ["window only", "teacher"])
@given(T=st.integers(1, 20), seed=st.integers(0, 99))
def test_an_attention_layer_equals_its_token_by_token_reference(pattern, T, seed):
    case = LayerCase(pattern, T=T, seed=seed)
    layer_claims.an_attention_layer_equals_its_token_by_token_reference(real, case)


@every_pattern
@given(T=st.integers(1, 24), seed=st.integers(0, 99))
def test_a_block_is_norm_mixer_residual_norm_feed_forward_residual(pattern, T, seed):
    case = LayerCase(pattern, T=T, seed=seed)
    layer_claims.a_block_is_norm_mixer_residual_norm_feed_forward_residual(real, case)


def test_a_norm_is_cast_before_its_weight_multiplies():
    layer_claims.a_norm_is_cast_before_its_weight_multiplies(real, LayerCase())


def test_a_gated_norm_stays_in_float32_until_its_end():
    layer_claims.a_gated_norm_stays_in_float32_until_its_end(real, LayerCase())


def test_parameters_have_the_released_names_and_shapes():
    """The default configuration is one released block."""
    with torch.device("meta"):
        block = HybridBlock(DecoderConfig())
    shapes = {name: list(x.shape) for name, x in block.state_dict().items()}
    first_four = tuple(f"layers.{i}." for i in range(4))
    decoder = released_shapes(under="model.language_model.")
    assert shapes == {name: shape for name, shape in decoder.items() if name.startswith(first_four)}
    # The released totals: 9 window mixers, 27 linear mixers, 36 feed-forwards.
    size = {name: math.prod(shape) for name, shape in shapes.items()}
    assert 9 * sum(n for name, n in size.items() if name.startswith("layers.0.self_attn")) == 84_957_696
    assert 27 * sum(n for name, n in size.items() if name.startswith("layers.1.self_attn")) == 908_631_648
    assert 36 * sum(n for name, n in size.items() if name.startswith("layers.1.mlp")) == 2_434_793_472


def test_the_lower_rungs_have_no_parameters_that_they_do_not_use():
    gates = {"gated_delta": {"a_proj.weight", "b_proj.weight", "A_log", "dt_bias"}, "delta": {"b_proj.weight"}}
    for mixer in MIXERS:
        names = set(small_block("linear only", mixer).layers[0].self_attn.state_dict())
        assert names & gates["gated_delta"] == gates.get(mixer, set())


def test_released_memory_of_the_linear_layers_is_56_6_megabytes():
    """27 layers of a float32 state [16, 128, 256]."""
    with torch.device("meta"):
        memory = HybridBlock(DecoderConfig()).new_memory()
    state = memory.layers[1].state
    assert (27 * state.numel() * state.element_size()) == 56_623_104


@every_pattern
@every_mixer
@given(T=st.integers(1, 40), seed=st.integers(0, 99))
def test_any_split_over_calls_gives_the_answer_of_one_call(pattern, mixer, T, seed):
    layer_claims.any_split_over_calls_gives_the_answer_of_one_call(real, LayerCase(pattern, mixer, T, seed))


@every_pattern
@given(T=st.integers(1, 40), seed=st.integers(0, 99))
def test_decoding_equals_prefilling(pattern, T, seed):
    layer_claims.decoding_equals_prefilling(real, LayerCase(pattern, T=T, seed=seed))


@every_pattern
@every_mixer
def test_float32_stays_within_its_bound(pattern, mixer):
    x = tokens(2, 50)
    with torch.no_grad():
        oracle = small_block(pattern, mixer)(x)
        single = small_block(pattern, mixer).float()
        assert error(single(x.float()), oracle) < 1e-5
        assert error(in_pieces(single, x.float(), [7, 8, 31]), oracle) < 1e-5


@every_pattern
@given(T=st.integers(2, 30), seed=st.integers(0, 99), data=st.data())
def test_future_tokens_never_matter(pattern, T, seed, data):
    block = small_block(pattern, seed=seed)
    t = data.draw(st.integers(1, T - 1))
    x = tokens(1, T, seed)
    changed = x.clone()
    changed[:, t:] += 1
    with torch.no_grad():
        assert torch.equal(block(x)[:, :t], block(changed)[:, :t])


@every_pattern
def test_a_permutation_of_the_batch_permutes_the_answer(pattern):
    block, order = small_block(pattern), torch.tensor([2, 0, 1])
    x = tokens(3, 12)
    with torch.no_grad():
        assert error(block(x[order]), block(x)[order]) < 1e-14


@every_pattern
@every_mixer
def test_every_parameter_learns(pattern, mixer):
    block = small_block(pattern, mixer)
    block(tokens(2, 20)).square().sum().backward()
    for name, parameter in block.named_parameters():
        if name.endswith("k_proj.bias"):
            continue  # below: at equal positions it moves all scores of a query alike, so its gradient may vanish
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.norm() > 1e-8, name


def test_gradients_of_a_layer_pass_gradcheck():
    for pattern in ("window only", "linear only"):
        layer = DecoderLayer(small_block(pattern).config, PATTERNS[pattern][0]).double()
        positions = torch.arange(7).expand(3, 1, 7)
        torch.autograd.gradcheck(
            lambda x, layer=layer, positions=positions: layer(x, positions=positions), tokens(1, 7).requires_grad_()
        )


def test_no_tokens_at_all_are_a_call_too():
    block = small_block("all three")
    memory = new_memory(block)
    before = {name: x.clone() for name, x in memory.tensors().items()}
    assert block(tokens(1, 0)).shape == block(tokens(1, 0), memory=memory).shape == (1, 0, 24)
    assert all(torch.equal(x, before[name]) for name, x in memory.tensors().items())


def test_bfloat16_layers_keep_float32_states_and_say_which_rule_ran():
    block = small_block().bfloat16()
    memory = new_memory(block)
    with torch.no_grad():
        out = block(tokens(1, 20, dtype=torch.bfloat16), memory=memory)
    assert out.dtype == torch.bfloat16
    assert memory.layers[0].keys.dtype == torch.bfloat16
    assert {x.dtype for x in memory.layers[1].tensors().values()} == {torch.float32}
    assert gated_delta_rule.last_backend == "chunked"


@pytest.mark.parametrize("mixer", MIXERS)
def test_autocast_leaves_a_rules_products_alone(mixer):
    layer = small_block("linear only", mixer, dtype=torch.float32).layers[0].self_attn
    H, K, V = layer.config.num_linear_heads, layer.config.linear_head_dim, layer.config.linear_value_dim
    q, k, v = (torch.randn(2, 70, H, width) for width in (K, K, V))
    gates = {name: torch.rand(2, 70, H) for name in layer.gates(torch.zeros(2, 70, layer.config.hidden_size))}
    if "log_decay" in gates:
        gates["log_decay"] = -gates["log_decay"]
    plain = layer.rule(q, k, v, state=None, **gates)
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer.rule(q, k, v, state=None, **gates)
    assert all(torch.equal(one, other) for one, other in zip(plain, cast, strict=True))


def test_swiglu_is_its_formula():
    torch.manual_seed(0)
    mlp, x = SwiGLU(8, 12).double(), torch.randn(3, 8, dtype=torch.float64)
    gate = x @ mlp.gate_proj.weight.T
    assert error(mlp(x), (gate * torch.sigmoid(gate) * (x @ mlp.up_proj.weight.T)) @ mlp.down_proj.weight.T) < BOUND


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": ()}, "layer_types is empty"),
        ({"layer_types": ("sliding",)}, "layer_types has 'sliding'; each should be one of sliding_attention, "),
        ({"mixer": "mamba"}, "mixer is 'mamba'; it should be one of linear, delta, gated_delta"),
        ({"sliding_window": 0}, "sliding_window is 0; it should be a whole number of at least 1"),
        ({"num_key_value_heads": 3}, "num_attention_heads is 16; it should be a multiple of num_key_value_heads, 3"),
        ({"mrope_section": (16, 24, 23)}, "mrope_section is .* sum to half of head_dim, 128"),
        ({"expand_v": 0.333}, "expand_v is 0.333; times linear_head_dim, 128"),
        ({"conv_size": 4.0}, "conv_size is 4.0; it should be a whole number"),
    ],
)
def test_a_wrong_configuration_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**change)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"x": tokens(1, 4)[..., :23]}, ValueError, r"x has shape \[1, 4, 23\]; it should be \[B, T, 24\]"),
        ({"x": tokens(1, 4).float()}, TypeError, "x is torch.float32; it should be torch.float64"),
        ({"mask": torch.ones(1, 3, dtype=torch.bool)}, ValueError, r"mask has shape \[1, 3\]; it should be \[1, 4\]"),
        ({"mask": torch.ones(1, 4)}, TypeError, "mask is torch.float32; it should be torch.bool"),
        ({"positions": torch.arange(4)[None]}, ValueError, r"positions has shape \[1, 4\]; it should be \[3, 1, 4\]"),
        ({"x": tokens(2, 4), "memory": new_memory(small_block())}, ValueError, "memory is for a batch of 1; .* 2"),
        (
            {"memory": new_memory(small_block(window=7))},
            ValueError,
            "memory belongs to another configuration: sliding_window is 7 there and 6 here",
        ),
    ],
)
def test_wrong_arguments_of_a_block_are_named(arguments, kind, message):
    with pytest.raises(kind, match=message):
        small_block()(**({"x": tokens(1, 4)} | arguments))


def test_window_attention_without_positions_says_so():
    with pytest.raises(ValueError, match="positions is missing"):
        small_block("window only").layers[0].self_attn(tokens(1, 4))
