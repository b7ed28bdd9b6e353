"""The wrong table's rows for rotations, layers, blocks and memories. See wrong.py."""

from types import MethodType, ModuleType

import torch

from . import layer_claims, rotary_claims
from .catching import Rung, Wrong
from .editing import Edit, known
from .layer_claims import LayerCase
from .rotary_claims import RotaryCase

LINEAR = layer_claims.a_linear_layer_equals_its_token_by_token_reference
ATTENTION = layer_claims.an_attention_layer_equals_its_token_by_token_reference
BLOCK = layer_claims.a_block_is_norm_mixer_residual_norm_feed_forward_residual
SPLIT = layer_claims.any_split_over_calls_gives_the_answer_of_one_call
DECODING = layer_claims.decoding_equals_prefilling
ROWS = layer_claims.each_row_gives_what_it_gives_alone
REMEMBERS = layer_claims.each_row_remembers_what_it_remembers_alone
RESUMED = layer_claims.saved_and_resumed_equals_uninterrupted
PLANES = rotary_claims.each_plane_turns_by_its_own_axis


def blocks_of(module: ModuleType) -> dict[str, layer_claims.Make]:
    """A maker of small blocks in which every class that `module` has is the module's."""

    def make(case: LayerCase):
        block = layer_claims.real(case)
        for part in block.modules():
            if type(part).__module__ == module.__name__:
                part.__class__ = getattr(module, type(part).__name__)
            elif module.__name__.endswith(".mixer") and hasattr(part, "mix"):
                part.forward = MethodType(module.Mixer.forward, part)
        if module.__name__.endswith(".memory"):

            def new_memory(batch_size=1, **options):
                return module.Memory(block.config, batch_size, dtype=torch.float64, **options)

            block.new_memory = new_memory
        return block

    return {"block": make}


def turns_of(module: ModuleType) -> dict[str, object]:
    return {"turn": lambda x, positions, **shape: module.rotate(x, *module.mrope(positions, **shape))}


def layer_cases(regime: str, dtype) -> list[LayerCase]:
    """`regime` is a pattern of layers, with another rule than the gated one after a comma, or a side of padding."""
    pattern, _, rest = regime.partition(", ")
    options = {"side": rest} if rest in ("right", "scattered") else {"mixer": rest or "gated_delta"}
    return [LayerCase(pattern, T=T, seed=seed, **options) for T in (4, 21) for seed in (1, 2)]


def rotary_cases(regime: str, dtype) -> list[RotaryCase]:
    furthest = {"near": 100, "far": 2_000_000}[regime]
    return [RotaryCase(released, furthest, seed) for released in (True, False) for seed in range(2)]


LAYER_RUNGS = {
    "rotary": Rung("ops.rotary", turns_of, rotary_cases),
    "gated_deltanet": Rung("layers.gated_deltanet", blocks_of, layer_cases),
    "window_attention": Rung("layers.window_attention", blocks_of, layer_cases),
    "norm": Rung("layers.norm", blocks_of, layer_cases),
    "mixer": Rung("layers.mixer", blocks_of, layer_cases),
    "decoder": Rung("layers.decoder", blocks_of, layer_cases),
    "memory": Rung("memory", blocks_of, layer_cases),
}


def wrong(name: str, rung: str, where: str, right: str, instead: str, claim, regime: str = "1 + 3") -> Wrong:
    return shared(name, rung, Edit(where, right, instead), claim, regime)


def shared(name: str, rung: str, edit: Edit, claim, regime: str = "1 + 3") -> Wrong:
    """A row whose edit stands elsewhere: see editing.known."""
    return Wrong(name, rung, "turn" if rung == "rotary" else "block", edit, claim, regime)


WRONG_LAYERS = (
    shared("the axes of M-RoPE are swapped", "rotary", known("4.3", "height and width are swapped"), PLANES, "near"),
    shared("it turns the other way", "rotary", known("4.3", "it turns the other way"), PLANES, "near"),
    shared("pairs are neighbours instead of halves", "rotary", known("4.3", "pairs are neighbours"), PLANES, "near"),
    shared("the frequencies take K/2 for K", "rotary", known("4.3", "the frequencies take K/2 for K"), PLANES, "near"),
    wrong("the angles are made in float32", "rotary", "ops.rotary.mrope",
          "else torch.float64", "else torch.float32", PLANES, "far"),
    shared("keys are not normalised", "gated_deltanet", known("4.2", "keys are not normalised"), LINEAR),
    shared("the scale is applied twice", "gated_deltanet", known("4.2", "the scale is applied twice"), LINEAR),
    wrong("softplus is missing", "gated_deltanet", "layers.gated_deltanet.GatedDeltaNet.gates",
          "F.softplus(", "torch.exp(", LINEAR),
    shared("β is not brought between 0 and 1", "gated_deltanet",
          known("4.2", "β is not squashed"), LINEAR, "1 + 3, delta"),
    shared("the SiLU after the convolution is missing", "gated_deltanet",
          known("4.2", "the SiLU after the convolution is missing"), LINEAR),
    shared("q continues with k's tail", "gated_deltanet", known("4.2", "q continues with k's tail"), SPLIT),
    shared("the state is not handed on", "gated_deltanet", known("4.2", "the state is not handed on"), SPLIT),
    wrong("padding makes the state decay", "gated_deltanet", "layers.gated_deltanet.GatedDeltaNet.mix",
          "{name: gate.masked_fill(padding[..., None], 0) for name, gate in gates.items()}", "gates",
          REMEMBERS, "1 + 3, right"),
    wrong("padding is written", "gated_deltanet", "layers.gated_deltanet.GatedDeltaNet.mix",
          "k.masked_fill(padding[..., None, None], 0)", "k", REMEMBERS, "linear only, linear"),
    wrong("the tails end in padding", "gated_deltanet", "layers.gated_deltanet.ShortConv.forward",
          "tail.to(x.dtype), lengths=lengths", "tail.to(x.dtype), lengths=None", REMEMBERS, "1 + 3, right"),
    shared("keys are stored before they are turned", "window_attention",
          known("4.3", "keys are stored before they are turned"), ATTENTION),
    shared("each call turns from its own start", "window_attention",
          known("4.3", "each call turns from its own start"), SPLIT),
    shared("the axes of M-RoPE are swapped", "window_attention", known("4.3", "the axes are swapped"), ATTENTION),
    wrong("full attention slides", "window_attention", "layers.window_attention.WindowAttention.mix",
          "self.window or max(1, x.shape[1])", "self.config.sliding_window", ATTENTION, "teacher"),
    wrong("padding is written into the ring", "window_attention", "layers.window_attention.WindowAttention.mix",
          "lengths=lengths", "lengths=None", REMEMBERS, "window only, right"),
    wrong("the weight multiplies before the cast", "norm", "layers.norm.RMSNorm.forward",
          "self.weight * F.rms_norm(x, x.shape[-1:], eps=self.eps)",
          "(self.weight * unit_mean_square(x, self.eps)).to(x.dtype)",
          layer_claims.a_norm_is_cast_before_its_weight_multiplies),
    wrong("the gate is applied in half precision", "norm", "layers.norm.GatedRMSNorm.forward",
          "* F.silu(gate.to(normed.dtype))).to(x.dtype)", ").to(x.dtype) * F.silu(gate)",
          layer_claims.a_gated_norm_stays_in_float32_until_its_end),
    shared("the gate comes before the norm", "norm", known("4.2", "the gate comes before the norm"), LINEAR),
    wrong("padding's NaN gets into the mixer", "mixer", "layers.mixer.Mixer.forward",
          "x.masked_fill(~mask[..., None], 0)", "x", REMEMBERS),
    wrong("positions stay where the padding was", "mixer", "layers.mixer.Mixer.forward",
          "positions.gather(2, order.expand_as(positions))", "positions", ROWS),
    wrong("tokens are not moved back", "mixer", "layers.mixer.Mixer.forward",
          "torch.zeros_like(out).scatter(1, back, out)", "out", ROWS),
    shared("the residual is missing", "decoder", known("4.3", "the first residual is missing"), BLOCK),
    wrong("positions start over with each call", "decoder", "layers.decoder.HybridBlock.forward",
          "memory.next_position if memory is not None else", "", DECODING),
    wrong("positions count padding", "decoder", "ops.rotary.text_positions",
          "mask.cumsum(1) - 1", "torch.arange(T, device=start.device)", REMEMBERS),
    wrong("a clone shares its tensors", "memory", "memory.Memory.clone", "copy.deepcopy", "copy.copy",
          layer_claims.a_clone_never_touches_its_source),
    shared("slot positions are not resumed", "memory", known("3.4", "slot positions are not resumed"), RESUMED),
    wrong("a tail is not stored", "memory", "memory.LinearState.store", "self.q_tail.copy_(q_tail)", "pass", SPLIT),
    wrong("padding counts as seen", "memory", "memory.Memory.advance",
          "+= mask.sum(1)", "+= mask.shape[1]", REMEMBERS),
    wrong("padding moves the next position", "memory", "memory.Memory.advance",
          "positions.amax(0).masked_fill(~mask, -1)", "(positions.amax(0) + (~mask).any())", REMEMBERS),
)  # fmt: skip
