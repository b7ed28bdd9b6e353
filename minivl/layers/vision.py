"""The vision tower, Qwen2.5-VL's: pictures and videos become vectors that the decoder reads in place of words.

A patch is 14 × 14 pixels of two frames (a still picture is its own second frame). 32 blocks let patches see one
another: most within a window of 8 × 8 patches, four within the whole temporal slice. At the end 2 × 2 neighbours are
merged into one vector. The frames of a video never see one another here, except the two of a slice; time is the
decoder's business. Which patch sees which is worked out beforehand, in vision_plan.py.

    x = W_patch pixels      x ← x + attention(norm(x))      x ← x + feed_forward(norm(x))      out = merge(norm(x))

    code     shape                        what
    pixels   [patches, 3·2·14·14]         of all pictures, in order; the patches of a merged cell are adjacent
    grids    [pictures, 3], int64         (time, rows, columns) of each, in patches
    x        [patches, D]                 in window order; D is 1280
    out      [patches / 4, output width]  one vector a merged cell, in the pixels' order
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import VisionConfig
from ..ops import checks, fused
from ..ops.rotary import rotate
from .feed_forward import gated_product
from .norm import RMSNorm
from .vision_plan import Groups, Part, checked, plan_of

EPS = 1e-6
ALIGNED = 64  # bf16 products want widths in whole lines of 128 bytes


class PatchEmbed(nn.Module):
    """A convolution that never overlaps itself is one product of flattened patches with flattened kernels."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        kernel = (config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.in_channels, config.hidden_size, kernel, stride=kernel, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return F.linear(pixels, self.proj.weight.flatten(1))


class VisionAttention(nn.Module):
    """Softmax attention, both ways, within each of the given groups of patches."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, groups: Groups, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = self.turned(self.qkv(x), cos, sin)
        if groups.order is not None:
            q, k, v = (y[groups.order] for y in (q, k, v))
        out = attend(q, k, v, groups.sizes)
        return self.proj(out if groups.back is None else out[groups.back])

    def turned(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """q, k, v [patches, H, K] of their projection, q and k turned by each patch's place."""
        projected = rearrange(qkv, "patches (H K) -> patches H K", H=3 * self.heads)
        if kernels := fused.kernels(qkv, self.qkv.weight):
            kernels.turn_in_place(qkv, cos, sin, self.heads)
            return projected.chunk(3, dim=1)
        turned = rotate(projected[None, :, : 2 * self.heads].to(cos.dtype), cos[None], sin[None])[0].to(qkv.dtype)
        return *turned.chunk(2, dim=1), projected[:, 2 * self.heads :]


def attend(q: Tensor, k: Tensor, v: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """Attention within each group: q, k, v [patches, H, K] → [patches, H·K]. Groups of one size are one batch."""
    runs = [count * size for count, size in sizes]
    out = []
    for (count, _), *run in zip(sizes, *(x.split(runs) for x in (q, k, v)), strict=True):
        batch = (rearrange(x, "(count size) H K -> count H size K", count=count) for x in run)
        out.append(rearrange(F.scaled_dot_product_attention(*batch), "count H size K -> (count size) (H K)"))
    return torch.cat(out) if len(out) > 1 else out[0]


class VisionFeedForward(nn.Module):
    """W_down (SiLU(W_gate x) ∘ W_up x), with biases.

    `fuse` makes one matrix of gate and up, and pads the inner width with zeros up to whole lines of memory. A padded
    channel is SiLU(0) · 0 = 0 and meets zeros in W_down, so the padding is exact.
    """

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.inner_width = config.intermediate_size
        self.gate_proj = nn.Linear(config.hidden_size, self.inner_width)
        self.up_proj = nn.Linear(config.hidden_size, self.inner_width)
        self.down_proj = nn.Linear(self.inner_width, config.hidden_size)
        self.fused = False

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1) if self.fused else (self.gate_proj(x), self.up_proj(x))
        return self.down_proj(gated_product(up, gate))

    def fuse(self) -> None:
        if self.fused:
            return
        tensors, D = self.state_dict(), self.down_proj.out_features
        width = self.inner_width + padding(self.inner_width)
        linear = type(self.gate_proj)  # in whole numbers or not
        self.gate_up_proj = linear(D, 2 * width, device="meta")
        self.down_proj = linear(width, D, device="meta")
        del self.gate_proj, self.up_proj
        self.fused = True
        self.register_state_dict_post_hook(as_released)
        self.register_load_state_dict_pre_hook(as_fused)
        self.load_state_dict(tensors, assign=True)
        self.requires_grad_(False)


def padding(width: int) -> int:
    """How many channels are missing to the next multiple of ALIGNED."""
    return -width % ALIGNED


def as_released(layer: VisionFeedForward, tensors: dict[str, Tensor], prefix: str, _) -> None:
    """What a fused feed-forward saves, in the released names and shapes."""
    for kind in layer.gate_up_proj.state_dict():
        gate, up = tensors.pop(f"{prefix}gate_up_proj.{kind}").chunk(2)
        tensors[f"{prefix}gate_proj.{kind}"] = gate[: layer.inner_width]
        tensors[f"{prefix}up_proj.{kind}"] = up[: layer.inner_width]
    down = f"{prefix}down_proj.weight"
    tensors[down] = tensors[down][:, : layer.inner_width].contiguous()


def as_fused(layer: VisionFeedForward, tensors: dict[str, Tensor], prefix: str, *_) -> None:
    """What a fused feed-forward loads: released tensors, merged and padded. What is missing stays missing."""
    more = padding(layer.inner_width)
    for kind in layer.gate_up_proj.state_dict():
        names = [f"{prefix}{side}_proj.{kind}" for side in ("gate", "up")]
        if all(name in tensors for name in names):
            sides = (tensors.pop(name) for name in names)
            padded = [torch.cat([x, x.new_zeros(more, *x.shape[1:])]) for x in sides]
            tensors[f"{prefix}gate_up_proj.{kind}"] = torch.cat(padded)
    down = f"{prefix}down_proj.weight"
    if down in tensors:
        tensors[down] = F.pad(tensors[down], (0, more))


class VisionBlock(nn.Module):
    def __init__(self, config: VisionConfig, *, full: bool):
        super().__init__()
        self.full = full
        self.norm1 = RMSNorm(config.hidden_size, EPS)
        self.attn = VisionAttention(config)
        self.norm2 = RMSNorm(config.hidden_size, EPS)
        self.mlp = VisionFeedForward(config)

    def forward(self, x: Tensor, late: Tensor | None, part: Part) -> tuple[Tensor, Tensor]:
        """`late` is what the block before adds to x; what this block adds at its end is left to the next one likewise,
        so that a sum and its norm are made together."""
        x, normed = self.norm1.of_sum(x, late)
        groups = part.slices if self.full else part.windows
        x, normed = self.norm2.of_sum(x, self.attn(normed, groups, part.cos, part.sin))
        return x, self.mlp(normed)


class Merger(nn.Module):
    """The patches of one cell, normed and laid end to end, through two layers into the decoder's width."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.width = config.hidden_size * config.spatial_merge_size**2
        self.ln_q = RMSNorm(config.hidden_size, EPS)
        self.mlp = nn.Sequential(
            nn.Linear(self.width, self.width), nn.GELU(), nn.Linear(self.width, config.out_hidden_size)
        )

    def forward(self, x: Tensor, late: Tensor) -> Tensor:
        """`late` is what the last block adds to x."""
        return self.mlp(self.ln_q.of_sum(x, late)[1].view(-1, self.width))


class VisionTower(nn.Module):
    """tower(pixels, grids): any number of pictures and videos of any sizes → one vector a merged cell."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(
            VisionBlock(config, full=number in config.fullatt_block_indexes) for number in range(config.depth)
        )
        self.merger = Merger(config)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pixels: Tensor, grids: Tensor) -> Tensor:
        grids = checked(grids, self.config)
        self.admit(pixels, sum(math.prod(grid) for grid in grids.tolist()))  # before so large a plan is made
        return self.look(pixels, self.plan(grids))

    def plan(self, grids: Tensor) -> tuple[Part, ...]:
        """All that these grids decide, for `look`. A GPU waits once if the grids lie there, and not at all if not."""
        weight = self.patch_embed.proj.weight
        return plan_of(checked(grids, self.config), self.config, device=weight.device, dtype=weight.dtype)

    def look(self, pixels: Tensor, plan: tuple[Part, ...]) -> Tensor:
        """The tower's answer for pictures of this plan: nothing but work on the device, which a CUDA graph can record.

        Keep the plan for as long as the graph: the graph reads the plan's tensors.
        """
        runs = [part.patches for part in plan]
        self.admit(pixels, sum(runs))
        seen = [self.see(x, part) for x, part in zip(pixels.split(runs), plan, strict=True)]
        return torch.cat(seen) if len(seen) > 1 else seen[0]

    def admit(self, pixels: Tensor, patches: int) -> None:
        """The pixels are what the grids say they are."""
        weight = self.patch_embed.proj.weight
        checks.tensor("pixels", pixels, ("patches", self.config.patch_width), weight.dtype)
        checks.same_device(weights=weight, pixels=pixels)
        if len(pixels) != patches:
            raise ValueError(f"pixels has {len(pixels)} patches; by the grids it should have {patches}")

    def see(self, pixels: Tensor, part: Part) -> Tensor:
        x = self.patch_embed(pixels).unflatten(0, (-1, self.config.spatial_merge_size**2))[part.order].flatten(0, 1)
        late = None
        for block in self.blocks:
            x, late = block(x, late, part)
        return self.merger(x, late)[part.back]

    def fuse(self) -> "VisionTower":
        """Widths that a GPU multiplies faster, with the same answers. Inference only; names and shapes that are saved
        stay the released ones."""
        for block in self.blocks:
            block.mlp.fuse()
        return self
