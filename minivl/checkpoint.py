"""A model from a checkpoint's folder, and back: strict about names, shapes and numbers, and never a rounded weight.

The folder holds config.json and safetensors, in either of the two styles of names that transformers has used. The
model is first built without memory; then one tensor after the other goes from the file to the device, where one glance
at its largest and smallest number tells whether all are finite. What is wrong with a checkpoint is told all at once,
and a model is returned only if nothing is.

    released, new style          released, old style
    model.visual.…               visual.…
    model.language_model.…       model.…
    lm_head.weight               lm_head.weight       only where not tied to the embeddings, or equal to them
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from . import config_file, safetensors_reading
from .checkpoint_names import Faults, Match, match
from .config import Config
from .layers.int8 import is_quantised, matrices, quantised, replace
from .model import InfiniteVL
from .safetensors_writing import CODES, Spec, make_folder, nbytes, write
from .source import checkpoint_folder

QUIET = {"delay": 2, "leave": False, "disable": None}  # a bar for people only, and only for work over two seconds
# What a folder needs beside the model's own files, so that words and pictures can be read.
PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
)


def load(source: str | os.PathLike, *, device=None, dtype: torch.dtype | None = None, int8: bool | str = False):
    """(model, processor) of a checkpoint's folder; see `load_model`."""
    from .processor import load_processor  # the way to a model alone needs no tokenizer

    processor = load_processor(source)
    return load_model(source, device=device, dtype=dtype, int8=int8), processor


def load_model(
    source: str | os.PathLike,
    *,
    device=None,
    dtype: torch.dtype | None = None,
    allow_extra: bool = False,
    int8: bool | str = False,
) -> InfiniteVL:
    """The model of a checkpoint's folder, on `device` (a GPU if there is one) and in `dtype` (as stored).

    A_log and dt_bias are never rounded: they are wider than the rest where they are stored so. `allow_extra` ignores
    tensors that the model doesn't have. With `int8` the decoder's matrices and the table of words become int8 on their
    way to the device, which never holds more than a piece of one as stored; with "all" the vision tower's do too.
    """
    folder = checkpoint_folder(source)
    config = config_file.read(folder)
    device = usable_device(device)
    if dtype is not None and dtype not in CODES:
        raise TypeError(f"dtype is {dtype!r}; it should be one of {', '.join(map(str, CODES))}")
    if int8 not in (False, True, "all"):
        raise ValueError(f'int8 is {int8!r}; it should be True, False or "all"')
    listing = safetensors_reading.listing(folder)
    with torch.device("meta"):
        model = InfiniteVL(config)
    faults = Faults()
    plan = match(listing, model, faults, dtype=dtype, allow_extra=allow_extra)
    in_int8 = _weights_of(matrices(model, vision=int8 == "all")) if int8 else set()
    try:
        weights = _weights(plan, device, faults, in_int8)
    except torch.OutOfMemoryError:
        instead = "" if int8 else f"; in int8 they would be {_needed(plan, _weights_of(matrices(model))):.2f} GB"
        has = f"{_needed(plan, in_int8):.2f} GB of weights"
        raise ValueError(f"{folder} has {has}, more than {device} has free{instead}") from None
    faults.raise_any(folder)
    for found in plan:
        if found.name in in_int8:
            replace(model, found.name.removesuffix(".weight"), dtype=found.dtype)
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(not int8)


def save_model(
    model: InfiniteVL,
    folder: str | os.PathLike,
    *,
    shard_bytes: int = 5_000_000_000,
    processor_from: str | os.PathLike | None = None,
) -> None:
    """Write config.json and the weights, bit for bit, in shards of at most `shard_bytes`.

    A tokenizer and a picture processor are not the model's: `processor_from` names a checkpoint's folder whose files of
    theirs are copied. Other files in `folder` stay as they are; an earlier checkpoint of this kind is replaced.
    """
    if is_quantised(model):
        raise ValueError(
            "the model has int8 matrices, which no released checkpoint holds; load it without int8 to save it"
        )
    if any(".lora_" in name for name, _ in model.named_parameters()):
        raise ValueError("the model has adapters, which no released checkpoint holds; merge them to save it")
    folder = Path(folder)
    _make_ready(folder)
    tensors = model.state_dict()
    specs = {name: (x.dtype, tuple(x.shape)) for name, x in tensors.items()}
    for name, x in tensors.items():
        if x.is_meta or x.dtype not in CODES:
            what = "on the meta device, without numbers" if x.is_meta else f"{x.dtype}, which no checkpoint here has"
            raise ValueError(f"the model's {name} is {what}; it can't be saved")
    if not isinstance(shard_bytes, int) or shard_bytes < 1:
        raise ValueError(f"shard_bytes is {shard_bytes!r}; it should be a whole number of at least 1")
    beside = {"config.json": config_json(model.config, model.dtype)}
    if processor_from is not None:
        source = checkpoint_folder(processor_from)
        beside |= {name: (source / name).read_bytes() for name in PROCESSOR_FILES if (source / name).is_file()}
    write(folder, shards_of(specs, shard_bytes), tensors.__getitem__, beside=beside)


def config_json(config: Config, dtype: torch.dtype) -> bytes:
    content = config_file.released(config, dtype=str(dtype).removeprefix("torch."))
    return json.dumps(content, indent=2).encode() + b"\n"


def shards_of(specs: dict[str, Spec], shard_bytes: int) -> list[dict[str, Spec]]:
    """The tensors in order, in as many files as needed for each to stay under this size, or to hold one tensor."""
    shards, filled = [{}], 0
    for name, spec in specs.items():
        size = nbytes(spec)
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = spec
        filled += size
    return shards


def _weights_of(layers: Iterable[str]) -> set[str]:
    return {f"{name}.weight" for name in layers}


def _needed(plan: list[Match], in_int8: set[str]) -> float:
    """Gigabytes of all weights; the scales, a thousandth of them, are not counted."""
    widths = (1 if found.name in in_int8 else found.dtype.itemsize for found in plan)
    return sum(width * math.prod(found.stored.shape) for width, found in zip(widths, plan, strict=True)) / 1e9


def _weights(plan: list[Match], device: torch.device, faults: Faults, in_int8: set[str]) -> dict[str, Tensor]:
    """Every tensor on the device, looked at once; those `in_int8` in two parts. With faults none is kept, but all are
    looked at."""
    found = {match.stored: match for match in plan}
    weights, finite = {}, {}
    with tqdm(total=sum(x.nbytes for x in found), unit="B", unit_scale=True, desc="loading", **QUIET) as bar:
        for stored, x in safetensors_reading.one_by_one(found):
            match = found[stored]
            if match.name in in_int8 and not faults:
                weights[match.name], x = quantised(x, device=device)
                weights[f"{match.name.removesuffix('weight')}scale"] = x  # which is finite where the matrix is
            elif not faults:
                x = weights[match.name] = x.to(device=device, dtype=match.dtype, copy=True)
            low, high = x.aminmax()
            finite[stored.name] = low.isfinite() & high.isfinite()
            bar.update(stored.nbytes)
    if finite:  # asked for in one go: each answer would make the device wait
        answers = zip(finite, torch.stack(list(finite.values())).tolist(), strict=True)
        faults.add("not finite (NaN or infinite)", *(name for name, is_finite in answers if not is_finite))
    return weights


def usable_device(device: torch.device | str | None) -> torch.device:
    """The device of this name, known to be there; a GPU if there is one where none is named."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device is {device!r}; it should be 'cpu', 'cuda' or 'cuda:0', say") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {device!r}; this machine has {torch.cuda.device_count()} CUDA devices")
    if found.type == "meta":
        raise ValueError("device is 'meta', which holds no numbers; InfiniteVL(config) builds a model there")
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError):  # this build of PyTorch doesn't know it, or this machine doesn't have it
        raise ValueError(f"device is {device!r}, which PyTorch can't use on this machine") from None
    if found.type == "cuda" and found.index is not None:
        torch.cuda.set_device(found)  # where graphs, events and kernels go that aren't told
    return found


def _make_ready(folder: Path) -> None:
    """Make the folder that a model is saved to; refuse one that is another model's."""
    make_folder(folder)
    path = folder / "config.json"
    if path.exists():
        try:
            config_file.read(folder)
        except ValueError as fault:
            raise ValueError(f"{folder} is another model's, and stays as it is: {fault}") from None
