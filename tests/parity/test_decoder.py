"""The decoder's layers against transformers' Qwen2.5-VL, weights copied by name: the teacher's own parts."""

import importlib

import pytest
import torch

from minivl.config import DecoderConfig
from minivl.layers.decoder import HybridBlock
from minivl.layers.feed_forward import SwiGLU
from minivl.layers.norm import RMSNorm
from minivl.layers.window_attention import WindowAttention
from tests.tolerances import close

T, WINDOW = 90, 20
CONFIG = DecoderConfig(
    layer_types=("full_attention", "sliding_attention", "sliding_attention"),
    hidden_size=64,
    intermediate_size=160,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    sliding_window=WINDOW,
    mrope_section=(2, 3, 3),
)


def peer(name: str):
    return getattr(importlib.import_module("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"), name)


@pytest.fixture(scope="module")
def model():
    """A random Qwen2.5-VL decoder of CONFIG's shape. No weight keeps the value that it is usually initialised with."""
    configuration = importlib.import_module("transformers.models.qwen2_5_vl.configuration_qwen2_5_vl")
    config = configuration.Qwen2_5_VLTextConfig(
        vocab_size=32,
        num_hidden_layers=len(CONFIG.layer_types),
        layer_types=list(CONFIG.layer_types),
        use_sliding_window=True,
        sliding_window=WINDOW,
        rope_theta=CONFIG.rope_theta,
        rms_norm_eps=CONFIG.rms_norm_eps,
        rope_scaling={"type": "mrope", "mrope_section": list(CONFIG.mrope_section)},
        attn_implementation="eager",
        **{
            name: getattr(CONFIG, name)
            for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
        },
    )
    torch.manual_seed(0)
    model = peer("Qwen2_5_VLTextModel")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            spread = weight.shape[-1] ** -0.5 if weight.ndim == 2 else 0.3
            weight.normal_(mean=float(weight.ndim == 1), std=spread)
        model.norm.weight.fill_(1)  # the block ends before the model's last norm, whose weight shall change nothing
    return model


def picture_positions() -> torch.Tensor:
    """[3, 2, T]: text, a picture of 5 × 8 cells, text; the second row without its first tokens."""
    text = torch.arange(20).expand(3, -1)
    cell = torch.arange(40)
    picture = 20 + torch.stack([torch.zeros_like(cell), cell // 8, cell % 8])
    after = 28 + torch.arange(T + 7 - 60).expand(3, -1)
    row = torch.cat([text, picture, after], dim=1)
    return torch.stack([row[:, :T], row[:, 7:]], dim=1)


def hidden(seed: int = 1) -> torch.Tensor:
    return torch.randn(2, T, CONFIG.hidden_size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_norm_equals_transformers(model):
    own = RMSNorm(CONFIG.hidden_size, CONFIG.rms_norm_eps)
    own.load_state_dict(model.layers[0].input_layernorm.state_dict())
    close(own(hidden()), model.layers[0].input_layernorm(hidden()), tolerance=1e-5)


@torch.no_grad()
def test_feed_forward_equals_transformers(model):
    own = SwiGLU(CONFIG.hidden_size, CONFIG.intermediate_size)
    own.load_state_dict(model.layers[0].mlp.state_dict())
    close(own(hidden()), model.layers[0].mlp(hidden()), tolerance=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1], ids=["full", "sliding"])
def test_attention_with_three_axis_positions_equals_transformers(model, layer):
    theirs = model.layers[layer].self_attn
    own = WindowAttention(CONFIG, full=CONFIG.layer_types[layer] == "full_attention")
    own.load_state_dict(theirs.state_dict())
    x, positions = hidden(), picture_positions()
    distance = torch.arange(T)[:, None] - torch.arange(T)
    visible = (distance >= 0) & (distance < (T if layer == 0 else WINDOW))
    mask = torch.zeros(T, T).masked_fill(~visible, -torch.inf).expand(2, 1, -1, -1)
    out = theirs(x, attention_mask=mask, position_embeddings=model.rotary_emb(x, positions))[0]
    close(own(x, positions=positions), out, tolerance=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("split", [None, (1, 30, 59)], ids=["at_once", "streamed"])
def test_decoder_equals_transformers_masks_and_all(model, split):
    """Their own masks, their own final norm: three layers at once, and ours also through its memory in pieces."""
    own = HybridBlock(CONFIG)
    own.load_state_dict({name: x for name, x in model.state_dict().items() if name.startswith("layers.")})
    x, positions = hidden(), picture_positions()
    theirs = model(inputs_embeds=x, position_ids=positions, use_cache=False).last_hidden_state
    if split is None:
        out = own(x, positions=positions)
    else:
        memory = own.new_memory(2, room=T)
        pieces = zip(x.split(split, 1), positions.split(split, 2), strict=True)
        out = torch.cat([own(piece, positions=where, memory=memory) for piece, where in pieces], dim=1)
    norm = RMSNorm(CONFIG.hidden_size, CONFIG.rms_norm_eps)
    close(norm(out), theirs, tolerance=1e-5)
