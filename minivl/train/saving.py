"""Checkpoints of a run: all that the next step depends on, whole or not there at all.

A checkpoint is a folder. It is written under another name, flushed to the disk, and renamed, which either has happened
or has not; so a kill at any moment leaves the last one whole. state.json says where the run stands and under which
settings, and holds a checksum of the tensors' file and of itself. The two newest are kept: should a disk spoil one, the
other gives the same numbers again.

    OUT/checkpoints/step-00000120/state.json           step, settings, states of random numbers, checksums
                                  tensors.safetensors  weights that learn, and the optimiser's two averages of each
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

STATE, TENSORS = "state.json", "tensors.safetensors"
NAME = re.compile(r"step-(\d{8,})")
DRAFT = ".draft"
KEPT = 2


@dataclass(frozen=True)
class Saved:
    """`step` steps are done; `settings` are the run's; `tensors` are on the CPU."""

    step: int
    settings: dict
    randomness: dict
    tensors: dict[str, Tensor]


def save(folder: Path, saved: Saved, *, keep: int = KEPT) -> Path:
    """Write a checkpoint into `folder`, and let go of all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"step-{saved.step:08}"
    draft = place.with_name(place.name + DRAFT)
    sweep(folder)
    try:
        draft.mkdir()
        needed, free = sum(x.nbytes for x in saved.tensors.values()), shutil.disk_usage(folder).free
        if needed > free:
            raise OSError(f"the disk has {free / 1e9:.2f} GB free and the checkpoint needs {needed / 1e9:.2f} GB")
        save_file({name: x.contiguous() for name, x in saved.tensors.items()}, draft / TENSORS)
        state = {"step": saved.step, "settings": saved.settings, "randomness": saved.randomness}
        state["checksums"] = {TENSORS: checksum(draft / TENSORS), STATE: _own(state)}
        (draft / STATE).write_text(json.dumps(state, indent=1))
        for path in (draft / TENSORS, draft / STATE, draft):
            flush(path)
        if place.exists():  # the same step again, by a run that found it damaged
            shutil.rmtree(place)
        os.replace(draft, place)
        flush(folder)
    except (OSError, SafetensorError) as fault:
        shutil.rmtree(draft, ignore_errors=True)
        whole = checkpoints(folder)
        left = f"{whole[-1]} is whole" if whole else "there is none before it"
        raise OSError(
            f"the checkpoint {place} could not be written ({fault}); {left}; make room and run again"
        ) from None
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return place


def save_whole(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """One file of tensors that can be made again, whole or not there at all."""
    draft = path.with_name(path.name + DRAFT)
    try:
        save_file({name: x.contiguous() for name, x in tensors.items()}, draft, metadata=metadata)
        os.replace(draft, path)
    except (OSError, SafetensorError) as fault:
        draft.unlink(missing_ok=True)
        raise OSError(f"{path} could not be written ({fault}); make room and run again") from None


def newest(folder: Path) -> tuple[Saved | None, list[str]]:
    """The newest checkpoint that is whole, if there is one, and what is wrong with those after it."""
    faults = []
    for place in reversed(checkpoints(folder)):
        try:
            return read(place), faults
        except (OSError, ValueError) as fault:
            faults.append(str(fault))
    if faults:
        raise ValueError(f"no checkpoint is whole: {'; '.join(faults)}; delete {folder} to start from the beginning")
    return None, []


def read(place: Path) -> Saved:
    """A checkpoint, held against its checksums."""
    try:
        state = json.loads((place / STATE).read_text())
        sums = state.pop("checksums")
    except (ValueError, KeyError, AttributeError):
        raise ValueError(f"{place / STATE} is damaged: it is not readable as a checkpoint's") from None
    for name, found in {STATE: _own(state), TENSORS: checksum(place / TENSORS)}.items():
        if sums.get(name) != found:
            raise ValueError(f"{place / name} is damaged: its checksum is not the one that it was saved with")
    return Saved(**state, tensors=load_file(place / TENSORS))


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, the oldest first."""
    found = [place for place in folder.iterdir() if NAME.fullmatch(place.name)] if folder.is_dir() else []
    return sorted(found, key=lambda place: int(NAME.fullmatch(place.name)[1]))


def sweep(folder: Path) -> None:
    """Throw away what a kill has left half-written."""
    for draft in folder.glob(f"*{DRAFT}"):
        shutil.rmtree(draft)


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Onto the disk with it, a file or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _own(state: dict) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
