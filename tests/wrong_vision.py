"""The wrong table's rows for the vision tower. See wrong.py."""

from types import ModuleType

from . import vision_claims
from .catching import Rung, Wrong
from .editing import Edit
from .vision_claims import MANY, MIXED, ONE, Make, VisionCase

EQUAL = vision_claims.it_equals_the_slice_by_slice_reference
ALONE = vision_claims.pictures_in_one_call_equal_pictures_alone
PERMUTED = vision_claims.permuting_pictures_permutes_the_answers
SLICES = vision_claims.slices_do_not_see_one_another
WINDOWS = vision_claims.without_full_blocks_windows_do_not_see_one_another
FUSED = vision_claims.fusing_changes_nothing_beyond_rounding
SAVED = vision_claims.a_fused_tower_saves_and_loads_the_released_tensors
GRADIENTS = vision_claims.gradients_equal_the_reference_s


def towers_of(module: ModuleType) -> dict[str, Make]:
    return {"tower": vision_claims.tower_of(module.VisionTower)}


def vision_cases(regime: str, dtype) -> list[VisionCase]:
    cells = {"one picture": ONE, "several pictures": MANY, "with video": MIXED}[regime]
    return [VisionCase(cells, seed=seed, side=side) for seed, side in ((0, 2), (3, 3))]


VISION_RUNGS = {"vision": Rung("layers.vision", towers_of, vision_cases)}


def wrong(name: str, where: str, right: str, instead: str, claim, regime: str = "one picture") -> Wrong:
    return Wrong(name, "vision", "tower", Edit(f"layers.{where}", right, instead), claim, regime)


WRONG_VISION = (
    wrong("rows and columns of the windows are swapped", "vision_plan.arrange",
          "cell // width[slice_of], cell % width[slice_of]", "cell % height[slice_of], cell // height[slice_of]",
          EQUAL),
    wrong("rows and columns of the rotation are swapped", "vision_plan.arrange",
          "[rows.flatten(), columns.flatten()]", "[columns.flatten(), rows.flatten()]", EQUAL),
    wrong("the rotation counts from each window's corner", "vision_plan.arrange",
          "rows = row[order, None]", "rows = row[order, None] % side", EQUAL),
    wrong("the rotation takes a cell's patches column by column", "vision_plan.arrange",
          "merge + within // merge", "merge + within % merge", EQUAL),
    wrong("the rotation stands in the pixels' order", "vision_plan.arrange",
          "columns = column[order, None]", "columns = column[:, None]", EQUAL),
    wrong("the axes take turns instead of halves", "vision_plan.rope_of_patches",
          "(half axes planes)", "(half planes axes)", EQUAL),
    wrong("theta is the decoder's", "vision_plan.rope_of_patches", "theta=THETA", "theta=1e6", EQUAL),
    wrong("a window counts patches instead of cells", "vision_plan.arrange",
          "config.window_size // (config.patch_size * merge)", "config.window_size // config.patch_size", WINDOWS),
    wrong("windows reach over several slices", "vision_plan.arrange",
          "slice_of * height.max() + row // side", "row // side", SLICES, "with video"),
    wrong("a window at the right edge goes on in the next row", "vision_plan.arrange",
          "* width.max() + column // side", "* (-(-width // side).max() - 1) + column // side", WINDOWS),
    wrong("full blocks see the whole video", "vision_plan.arrange",
          "by_size(slice_of[order])", "by_size(0 * order)", SLICES, "with video"),
    wrong("full blocks cut where the pixels' slices end", "vision_plan.arrange",
          "by_size(slice_of[order])", "by_size(slice_of)", SLICES, "with video"),
    wrong("groups of one size are taken for one group", "vision_plan.by_size",
          "size[group] * len(size) + group", "size[group]", EQUAL),
    wrong("full blocks are windowed", "vision.VisionBlock.forward",
          "part.slices if self.full else part.windows", "part.windows", EQUAL),
    wrong("window blocks see the whole slice", "vision.VisionBlock.forward",
          "part.slices if self.full else part.windows", "part.slices", WINDOWS),
    wrong("cells stay in window order", "vision.VisionTower.see", "[part.back]", "", EQUAL),
    wrong("cells are put into window order again", "vision.VisionTower.see", "[part.back]", "[part.order]", EQUAL),
    wrong("single patches are put into window order", "vision.VisionTower.see",
          "unflatten(0, (-1, self.config.spatial_merge_size**2))[part.order].flatten(0, 1)",
          "unflatten(0, (self.config.spatial_merge_size**2, -1))[:, part.order].flatten(0, 1)", EQUAL),
    wrong("full blocks leave patches in their own order", "vision.VisionAttention.forward",
          "out if groups.back is None else out[groups.back]", "out", ALONE, "several pictures"),
    wrong("slices are sorted", "vision_plan.plan_of", "deal(slices)", "deal(sorted(slices))", PERMUTED,
          "several pictures"),
    wrong("keys are not turned", "vision.VisionAttention.turned",
          "*turned.chunk(2, dim=1)", "turned[:, : self.heads], projected[:, self.heads : 2 * self.heads]", EQUAL),
    wrong("q, k and v are dealt out by head", "vision.VisionAttention.turned",
          '"patches (H K) -> patches H K", H=3 * self.heads',
          '"patches (H part K) -> patches (part H) K", part=3, H=self.heads', EQUAL),
    wrong("the scale is missing", "vision.attend", "(*batch)", "(*batch, scale=1.0)", EQUAL),
    wrong("later patches are not seen", "vision.attend", "(*batch)", "(*batch, is_causal=True)", EQUAL),
    wrong("the gate is on the other side", "vision.VisionFeedForward.forward",
          "gated_product(up, gate)", "gated_product(gate, up)", EQUAL),
    wrong("the residual is missing", "vision.VisionBlock.forward", "return x, self", "return 0 * x, self", EQUAL),
    wrong("the merger's GELU is the tanh one", "vision.Merger.__init__", "nn.GELU()", 'nn.GELU("tanh")', EQUAL),
    wrong("the merger's norm is over the whole cell", "vision.Merger.forward",
          "self.ln_q.of_sum(x, late)[1].view(-1, self.width)",
          "self.ln_q.weight.repeat(len(self.mlp[0].weight) // len(self.ln_q.weight))"
          " * F.rms_norm((x + late).view(-1, self.width), (self.width,), eps=EPS)", EQUAL),
    wrong("the kernels are flattened time before channel", "vision.PatchEmbed.forward",
          "weight.flatten(1)", "weight.transpose(1, 2).flatten(1)", EQUAL),
    wrong("keys get no gradient", "vision.VisionAttention.turned",
          "*turned.chunk(2, dim=1)", "turned[:, : self.heads], turned[:, self.heads :].detach()", GRADIENTS),
    wrong("fused, gate and up are swapped", "vision.as_fused", '("gate", "up")', '("up", "gate")', FUSED),
    wrong("fused, the last layer is padded in front", "vision.as_fused", "(0, more)", "(more, 0)", FUSED),
    wrong("fused, the biases are padded in front", "vision.as_fused", "x.new_zeros(more, *x.shape[1:])])",
          "x.new_zeros(more, *x.shape[1:])][:: -1 if kind == 'bias' else 1])", FUSED),
    wrong("a fused tower saves its padding in front", "vision.as_released",
          "gate[: layer.inner_width]", "gate[-layer.inner_width :]", SAVED),
)  # fmt: skip
