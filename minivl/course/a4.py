"""Assignment 4: the layers around the ops, one hybrid period of them, and a checkpoint's names."""

from collections.abc import Callable

import torch

from . import a4_mistakes
from .a3 import pieces
from .inputs import Draw
from .sources import Edit
from .tasks import Assignment, Check, Question, Task, Variant

CONV, LAYER = "ops.short_conv.short_conv", "layers.gated_deltanet.GatedDeltaNet"
ROTARY, WINDOW = "ops.rotary", "layers.window_attention.WindowAttention"
NAMES = "checkpoint_names"


def conv(about: str, *, tail: bool, longest: int | None) -> Callable:
    def ask(seed: int, T: int) -> Question:
        draw = Draw(seed)
        given = {"x": draw.normal(2, T, 3), "weight": draw.normal(3, 1, 4)}
        given |= {"tail": draw.normal(2, 3, 3)} if tail else {}
        options = {"function": CONV, "pieces": pieces(draw, T, longest) if longest else [T]}
        return Question("conv", given, options, f"{about}, calls of {options['pieces']}")

    return ask


def layer(part: str, function: str, about: str, *, longest: int | None = None, **more) -> Callable:
    def ask(seed: int, T: int) -> Question:
        draw = Draw(seed)
        given = {"x": draw.normal(2, T, 12)}
        if part == "norm":
            given = {"x": draw.normal(2, T, 3, 8), "gate": draw.normal(2, T, 3, 8)}
        if part in ("window", "decoder"):
            given["positions"] = torch.stack([torch.arange(T) + axis * draw.below(9) for axis in (0, 1, 2)])
            given["positions"] = given["positions"][:, None].repeat(1, 2, 1)
        options = {"function": function, "part": part, **more}
        if longest:
            options["pieces"] = pieces(draw, T, longest)
        return Question("layer", given, options, about)

    return ask


def angles(seed: int, T: int) -> Question:
    draw = Draw(seed)
    positions = torch.tensor([[[draw.below(50) for _ in range(T)]] for _ in range(3)])
    options = {"function": f"{ROTARY}.mrope", "width": 12, "theta": 100.0, "sections": [3, 2, 1]}
    return Question(
        "values", {"positions": positions}, options, "sections of 3, 2 and 1 planes, another position on each axis"
    )


def turned(seed: int, T: int) -> Question:
    draw = Draw(seed)
    angle = draw.normal(2, T, 4)
    angle = torch.cat([angle, angle], -1)
    given = {"x": draw.normal(2, T, 3, 8), "cos": angle.cos(), "sin": angle.sin()}
    return Question("values", given, {"function": f"{ROTARY}.rotate"}, "planes (c, c + 4)")


GIVEN = ("model.layers.3.mlp.up_proj.weight", "visual.blocks.0.norm1.weight", "model.embed_tokens.weight",
         "lm_head.weight", "model.visual.merger.mlp.0.bias", "model.language_model.norm.weight")  # fmt: skip
MODEL = {
    "model.language_model.embed_tokens.weight": [5, 3],
    "model.language_model.layers.0.self_attn.o_proj.weight": [3, 4],
    "model.visual.merger.mlp.0.bias": [3],
}
OLD = {name.replace("language_model.", "").replace("model.visual", "visual"): shape for name, shape in MODEL.items()}


def styles(style: str) -> Callable:
    def ask(seed: int, T: int) -> Question:
        return Question("names", {}, {"function": f"{NAMES}.{style}", "given": list(GIVEN)}, "names of both styles")

    return ask


def checkpoint(about: str, change: Callable[[dict, Draw], object] = lambda stored, draw: None) -> Callable:
    """A file of the old or the new style, with this change."""

    def ask(seed: int, T: int) -> Question:
        draw = Draw(seed)
        names = OLD if T == 1 else MODEL
        stored = {name: draw.normal(*shape).float() for name, shape in names.items()}
        change(stored, draw)
        style = "old" if T == 1 else "new"
        options = {"function": f"{NAMES}.match", "model": MODEL}
        return Question("loading", stored, options, f"names of the {style} style, {about}")

    return ask


def transposed(stored: dict, draw: Draw) -> None:
    name = next(name for name in stored if "o_proj" in name)
    stored[name] = stored[name].mT.contiguous()


def embedding(stored: dict) -> torch.Tensor:
    return next(x for name, x in stored.items() if "embed" in name)


def lose(stored: dict, draw: Draw) -> None:
    del stored[list(stored)[draw.below(len(stored))]]


STRICT = {"shrinks": False}
SHORT_CONV = Task(
    number="4.1",
    title="A convolution that streams",
    functions=(CONV,),
    learns="A causal convolution carries its last inputs from call to call, and nothing else.",
    hint="Put the tail before x; a call of one token must still find three older ones in the next tail. SiLU is not "
    "yours: the tail holds inputs. `lengths` (rows with padding) may be left alone. The last tap is the token itself.",
    hours=1.5,
    checks=(
        Check("each output mixes its own and the three inputs before it", 8, conv("no tail", tail=False, longest=None),
              (1, 4, 9)),
        Check("a given tail stands before x", 5, conv("with a tail", tail=True, longest=None), (1, 4, 9)),
        Check("any split into calls gives the same, calls of one token too", 7, conv("cut", tail=True, longest=4),
              (3, 11)),
    ),
    mistakes=a4_mistakes.SHORT_CONV,
)  # fmt: skip

DELTANET = Task(
    number="4.2",
    title="The Gated DeltaNet layer",
    functions=("layers.norm.GatedRMSNorm.forward", "layers.gated_deltanet.ShortConv.forward", f"{LAYER}.gates",
               f"{LAYER}.rule", f"{LAYER}.mix"),
    learns="Where each gate comes from, and the order of norm, gate and projection at the end.",
    hint="Only the mixer `gated_delta` is asked for, in float64, and only without padding (`lengths` None). The scale "
    "K^−½ stands once, in the rule; so does the normalisation of q and k. The order of norm and gate "
    "is in the equation. A memory gives its tails and its state, and is told the new ones by `store`.",
    hours=3,
    checks=(
        Check("the gated norm is its equation", 7, layer("norm", "layers.norm.GatedRMSNorm.forward", "width 8"),
              (1, 4)),
        Check("β = σ(b), log α = −exp(A_log) · softplus(a + dt_bias)", 8, layer("gates", f"{LAYER}.gates", "3 heads"),
              (1, 4)),
        Check("the layer is its equation", 10, layer("linear", f"{LAYER}.mix", "no memory"), (1, 9)),
        Check("with a memory any split into calls gives the same, and leaves the same memory", 10,
              layer("linear", f"{LAYER}.mix", "a memory, cut", longest=4), (5, 11)),
    ),
    mistakes=a4_mistakes.DELTANET,
)  # fmt: skip

BLOCK = Task(
    number="4.3",
    title="Positions, the window layer, the residuals",
    functions=(f"{ROTARY}.mrope", f"{ROTARY}.rotate", f"{WINDOW}.mix", "layers.decoder.DecoderLayer.forward"),
    helpers=(f"{ROTARY}.half_turn",),
    learns="Three axes share the planes; keys are turned before they are stored; each half of a layer adds to x.",
    hint="Plane c is the pair of channels (c, c + K/2) with frequency theta^(−2c/K), c counted through all sections. "
    "Heads are cut from the projections before turning. With a memory use `ring`, without one a window over the call: "
    "`blocked` does it.",
    hours=2.5,
    checks=(
        Check("each plane turns by the position on its own axis", 7, angles, (1, 4), tolerance=1e-7),
        Check("x ∘ cos + half_turn(x) ∘ sin", 4, turned, (1, 3)),
        Check("the window layer is its equation", 4, layer("window", f"{WINDOW}.mix", "no memory"), (1, 9)),
        Check("with a memory any split into calls gives the same, and leaves the same ring", 4,
              layer("window", f"{WINDOW}.mix", "a memory, cut", longest=3), (5, 11)),
        Check("a layer is norm, mixer, residual, norm, feed-forward, residual", 6,
              layer("decoder", "layers.decoder.DecoderLayer.forward", "a linear layer", kind="linear_attention"),
              (1, 5)),
    ),
    mistakes=a4_mistakes.BLOCK,
)  # fmt: skip

LOADING = Task(
    number="4.4",
    title="Strict loading",
    functions=(f"{NAMES}.new_style", f"{NAMES}.old_style", f"{NAMES}.match"),
    helpers=(f"{NAMES}._in_one_dtype", f"{NAMES}._same"),
    learns="A checkpoint that almost fits is worse than none: every name, every shape, or a fault.",
    hint="The six names of the first check are a table of the two styles. match: the model's `state_dict()` has names "
    "and shapes, `listing.tensors` has what is stored; add a fault for whatever is missing, left over, of another "
    "shape, or a head that contradicts the tied embedding (`numbers(stored)` reads it). Return a Match for each "
    "parameter that is fine, with the stored dtype. Shards, mixed styles and dtypes may be left alone.",
    hours=2,
    checks=(
        Check("a name of the older style is translated, and one of the newer stays", 4, styles("new_style"), (1,),
              **STRICT),
        Check("and back", 2, styles("old_style"), (1,), **STRICT),
        Check("every parameter gets its own tensor, from either style", 4, checkpoint("nothing wrong"), (1, 2),
              **STRICT),
        Check("a matrix that lies transposed is a fault", 3, checkpoint("a matrix transposed", transposed), (1, 2),
              **STRICT),
        Check("what is missing, and what is left over, is a fault", 4, checkpoint("a tensor missing", lose), (1, 2),
              **STRICT),
        Check("a head that differs from the tied embedding is a fault, an equal one is not", 3,
              checkpoint("a head", lambda stored, draw: stored.update(
                  {"lm_head.weight": embedding(stored).clone() + draw.below(2)})), (1, 2, 1, 2), **STRICT),
    ),
    mistakes=a4_mistakes.LOADING,
)  # fmt: skip

# The read-out is gated before it is normed.
GATED_FIRST = (
    ("layers.norm", "weight ∘ x / rms(x) ∘ SiLU(gate): norm first, then gate",
     "weight ∘ y / rms(y), y = x ∘ SiLU(gate): gate first, then norm"),
    ("layers.norm.GatedRMSNorm.forward", "unit_mean_square(x, self.eps)",
     "unit_mean_square(x * F.silu(gate), self.eps)"),
    ("layers.norm.GatedRMSNorm.forward", " * F.silu(gate.to(normed.dtype))", ""),
    ("layers.gated_deltanet", "The read-out is normed and gated.", "The read-out is gated and normed."),
    ("layers.gated_deltanet", "W_o (RMSNorm(rule(q/|q| · K^−½, k/|k|, v, α, β)) ∘ SiLU(W_g x))",
     "W_o RMSNorm(rule(q/|q| · K^−½, k/|k|, v, α, β) ∘ SiLU(W_g x))"),
)  # fmt: skip

# The same layers said once more for a GPU.
FAST = ("ready", "lay_out", "write", "is_vector", "longest_row", "one_vector", "more", "matvec", "product",
        "input_matrix", "gate_up_matrix", "middle", "look_back", "decode", "chunks", "slices",
        "conv_weights")  # fmt: skip

A4 = Assignment(
    name="A4",
    title="The hybrid block and its checkpoint",
    summary="What stands around the ops: convolution, gates, positions, residuals, and a checkpoint's names.",
    modules=("layers.decoder", "checkpoint_names"),
    tasks=(SHORT_CONV, DELTANET, BLOCK, LOADING),
    also_blank=tuple(f"layers.fast.{name}" for name in FAST),
    gives_away=("A1", "A2", "A3"),
    variants=(
        Variant(
            "gate before norm",
            "A linear layer's read-out is gated first, and normed then.",
            tuple(Edit(where, right, wrong) for where, right, wrong in GATED_FIRST),
        ),
    ),
)
