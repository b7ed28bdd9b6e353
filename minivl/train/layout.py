"""Eyes are taught with dense help: what is in each cell of a picture, as its renderer knows it.

An answer of eight characters says little about why it was wrong. So before anybody answers, a linear map of each cell's
vector, which is dropped at the end, is asked for the class of the cell's four patches, for those of the up to four
things whose middles it holds, for the names of the colours of both, and for the patches' mean colours. All that
questions are about is in these. Names of colours are asked for whatever is drawn, letters and bars too: eyes that know
them of shapes only mix up what a thing is with its colour, and fail on pairs that never came together.

    loss = Σ_cells mean over 16 labels of cross-entropy + mean over 4 · 3 levels of (level − true level)²

    code        shape                  dtype   what
    cells       [cells, 16]            int64   of a cell's patches, row by row, and its slots: classes, then colours
    vectors     [cells, D]             float   what the tower makes of each cell
    levels      [cells, 4 · 3]         float   mean red, green and blue of its patches, as the tower is given them
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from ..checkpoint import load_model, save_model
from ..model import InfiniteVL
from ..processor import Processor
from .drawing import CELL, LABELS, PATCH, SLOTS, Picture
from .encoded import with_vectors
from .examples import Batch, Example, example_of
from .objectives import Objective
from .sources import Conversations, Mixed, Shuffled
from .tiny_frames import Pool

SIDE = CELL // PATCH  # patches to a cell
EACH = 2 * (SIDE**2 + SLOTS)  # labels to a cell; see drawing.py


def cells_of(pictures: Sequence[Picture]) -> Tensor:
    """All cells of these pictures, in the order of the tower's vectors."""
    rows = []
    for picture in pictures:
        columns = []
        for patches, slots in ((picture.layout, picture.slots), (picture.inks, picture.hues)):
            columns.append(rearrange(patches, "(r i) (c j) -> (r c) (i j)", i=SIDE, j=SIDE))
            columns.append(rearrange(slots, "r c slots -> (r c) slots"))
        rows.append(np.concatenate(columns, axis=1))
    return torch.from_numpy(np.concatenate(rows).astype(np.int64))


class DrawnConversations(Conversations):
    """Conversations whose pictures' cells are known."""

    def example(self, sample) -> Example:
        return replace(super().example(sample), cells=cells_of(sample.pictures))


class DrawnFrames:
    """Those frames of a pool that its split may show, each as a picture whose cells are known, with no question."""

    def __init__(self, pool: Pool, processor: Processor):
        self.pool, self.processor = pool, processor
        self.numbers = [number for number in range(len(pool)) if pool.may_show(number)]
        self.description = f"{len(self)} frames of {pool!r}"

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, at: int) -> Example:
        picture = self.pool[self.numbers[at]]
        messages = [{"role": "user", "content": [{"type": "image", "image": picture.image}]}]
        example = example_of(self.processor, [*messages, {"role": "assistant", "content": "."}])
        return replace(example, cells=cells_of([picture]))


class Alike:
    """Steps whose pictures are all of one size, drawn by how many there are of it: few shapes, which come back."""

    def __init__(self, examples: Sequence[Example], *, batch: int, seed: int = 0, description: str = ""):
        by_size: dict[tuple, list[Example]] = {}
        for example in examples:
            by_size.setdefault(tuple(example.grids.flatten().tolist()), []).append(example)
        sources = [Shuffled(some, seed=seed) for some in by_size.values()]
        self.steps = Mixed([(len(source.examples), source) for source in sources], seed=seed)
        self.batch = batch
        self.description = f"{batch} of one size to a step: {description}, {self.steps.description}"

    def __getitem__(self, number: int) -> Example:
        return self.steps.source_of(number // self.batch)[number]


class Layout(Objective):
    """Only the tower is run."""

    per = "cell"

    def __init__(self, student: InfiniteVL):
        super().__init__(student)
        width, levels = student.config.vision.out_hidden_size, SIDE**2 * student.config.vision.in_channels
        self.runs = [EACH * len(LABELS), levels]
        self.beside = nn.Linear(width, sum(self.runs), device=student.device)
        nn.init.zeros_(self.beside.weight)
        nn.init.zeros_(self.beside.bias)

    def reaches(self, name: str) -> bool:
        return name.startswith("model.visual.")

    def units(self, batch: Batch) -> int:
        if batch.cells is None:
            raise ValueError("the batch's pictures have no cells; their examples should come from DrawnConversations")
        return len(batch.cells)

    def forward(self, batch: Batch) -> Tensor:
        eyes = self.student.model.visual
        pixels = batch.pixels.to(self.student.dtype)
        classes, levels = self.beside(eyes(pixels, batch.grids)).float().split(self.runs, dim=-1)
        dense = F.cross_entropy(classes.reshape(-1, len(LABELS)), batch.cells.flatten(), reduction="sum") / EACH
        true = reduce(
            pixels, "(cells i) (channels rest) -> cells (i channels)", "mean",
            i=SIDE**2, channels=eyes.config.in_channels,
        )  # fmt: skip
        return dense + F.mse_loss(levels, true, reduction="sum") / self.runs[1]


@torch.no_grad()
def settled(eyes: Path, out: Path, examples: Sequence[Example], *, device: str | None = None) -> Path:
    """A checkpoint whose eyes speak as evenly as words do: vectors of mean 0 and of deviation 1, over many pictures.

    The loss above leaves both open. Vectors that share a large part drown what tells them apart, and the decoder then
    learns next to nothing. The tower's last layer is linear, so that shift and scale go into its weights.
    """
    model = load_model(eyes, device=device)
    seen = torch.cat([example.vectors for example in with_vectors(model, examples)])
    mean = seen.mean(0)
    last = model.model.visual.merger.mlp[-1]
    last.bias.sub_(mean.to(last.bias))
    for x in (last.weight, last.bias):
        x.div_((seen - mean).square().mean().sqrt().to(x))
    save_model(model, out, processor_from=eyes)
    return out
