"""The stages, one after another: each starts from what the one before has left, and from nothing else.

A stage reads a checkpoint's folder (or the folder of the run that made it), trains in `out`, and leaves its result
there; see handing_over.py. What is common to all stages is in `_run`.

    teach           a teacher, from any checkpoint with full attention in every layer
    distil_layers   1a   a student of that teacher: each linear layer learns what the teacher's layer does
    distil_logits   1b   the whole student learns what the teacher says
    tune            2    answers
    tune_long       3    answers at the end of long sequences, through low-rank adapters that are merged at the end
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoint import load_model
from ..config import Config
from ..model import InfiniteVL
from . import freezing, lora, progress
from .distributed import own_device, processes
from .freezing import LEARNS, Count
from .handing_over import RESULT, digest, follows, leave, result_of, taught_by
from .objectives import AnswerTuning, LayerDistillation, LogitDistillation, Objective
from .settings import Settings
from .student import student_config, student_from
from .trainer import LOG, train


@dataclass(frozen=True)
class Result:
    """What a stage has left: `folder` holds the checkpoint, `losses` one number a step."""

    stage: str
    folder: Path
    losses: list[float]
    counts: list[Count]


def teach(
    start: str | os.PathLike,
    data,
    out: str | os.PathLike,
    settings: Settings,
    *,
    objective: Callable[[InfiniteVL], Objective] = AnswerTuning,
    learns: tuple[str, ...] = LEARNS["teacher"],
    **options,
) -> Result:
    """Train a teacher: everything learns. `objective` may look at more than answers."""
    return _run("teacher", start, data, out, settings, learns=learns, objective=objective, **options)


def distil_layers(
    teacher: str | os.PathLike,
    data,
    out: str | os.PathLike,
    settings: Settings,
    *,
    config: Config | None = None,
    factor: float = 1.0,
    learns: tuple[str, ...] = LEARNS["layers"],
    **options,
) -> Result:
    """Stage 1a. `config` is the student's, by default one window layer to three linear ones."""
    folder = result_of(teacher)
    taught = _loaded(folder, options)

    def begin(_: InfiniteVL) -> InfiniteVL:
        return student_from(taught, config or student_config(taught.config), seed=settings.seed)

    return _run(
        "layers", folder, data, out, settings, learns=learns, begin=begin, model=taught,
        objective=lambda student: LayerDistillation(student, taught, factor=factor),
        identity={"factor": factor}, **options,
    )  # fmt: skip


def distil_logits(
    start: str | os.PathLike,
    teacher: str | os.PathLike,
    data,
    out: str | os.PathLike,
    settings: Settings,
    *,
    temperature: float = 1.0,
    per: str = "token",
    learns: tuple[str, ...] = LEARNS["logits"],
    **options,
) -> Result:
    """Stage 1b. The paper's loss by default; temperature 2 per "row" is the released code's."""
    folder = result_of(teacher)
    taught = _loaded(folder, options)
    if not options.get("any_start"):
        follows("logits", result_of(start))
        taught_by(result_of(start), folder)
    return _run(
        "logits", start, data, out, settings, learns=learns,
        objective=lambda student: LogitDistillation(student, taught, temperature=temperature, per=per),
        identity={"temperature": temperature, "per": per, "teacher": digest(folder)}, **options,
    )  # fmt: skip


def tune(
    start: str | os.PathLike,
    data,
    out: str | os.PathLike,
    settings: Settings,
    *,
    learns: tuple[str, ...] = LEARNS["tuning"],
    **options,
) -> Result:
    """Stage 2."""
    return _run("tuning", start, data, out, settings, learns=learns, objective=AnswerTuning, **options)


def tune_long(
    start: str | os.PathLike,
    data,
    out: str | os.PathLike,
    settings: Settings,
    *,
    rank: int = 16,
    alpha: float = 32.0,
    targets: tuple[str, ...] = lora.TARGETS,
    **options,
) -> Result:
    """Stage 3. What is saved are plain weights again, the adapters merged into them."""
    adapters = {"rank": rank, "alpha": alpha, "targets": targets}

    def begin(model: InfiniteVL) -> InfiniteVL:
        return lora.adapt(model, **adapters, seed=settings.seed)

    return _run(
        "long", start, data, out, settings, learns=LEARNS["long"], begin=begin, objective=AnswerTuning,
        identity=adapters, **options,
    )  # fmt: skip


def _run(
    stage: str,
    start: str | os.PathLike,
    data,
    out: str | os.PathLike,
    settings: Settings,
    *,
    learns: tuple[str, ...],
    objective: Callable[[InfiniteVL], Objective],
    begin: Callable[[InfiniteVL], InfiniteVL] = lambda model: model,
    model: InfiniteVL | None = None,
    identity: dict | None = None,
    any_start: bool = False,
    device: str | torch.device | None = None,
    quiet: bool = False,
    stepped: Callable[[int, float], object] = lambda step, loss: None,
) -> Result:
    """One stage from its start to its result. `any_start` lets it begin from what is not its predecessor's result."""
    start, out = result_of(start), Path(out)
    if not any_start:
        follows(stage, start)
    with processes() as group:
        identity = {"stage": stage, "start": digest(start), **(identity or {})}
        student = begin(model if model is not None else load_model(start, device=device or own_device()))
        student.requires_grad_(True)
        counts = freezing.freeze(student, learns)
        if group.first and not quiet:
            print(f"{stage}\n{freezing.told(counts)}")
        learnt = objective(student)
        identity["objective"] = learnt.described()
        train(
            learnt, data, out, settings,
            group=group, identity=identity, label=stage, quiet=quiet, stepped=stepped,
        )  # fmt: skip
        leave(student, start, out, stage, identity, settings, group)
        return Result(stage, out / RESULT, progress.losses(out / LOG), counts)


def _loaded(folder: Path, options: dict) -> InfiniteVL:
    """A teacher: nothing in it learns."""
    return load_model(folder, device=options.get("device") or own_device()).requires_grad_(False)
