"""One run: an arm and a seed, from its first weights through its course to its scores, in one file at the end.

    runs/ARM-SEED/start     a checkpoint: the eyes, and a decoder that has learnt nothing
    runs/ARM-SEED/STAGE     what each stage of the course leaves, as all training leaves it; see stages.py
    results/ARM-SEED.json   the scores, the losses, and the seconds it all took; written last, whole or not at all

A run whose result is there is not run again; one that was killed goes on from its stage's checkpoint.
"""

import dataclasses
import gc
import json
import os
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import load_model, save_model
from ..config import Config
from ..model import InfiniteVL
from ..processor import load_processor
from . import progress, stages
from .claims_ages import ages
from .claims_arms import ARMS, Arm, Protocol
from .claims_lessons import Data
from .claims_scoring import scores
from .handing_over import result_of
from .not_finite import NotFinite
from .saving import DRAFT
from .settings import Settings
from .student import fresh, student_from
from .tiny_model import LITTLE
from .trainer import LOG

# What learns where a decoder starts from nothing. The eyes and the merger have looked already, and never learn.
DECODER = ("words", "linear mixers", "attention mixers", "feed-forwards", "norms")
SAVE_EVERY = 250  # steps, which is what a kill costs at most
CURVE = 60  # points that are kept of a run's losses
DTYPES = {"cuda": torch.bfloat16, "cpu": torch.float32}  # in which a result is scored


@dataclass(frozen=True)
class Place:
    """The folder of all runs."""

    out: Path
    eyes: Path
    protocol: Protocol

    @property
    def data(self) -> Path:
        return self.out / "data"

    def run(self, name: str, seed: int) -> Path:
        return self.out / "runs" / f"{name}-{seed}"

    def result(self, name: str, seed: int) -> Path:
        return self.out / "results" / f"{name}-{seed}.json"


@dataclass(frozen=True)
class Run:
    arm: Arm
    seed: int
    place: Place
    device: str
    quiet: bool = False

    @property
    def name(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        return self.place.run(self.arm.name, self.seed)

    @cached_property
    def data(self) -> Data:
        return Data(self.place.data, load_processor(self.place.eyes), self.place.protocol)

    def perform(self) -> None:
        """Everything that is not there yet."""
        path = self.place.result(self.arm.name, self.seed)
        if path.exists():
            return
        found = {"arm": self.arm.name, "seed": self.seed, "stopped": None, "scores": {}, "scoring_seconds": 0}
        try:
            learnt = self.learn()
        except NotFinite as fault:
            found["stopped"] = str(fault).partition("; the last good")[0]
        else:
            began = time.perf_counter()
            model = load_model(learnt, device=self.device, dtype=DTYPES[torch.device(self.device).type])
            found |= self.scored(model)
            found["scoring_seconds"] = round(time.perf_counter() - began, 1)
        found |= {"losses": self.losses, "training_seconds": round(self.training_seconds, 1)}
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + DRAFT)
        draft.write_text(json.dumps(found, indent=1) + "\n")
        os.replace(draft, path)

    def learn(self) -> Path:
        """Through the course; where its last result lies."""
        start = self.begin()
        first, options = 0, {"device": self.device, "quiet": self.quiet}
        teacher = self.teacher
        for stage, steps in self.place.protocol.steps_of(self.arm):
            data, out = self.data.lessons(self.arm, self.seed, first=first), self.folder / stage
            settings = self.settings(steps)
            if stage == "answers":
                stages.teach(start, data, out, settings, learns=DECODER, **options)
            elif stage == "layers":
                stages.distil_layers(teacher, data, out, settings, config=self.config, **options)
            elif stage == "logits":
                stages.distil_logits(start, teacher, data, out, settings, **options)
            else:
                stages.tune(start, data, out, settings, any_start=first == 0, **options)
            start, first = out, first + steps
            let_go()
        return result_of(start)

    def settings(self, steps: int) -> Settings:
        protocol = self.place.protocol
        return Settings(
            steps=steps,
            batch=protocol.batch,
            at_once=protocol.batch,
            learning_rate=protocol.learning_rate,
            seed=self.seed,
            recorded=torch.device(self.device).type == "cuda",
            save_every=SAVE_EVERY,
        )

    @property
    def teacher(self) -> Path | None:
        """Whom this arm learns from, or inherits from."""
        if self.place.protocol.start == "teacher":
            return self.place.eyes
        if self.arm.taught_by is None:
            return None
        return result_of(self.place.run(self.arm.taught_by, self.seed) / ARMS[self.arm.taught_by].course[-1][0])

    @cached_property
    def config(self) -> Config:
        return arm_config(load_config(self.place.eyes), self.arm, self.place.protocol)

    def begin(self) -> Path:
        """The checkpoint that the course starts from."""
        folder = self.folder / "start"
        if not folder.exists():
            draft = folder.with_name(folder.name + DRAFT)
            shutil.rmtree(draft, ignore_errors=True)
            if self.teacher:
                taught = load_model(self.teacher, device="cpu", dtype=torch.float32)
                model = student_from(taught, self.config, seed=self.seed)
            else:
                model = untaught(load_model(self.place.eyes, device="cpu", dtype=torch.float32), self.config, self.seed)
            save_model(model, draft, processor_from=self.place.eyes)
            os.replace(draft, folder)
        return folder

    def scored(self, model: InfiniteVL) -> dict:
        protocol = self.place.protocol
        found = scores(model, self.data, protocol)
        if self.arm.ages:
            found |= ages(model, self.data, protocol)
        decoder = sum(x.numel() for x in model.model.language_model.parameters())
        return {"scores": found, "parameters": decoder}

    @property
    def logs(self) -> list[Path]:
        return [self.folder / stage / LOG for stage, _ in self.arm.course]

    @property
    def losses(self) -> dict[str, list[float]]:
        """Means of each stage's losses, CURVE of them."""
        curves = {}
        for (stage, _), log in zip(self.arm.course, self.logs, strict=True):
            values = progress.losses(log)
            size = max(1, -(-len(values) // CURVE))
            parts = [values[at : at + size] for at in range(0, len(values), size)]
            curves[stage] = [round(sum(part) / len(part), 5) for part in parts]
        return curves

    @property
    def steps(self) -> int:
        return self.place.protocol.steps

    @property
    def steps_done(self) -> int:
        return sum(len(progress.rows(log)) for log in self.logs)

    @property
    def training_seconds(self) -> float:
        """Of all steps, those before a kill among them."""
        return sum(float(row["seconds"]) for log in self.logs for row in progress.rows(log))


def let_go() -> None:
    """Graphs keep what they worked in, which is most of a run's memory; the next stage records its own."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def load_config(folder: Path) -> Config:
    return load_processor(folder).config


def arm_config(eyes: Config, arm: Arm, protocol: Protocol) -> Config:
    """The configuration that came with the eyes, but for what the arm says."""
    return dataclasses.replace(eyes, layer_types=arm.layer_types, mixer=arm.mixer, sliding_window=protocol.window)


def untaught(eyes: InfiniteVL, config: Config, seed: int) -> InfiniteVL:
    """These eyes, and a decoder that knows nothing. A weight depends on the seed and its own name only, so that arms
    begin alike wherever they are alike."""
    with torch.device("meta"):
        model = InfiniteVL(config)
    weights = {}
    for name, x in model.state_dict().items():
        seen = name.startswith("model.visual.")
        weights[name] = eyes.state_dict()[name] if seen else first_weight(name, x.shape, seed).float()
    model.load_state_dict(weights, assign=True)
    return model


def first_weight(name: str, shape: torch.Size, seed: int) -> Tensor:
    """Gates as the released training starts them; matrices and convolutions as PyTorch starts its own, but that layers
    add little at first, as in the tiny model.

    With convolutions that begin as the identity, which is for students of a teacher, recall is learnt later.
    """
    if name.endswith((".o_proj.weight", ".down_proj.weight")):
        return LITTLE * fresh(name, shape, seed)
    if "layernorm" in name or name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if "_conv1d." in name:
        return fresh(name.replace("_conv1d", ""), shape[::2], seed).unsqueeze(1)  # [D, taps]: each channel of its own
    return fresh(name, shape, seed)
