"""A checkpoint with random weights in the released form: for people and tests without the real one.

Matrices are drawn so that whatever passes through keeps its size, which at the released width is the usual 0.02; norms
are 1, and gates start as a new layer's do. So numbers stay sane through all layers in bf16, and what the model says
varies. A tensor depends on the seed and its own name only: every layout, and every number of shards, holds the same
numbers. They are drawn and written one tensor at a time.
"""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import config_json
from .checkpoint_names import new_style, old_style
from .config import Config, DecoderConfig, VisionConfig
from .fake_tokenizer import CONTROL, SMALLEST, fake_tokenizer
from .model import InfiniteVL
from .safetensors_writing import Spec, nbytes, write

LAYOUTS = {"new": new_style, "old": old_style}
PIECE = 1 << 24  # numbers drawn at a time

PICTURES = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def tiny_config(**changes) -> Config:
    """Two blocks of everything that the released model has, narrow enough for a CPU to chat with in seconds."""
    tokens = {name: SMALLEST + i for i, name in enumerate(CONTROL)}
    settings = {
        "layer_types": 2 * DecoderConfig.layer_types,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 96,
        "rope_theta": 10.0,
        "mrope_section": (2, 3, 3),
        "num_linear_heads": 2,
        "linear_head_dim": 16,
        "vocab_size": SMALLEST + len(CONTROL),
        "vision": VisionConfig(
            depth=4,
            hidden_size=32,
            intermediate_size=84,
            num_heads=2,
            fullatt_block_indexes=(3,),
            out_hidden_size=64,
        ),
        "image_token_id": tokens["<|image_pad|>"],
        "video_token_id": tokens["<|video_pad|>"],
        "vision_start_token_id": tokens["<|vision_start|>"],
        "vision_end_token_id": tokens["<|vision_end|>"],
        "bos_token_id": tokens["<|endoftext|>"],
        "eos_token_id": tokens["<|im_end|>"],
    }
    return Config(**settings | changes)


def write_fake(
    folder: Path,
    config: Config,
    *,
    seed: int = 0,
    layout: str = "new",
    dtype: torch.dtype = torch.bfloat16,
    shards: int = 1,
    tokenizer: bytes | None = None,
    wrote: Callable[[int], object] = lambda nbytes: None,
) -> None:
    """Write a whole checkpoint's folder: weights, config.json, preprocessor_config.json and a tokenizer.json, the
    made-up one or a given one."""
    specs = {LAYOUTS[layout](name): spec for name, spec in specs_of(config, dtype).items()}
    patches = {
        "patch_size": config.vision.patch_size,
        "temporal_patch_size": config.vision.temporal_patch_size,
        "merge_size": config.vision.spatial_merge_size,
    }
    beside = {
        "config.json": config_json(config, dtype),
        "tokenizer.json": fake_tokenizer(config.bos_token_id) if tokenizer is None else tokenizer,
        "preprocessor_config.json": json.dumps(PICTURES | patches, indent=2).encode(),
    }
    write(
        folder,
        in_shards(specs, shards),
        lambda name: random_tensor(new_style(name), specs[name], seed),
        beside=beside,
        wrote=wrote,
    )


def specs_of(config: Config, dtype: torch.dtype) -> dict[str, Spec]:
    """The name, dtype and shape of each of the model's parameters."""
    with torch.device("meta"):
        model = InfiniteVL(config)
    return {name: (dtype, tuple(x.shape)) for name, x in model.state_dict().items()}


def in_shards(specs: dict[str, Spec], shards: int) -> list[dict[str, Spec]]:
    """The tensors in order, cut into this many files of about one size, none of them empty."""
    if shards > len(specs):
        raise ValueError(f"{shards} shards are too many for {len(specs)} tensors; each should hold one at least")
    out, left, filled = [{}], sum(map(nbytes, specs.values())), 0
    for number, (name, spec) in enumerate(specs.items()):
        files = shards - len(out) + 1  # that share what is left, this one among them
        share = (left + filled) / files
        must = len(specs) - number < files  # so that each of the others gets one
        if out[-1] and files > 1 and (must or filled + nbytes(spec) / 2 > share):
            out.append({})
            filled = 0
        out[-1][name] = spec
        filled += nbytes(spec)
        left -= nbytes(spec)
    return out


def random_tensor(name: str, spec: Spec, seed: int) -> Tensor:
    dtype, shape = spec
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    out = torch.empty(shape, dtype=dtype)
    for piece in out.view(-1).split(PIECE):
        piece.copy_(draw(name, shape, torch.empty(len(piece)), generator))
    return out


def draw(name: str, shape: tuple[int, ...], x: Tensor, generator: torch.Generator) -> Tensor:
    """Fill a piece of the tensor of this name and shape."""
    fan_in = math.prod(shape[1:])
    if name.endswith(".A_log"):
        return x.uniform_(1, 16, generator=generator).log_()
    if name.endswith(".dt_bias"):
        time_step = 10 ** x.uniform_(-3, -1, generator=generator)
        return time_step + torch.log(-torch.expm1(-time_step))
    if "_conv1d." in name:
        return x.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
    if len(shape) == 1:
        return x.normal_(0, 0.02, generator=generator) if name.endswith(".bias") else x.fill_(1)
    return x.normal_(0, fan_in**-0.5, generator=generator)
