"""A picture to what the vision tower reads: open, resize, normalise, cut into patches.

`Settings` says within which sizes; `resized` is the rule of sizes; `picture_patches` goes the whole way from wherever
the picture lies. Patches come in merge-block order: block by block of 2×2 patches, row by row, the four of a block one
after another, since the tower's merger makes one token of each block.

    patch[channel, time, row, column] = (pixel / 255 − mean[channel]) / std[channel],  flattened, a still shown twice
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor

from .config import Config
from .fetch import shown
from .picture_files import open_picture

LARGEST_ASPECT = 200
LARGEST_MINIMUM = 1 << 26  # pixels that a small picture may be asked to grow to: 85,000 tokens

# What this code does to every picture. A preprocessor_config.json may leave these keys out, but not say otherwise.
FIXED = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": 3, "rescale_factor": 1 / 255}


@dataclass(frozen=True)
class Settings:
    """How large pictures may be, and what their pixels are scaled to.

    The released checkpoint's preprocessor_config.json allows 3,136 to 12,845,056 pixels. The defaults here are those
    that transformers has where that file is missing: 3,136 to 1,003,520.
    """

    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2

    def __post_init__(self):
        for name in ("min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size"):
            whole_number(name, getattr(self, name))
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels is {self.min_pixels}; it should be at most max_pixels, {self.max_pixels}")
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if not isinstance(numbers, list | tuple) or len(numbers) != 3 or not all(map(_is_number, numbers)):
                raise ValueError(f"image_{name} is {numbers!r}; it should be three numbers: red, green and blue")
            object.__setattr__(self, name, tuple(map(float, numbers)))
        if min(self.std) <= 0:
            raise ValueError(f"image_std is {self.std}; all three should be above 0")

    @property
    def cell(self) -> int:
        """Pixels along a side of a merged cell, which becomes one token."""
        return self.patch_size * self.merge_size

    @classmethod
    def read(cls, folder: str | os.PathLike, config: Config) -> "Settings":
        """The settings in a checkpoint's folder, or the defaults; either must suit the model's vision tower."""
        path = Path(folder) / "preprocessor_config.json"
        vision = config.vision
        built = {
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
        }
        if not path.is_file():
            return cls(**built)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as fault:
            raise ValueError(f"{path} is not readable as JSON: {fault}") from None
        try:
            return cls(**(built | _parse(content, built)))
        except ValueError as fault:
            raise ValueError(f"{path}: {fault}") from None


def _parse(content: dict, built: dict[str, int]) -> dict:
    """What a preprocessor_config.json says, in Settings' names. A key that is null is as good as not there."""
    if not isinstance(content, dict):
        raise ValueError("it should be one object")
    said = {name: value for name, value in content.items() if value is not None}
    for name, value in FIXED.items():
        if said.get(name, value) != value:
            raise ValueError(f"{name} is {said[name]!r}; this model is built for {value!r} only")
    for name, value in built.items():
        if said.get(name, value) != value:
            raise ValueError(f"{name} is {said[name]!r}; config.json's vision_config says {value}")
    size = said.get("size", {})
    if not isinstance(size, dict):
        raise ValueError(f"size is {size!r}; it should be an object of shortest_edge and longest_edge")
    # Newer files tell the numbers of pixels as edges; where both stand, the older name counts, as in transformers.
    both = {"min_pixels": size.get("shortest_edge"), "max_pixels": size.get("longest_edge")}
    both |= {"mean": said.get("image_mean"), "std": said.get("image_std")}
    both |= {name: said[name] for name in ("min_pixels", "max_pixels") if name in said}
    return {name: value for name, value in both.items() if value is not None}


def _is_number(x) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def whole_number(name: str, number) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name} is {number!r}; it should be a whole number of at least 1")


def resized(
    height: int, width: int, *, cell: int = 28, min_pixels: float, max_pixels: float, name: str = "the picture"
) -> tuple[int, int]:
    """Height and width in whole cells, near the aspect ratio, with min_pixels to max_pixels pixels.

    Both sides round to the nearest cell, halves to even. Where that is too large they shrink by one factor and round
    down, where it is too small they grow and round up. A side is never under one cell, so that a picture that is one
    cell thin may stay over max_pixels.
    """
    if min(height, width) < 1:
        raise ValueError(f"{name} is {width}×{height} pixels; it should have at least one")
    if max(height, width) > LARGEST_ASPECT * min(height, width):
        raise ValueError(
            f"{name} is {width}×{height} pixels; its long side should be at most {LARGEST_ASPECT} times its short side"
        )
    rows, columns = round(height / cell), round(width / cell)
    if rows * columns * cell**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows, columns = (max(1, math.floor(side / shrink / cell)) for side in (height, width))
    elif rows * columns * cell**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / cell) for side in (height, width))
    return rows * cell, columns * cell


def pixel_range(
    min_pixels: int | None, max_pixels: int | None, *, default_min: int, default_max: float
) -> tuple[int, float]:
    """A part's own limits where it has them. One that is given alone pushes the other's default aside."""
    for name, number in {"min_pixels": min_pixels, "max_pixels": max_pixels}.items():
        if number is not None:
            whole_number(name, number)
    if min_pixels is not None and min_pixels > LARGEST_MINIMUM:
        raise ValueError(f"min_pixels is {min_pixels:,}; it should be at most {LARGEST_MINIMUM:,}, for memory's sake")
    if min_pixels is not None and max_pixels is not None:
        if min_pixels > max_pixels:
            raise ValueError(f"min_pixels is {min_pixels}; it should be at most max_pixels, {max_pixels}")
        return min_pixels, max_pixels
    if max_pixels is not None:
        return min(default_min, max_pixels), max_pixels
    if min_pixels is not None:
        return min_pixels, max(default_max, min_pixels)
    return default_min, default_max


def picture_patches(
    image, settings: Settings, *, min_pixels: int | None = None, max_pixels: int | None = None
) -> tuple[Tensor, tuple[int, int, int]]:
    """Pixels [patches, 3·2·14·14] in float32 and grid (t, h, w) of one picture, which open_picture opens if need be."""
    name = shown(image) if isinstance(image, str | os.PathLike) else "the picture"
    image = open_picture(image)
    lowest, highest = pixel_range(
        min_pixels, max_pixels, default_min=settings.min_pixels, default_max=settings.max_pixels
    )
    height, width = resized(
        image.height, image.width, cell=settings.cell, min_pixels=lowest, max_pixels=highest, name=name
    )
    frame = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    frames = repeat(frame, "h w c -> time h w c", time=settings.temporal_patch_size)
    grid = (1, height // settings.patch_size, width // settings.patch_size)
    return normalised_patches(frames, settings), grid


def normalised_patches(frames: np.ndarray, settings: Settings) -> Tensor:
    """uint8 frames of one temporal patch [time, H, W, 3] to pixels [patches, 3·time·patch·patch] in float32."""
    patches = rearrange(
        frames,
        "time (h mh ph) (w mw pw) c -> (h w mh mw) c (time ph pw)",
        mh=settings.merge_size,
        ph=settings.patch_size,
        mw=settings.merge_size,
        pw=settings.patch_size,
    )
    values = levels(settings)
    pixels = np.empty(patches.shape, np.float32)
    for channel in range(3):
        np.take(values[channel], patches[:, channel], out=pixels[:, channel], mode="clip")
    return torch.from_numpy(pixels.reshape(len(pixels), -1))


def levels(settings: Settings) -> np.ndarray:
    """What each of a channel's 256 levels is scaled to: [3, 256] in float32.

    Rounded where transformers rounds: pixel / 255 in float64, the rest in float32.
    """
    level = (np.arange(256) * (1 / 255)).astype(np.float32)
    mean, std = (np.array(numbers, dtype=np.float32)[:, None] for numbers in (settings.mean, settings.std))
    return (level - mean) / std


def still_patches(frame: Tensor, values: Tensor, settings: Settings) -> Tensor:
    """normalised_patches of one picture [H, W, 3] shown twice, on the device where it lies. `values` are the levels."""
    channel = torch.arange(3, device=frame.device)
    return repeat(
        values[channel, frame.long()],
        "(h mh ph) (w mw pw) c -> (h w mh mw) (c time ph pw)",
        mh=settings.merge_size,
        ph=settings.patch_size,
        mw=settings.merge_size,
        pw=settings.patch_size,
        time=settings.temporal_patch_size,
    )
