"""The tiny model from nothing: eyes, a teacher with full attention, and the paper's stages that make a student of it.

    eyes           the vision tower alone: what is in each cell of a picture; see layout.py
    reading        full attention in every layer: lines of text, and nothing else
    teacher        the same, now with answers about all pictures and about streams
    layers    1a   each Gated DeltaNet layer learns what the teacher's layer does
    logits    1b   the student learns what the teacher says
    tuning    2    answers, on the same data
    long      3    answers about streams whose facts lie far outside the window, through adapters

Every stage is the one that a large model would go through (stages.py); what is the tiny model's own are the data and a
budget. Reading comes first since it teaches soonest where to look: each answer is eight characters, each from a place
of its own. Among a dozen kinds of questions a decoder goes on guessing for thousands of steps. No eyes learn after the
first stage, so that all pictures and frames are looked at once and kept. What a run that was killed had reached is
found again, stage by stage.
"""

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path

import torch

from ..checkpoint import load_model
from ..processor import Processor, load_processor
from . import stages
from .encoded import EncodedStreams
from .examples import Example
from .freezing import LEARNS
from .handing_over import RESULT, digest
from .kept import drawn, load, save, seen
from .layout import Alike, DrawnConversations, DrawnFrames, Layout, settled
from .lessons import Lessons
from .saving import DRAFT
from .settings import Settings
from .sources import Mixed, Shuffled
from .tiny_model import write_start
from .tiny_streams import StreamSettings, TinyStreams
from .tiny_world import KINDS, TinyWorld

BUDGET, KEPT = "budget.json", "seen.safetensors"
STAGES = ("eyes", "reading", "teacher", "layers", "logits", "tuning", "long")
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)  # tokens between a fact and its question, at most
SHARES = dict.fromkeys(KINDS, 1.0) | {"reading": 0.0, "lines": 2.0}  # of the pictures of all kinds
TEXTS = 0.25  # share of single lines to read among all pictures, once there are others
EYES = ("eyes", "merger")
NOT_EYES = tuple(part for part in LEARNS["teacher"] if part not in EYES)


@dataclass(frozen=True)
class Share:
    """What one stage gets: steps, examples a step, and the highest learning rate. One step in `every` is of streams, in
    which at most `far` tokens lie between a fact and its question."""

    steps: int
    batch: int
    rate: float
    far: int = 0
    every: int = 3


@dataclass(frozen=True)
class Budget:
    """What each stage gets, and what is the same for all."""

    stages: dict[str, Share]
    lines: int  # examples that are kept, with lines to read
    pictures: int  # and with pictures of all kinds
    looks: int  # pictures of each fact
    others: int  # frames without a fact
    tokens_at_once: int | None = None  # in a pass; None: a step is one pass
    recorded: bool = False
    rank: int = 16
    workers: int = 0
    save_every: int = 500

    def settings(self, stage: str, seed: int) -> Settings:
        own = self.stages[stage]
        return Settings(
            steps=own.steps,
            learning_rate=own.rate,
            batch=own.batch,
            at_once=own.batch,
            tokens_at_once=self.tokens_at_once,
            recorded=self.recorded,
            workers=self.workers,
            seed=seed,
            save_every=self.save_every,
        )


# What the weights that come along were made with is in docs/tiny-model.md; the budget for a GPU has been changed since,
# to what was learnt from them, and has not been run yet.
GPU = Budget(
    {
        "eyes": Share(16_000, 64, 1.5e-3),
        "reading": Share(4000, 64, 1.5e-3),
        "teacher": Share(10_000, 256, 1e-3, 256, every=8),
        "layers": Share(1500, 64, 1e-3, 1024),
        "logits": Share(2000, 64, 1e-3, 1024),
        "tuning": Share(10_000, 128, 1e-3, 2048),
        "long": Share(200, 32, 1e-3, 4096),
    },
    lines=120_000,
    pictures=200_000,
    looks=16,
    others=4096,
    recorded=True,
    save_every=2000,
)
CPU = Budget(
    {
        "eyes": Share(3000, 24, 1.5e-3),
        "reading": Share(4000, 16, 1.5e-3),
        "teacher": Share(3000, 16, 1e-3, 256, every=8),
        "layers": Share(150, 16, 1e-3, 256),
        "logits": Share(300, 16, 1e-3, 256),
        "tuning": Share(900, 16, 1e-3, 256),
        "long": Share(60, 8, 1e-3, 1024),
    },
    lines=20_000,
    pictures=16_000,
    looks=4,
    others=2048,
    tokens_at_once=1 << 10,
    workers=1,
)


def train(out: Path, budget: Budget, *, seed: int = 0, device: str | None = None, quiet: bool = False) -> Path:
    """All stages, or what is left of them; the folder of the last one's result."""
    start, last = begun(out, budget, seed), out / STAGES[-1] / RESULT
    if last.is_dir():
        return last
    options = {"device": device, "quiet": quiet}
    stage = {name: (out / name, budget.settings(name, seed)) for name in STAGES}
    pictures, eyes = Pictures(load_processor(start), budget, seed), out / "settled"
    if not (eyes / "config.json").is_file():  # which is written last
        stages.teach(start, pictures.alike(), *stage["eyes"], objective=Layout, learns=EYES, **options)
        settled(out / "eyes" / RESULT, eyes, pictures.varied(), device=device)
    pictures.look(eyes, out / KEPT, device=device)
    stages.teach(eyes, pictures.lines(), *stage["reading"], learns=NOT_EYES, **options)
    data = {name: pictures.lessons(name) for name in STAGES[2:]}
    stages.teach(out / "reading", data["teacher"], *stage["teacher"], learns=NOT_EYES, **options)
    stages.distil_layers(out / "teacher", data["layers"], *stage["layers"], **options)
    stages.distil_logits(out / "layers", out / "teacher", data["logits"], *stage["logits"], **options)
    stages.tune(out / "logits", data["tuning"], *stage["tuning"], **options)
    return stages.tune_long(out / "tuning", data["long"], *stage["long"], rank=budget.rank, **options).folder


def begun(out: Path, budget: Budget, seed: int) -> Path:
    """The folder with the first weights; `out` is for runs of this budget and seed from now on."""
    told = json.loads(json.dumps({"seed": seed, **dataclasses.asdict(dataclasses.replace(budget, workers=0))}))
    start, draft = out / "start", out / f"start{DRAFT}"
    if start.is_dir():
        before = json.loads((start / BUDGET).read_text()) if (start / BUDGET).is_file() else {}
        if differ := [name for name in told if before.get(name) != told[name]]:
            raise ValueError(
                f"{out} holds a tiny model of another budget, in {', '.join(differ)}; choose another --out"
            )
        return start
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write_start(draft, seed=seed)
    (draft / BUDGET).write_text(json.dumps(told, indent=1) + "\n")
    os.replace(draft, start)  # whole or not at all, since a kill may come in between
    return start


class Pictures:
    """All pictures of a budget, drawn once and then looked at once, and what each stage learns from them."""

    def __init__(self, processor: Processor, budget: Budget, seed: int):
        self.processor, self.budget, self.seed = processor, budget, seed
        self.settings = StreamSettings(looks=budget.looks, others=budget.others)
        lines, world = (
            DrawnConversations(TinyWorld("train", seed, kinds), processor) for kinds in (["reading"], SHARES)
        )
        self.frames = DrawnFrames(TinyStreams("train", seed, self.settings).pool, processor)
        self.sources = {
            "texts": (lines, budget.lines),
            "some": (world, budget.pictures),
            "frames": (self.frames, len(self.frames)),
        }
        self.told = "; ".join(f"{count} of {source.description}" for source, count in self.sources.values())

    @cached_property
    def drawn(self) -> dict[str, list[Example]]:
        workers = self.budget.workers
        return {part: drawn(source, count, workers=workers) for part, (source, count) in self.sources.items()}

    def alike(self) -> Alike:
        """For the eyes, with the renderer's knowledge of each cell."""
        batch = self.budget.stages["eyes"].batch
        return Alike([*chain(*self.drawn.values())], batch=batch, seed=self.seed, description=self.told)

    def varied(self, count: int = 512) -> list[Example]:
        """A few of all kinds."""
        return self.drawn["frames"][:count] + self.drawn["some"][:count]

    def look(self, eyes: Path, path: Path, *, device: str | None) -> None:
        """From now on there is what these eyes have seen: from the file, if a run before this one has left it there."""
        self.told += f", seen by {digest(eyes)}"
        self.seen = load(path, told=self.told)
        if self.seen is None:
            model = load_model(eyes, device=device)
            self.seen = {part: seen(model, examples) for part, examples in self.drawn.items()}
            save(path, self.seen, told=self.told)
        vars(self).pop("drawn", None)  # their pixels take much room
        shown = torch.stack([frame.vectors for frame in self.seen["frames"]])
        self.vectors = shown.new_zeros(len(self.frames.pool), *shown.shape[1:])
        self.vectors[self.frames.numbers] = shown

    def lines(self) -> Shuffled:
        return Shuffled(self.seen["texts"], seed=self.seed, description=self.told)

    def lessons(self, stage: str) -> Lessons:
        """Pictures, and streams whose facts lie further and further back: each length has steps of its own."""
        share = self.budget.stages[stage]
        streams = [self.streams(low, high) for low, high in pairwise([0, *LENGTHS]) if high <= share.far]
        some = Shuffled(self.seen["some"], seed=self.seed, description=self.told)
        pictures = Mixed([(TEXTS, self.lines()), (1 - TEXTS, some)], seed=self.seed)
        return Lessons(pictures, streams, batch=share.batch, every=share.every)

    def streams(self, low: int, high: int) -> EncodedStreams:
        settings = dataclasses.replace(self.settings, distance=(low, high), lead=(0, high // 4))
        return EncodedStreams(TinyStreams("train", self.seed, settings), self.processor, self.vectors)


def pick(device: str | None) -> Budget:
    """The budget for this device, and as many processes to draw as there are cores."""
    cores = os.cpu_count() or 1
    if (device is not None and not device.startswith("cuda")) or not torch.cuda.is_available():
        return CPU
    return dataclasses.replace(GPU, workers=max(1, cores - 2))
