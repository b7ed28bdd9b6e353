"""From stage to stage: what a stage leaves, and how the next one knows it.

A stage leaves a checkpoint of the released form in `out`/result with a note of what it is: which stage, from which
start, with which settings, and a digest of its weights. The next stage reads the note and refuses any other start, so
that no stage's work is lost without anyone noticing.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import torch

from ..checkpoint import save_model
from ..model import InfiniteVL
from ..source import checkpoint_folder
from . import lora, progress
from .distributed import Processes, gathered
from .saving import DRAFT, checksum
from .settings import Settings
from .trainer import LOG

RESULT, NOTE, PLOT = "result", "training.json", "loss.png"
BEFORE = {"logits": "layers", "tuning": "logits", "long": "tuning"}


def leave(
    student: InfiniteVL, start: Path, out: Path, stage: str, identity: dict, settings: Settings, group: Processes
) -> None:
    """The result, whole or not at all: a checkpoint of the released form and a note. And the plot of the loss."""
    adapted, weights = lora.is_adapted(student), gathered(student.state_dict(), group)
    if group.first:
        with torch.device("meta"):
            plain = InfiniteVL(student.config)
        if adapted:
            lora.adapt(plain, rank=identity["rank"], alpha=identity["alpha"], targets=tuple(identity["targets"]))
        plain.load_state_dict(weights, assign=True)
        lora.merge(plain)
        plain.to(
            widest(plain)
        )  # autocast leaves float32 that learnt beside bf16 that did not: a checkpoint has one dtype
        draft = out / f"{RESULT}{DRAFT}"
        shutil.rmtree(draft, ignore_errors=True)
        save_model(plain, draft, processor_from=start)
        note = {"stage": stage, "weights": digest(draft), "settings": dataclasses.asdict(settings)} | identity
        (draft / NOTE).write_text(json.dumps(note, indent=1) + "\n")
        shutil.rmtree(out / RESULT, ignore_errors=True)
        os.replace(draft, out / RESULT)
        progress.plot({stage: out / LOG}, out / PLOT, title=f"{stage}: loss")
    group.wait()


def widest(model: InfiniteVL) -> torch.dtype:
    return max((x.dtype for x in model.parameters()), key=lambda dtype: dtype.itemsize)


def follows(stage: str, start: Path) -> None:
    """The start is the result of the stage before, and nobody has changed it since."""
    wanted = BEFORE.get(stage)
    if wanted is None:
        return
    otherwise = "any_start=True starts from it all the same"
    try:
        note = json.loads((start / NOTE).read_text())
        found, weights = note["stage"], note["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(
            f"{start} is no result of a stage: it has no {NOTE}; {stage} should start from what {wanted} has left "
            f"({otherwise})"
        ) from None
    if found != wanted:
        raise ValueError(f"{start} is what {found} has left; {stage} should start from what {wanted} has ({otherwise})")
    if weights != digest(start):
        raise ValueError(f"{start} has other weights than {found} has left there ({otherwise})")


def taught_by(start: Path, teacher: Path) -> None:
    """The start's layers have learnt from this very teacher."""
    if (start / NOTE).is_file() and json.loads((start / NOTE).read_text()).get("start") != digest(teacher):
        raise ValueError(
            f"{start} has learnt from another teacher than {teacher} (any_start=True starts from it all the same)"
        )


def digest(folder: Path) -> str:
    """One number for a checkpoint's configuration and weights."""
    files = sorted([folder / "config.json", *folder.glob("*.safetensors")])
    return hashlib.sha256(" ".join(f"{path.name} {checksum(path)}" for path in files).encode()).hexdigest()


def result_of(source: str | os.PathLike) -> Path:
    """A checkpoint's folder, or that of the result in a run's folder."""
    inside = Path(source) / RESULT
    return checkpoint_folder(inside if (inside / NOTE).is_file() else source)
