"""A folder of safetensors files, written one tensor at a time, so that a crash never leaves a mixture.

What is written replaces an earlier checkpoint in the folder; other files stay. The format is told in
safetensors_reading.py.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from .safetensors_reading import DTYPES, INDEX, SINGLE

SHARD = "model-{:05}-of-{:05}.safetensors"
OWN = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
DRAFT = ".draft"
MARK = "config.json"  # without it a folder is no checkpoint: the first file to go, and the last to come
CODES = {dtype: code for code, dtype in DTYPES.items()}

Spec = tuple[torch.dtype, tuple[int, ...]]  # of a tensor that is to be written


def write(
    folder: Path,
    shards: list[dict[str, Spec]],
    make: Callable[[str], Tensor],
    *,
    beside: dict[str, bytes],
    wrote: Callable[[int], object] = lambda nbytes: None,
) -> None:
    """Write these shards, one tensor at a time as `make` gives it, and the small files that belong with them.

    Everything is first written beside its place and then moved into it, config.json last. Until the first move an older
    checkpoint in the folder is whole; after the last one the new one is, and shards of the old one that it doesn't have
    are gone. A crash between them leaves a folder without config.json, which nobody takes for a checkpoint.
    """
    make_folder(folder)
    needed = sum(nbytes(spec) for shard in shards for spec in shard.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"{folder} is on a disk with {free / 1e9:.2f} GB free; the weights need {needed / 1e9:.2f} GB")
    names = [SINGLE] if len(shards) == 1 else [SHARD.format(i + 1, len(shards)) for i in range(len(shards))]
    drafts: list[Path] = []

    def draft(name: str) -> Path:
        drafts.append(folder / f"{name}{DRAFT}")
        return drafts[-1]

    try:
        for name, shard in zip(names, shards, strict=True):
            _write_file(draft(name), shard, make, wrote)
        for name, content in beside.items():
            _write_bytes(draft(name), [content])
        if len(shards) > 1:
            _write_bytes(draft(INDEX), [_index(names, shards)])
        for name in (MARK, INDEX, SINGLE):
            (folder / name).unlink(missing_ok=True)
        for path in sorted(drafts, key=lambda path: path.name == MARK + DRAFT):
            os.replace(path, path.with_name(path.name.removesuffix(DRAFT)))
    finally:
        for path in drafts:
            path.unlink(missing_ok=True)
    for path in folder.iterdir():
        if OWN.fullmatch(path.name) and path.name not in names:
            path.unlink()


def make_folder(folder: Path) -> None:
    """The folder, made if it isn't there, and one that can be written to."""
    for place in (folder, *folder.absolute().parents):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"{folder} can't be a folder: {place} is a file")
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} can't be written to: permission denied")


def nbytes(spec: Spec) -> int:
    dtype, shape = spec
    return dtype.itemsize * math.prod(shape)


def _index(names: list[str], shards: list[dict]) -> bytes:
    total = sum(nbytes(spec) for shard in shards for spec in shard.values())
    weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(content, indent=2).encode()


def _write_file(path: Path, shard: dict, make: Callable[[str], Tensor], wrote: Callable[[int], object]) -> None:
    """One file. Wider numbers come first, so that each tensor starts at a multiple of its numbers' width."""
    order = sorted(shard, key=lambda name: -shard[name][0].itemsize)
    entries, end = {"__metadata__": {"format": "pt"}}, 0
    for name in order:
        dtype, shape = shard[name]
        start, end = end, end + nbytes(shard[name])
        entries[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    head = json.dumps(entries, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)

    def parts():
        yield len(head).to_bytes(8, "little") + head
        for name in order:
            x = make(name).detach().cpu().contiguous()
            if (x.dtype, tuple(x.shape)) != shard[name]:
                raise AssertionError(f"{name} was announced as {shard[name]} and is {x.dtype}, {list(x.shape)}")
            yield memoryview(x.reshape(-1).view(torch.uint8).numpy())
            wrote(x.nbytes)

    _write_bytes(path, parts())


def _write_bytes(path: Path, parts: Iterable) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
