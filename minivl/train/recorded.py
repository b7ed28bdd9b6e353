"""A pass, forward and backward, as a CUDA graph: recorded once for each shape of batch, then replayed.

A small model's kernels take less time to run than to launch one by one, and a pass has hundreds of them. A graph
launches them all at once. What changes from step to step, the batch and the factor of its loss, is written into tensors
that the graph reads; gradients are added up where they always lie. Rows are filled up to a multiple of WHOLE tokens, so
that shapes are few; pictures whose pixels are looked at belong to a shape, since the tower's way through them depends
on their sizes. The first batch of a shape goes through as it is: what a first call sets up must not be recorded.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..captured import RECORDING
from ..config import Config
from ..model import InfiniteVL
from .examples import IGNORED, Batch

WHOLE = 32  # tokens that rows are filled up to multiples of
GRAPHS = 64  # that are kept; batches of further shapes go through as they are

Pass = Callable[[Batch, Tensor | float], Tensor]  # a batch and the factor of its loss; leaves gradients, gives the loss


class Recorded:
    """run(batch, factor), over and over. The parameters must stay where they are, and so must their gradients."""

    def __init__(self, run: Pass, parameters: Iterable[nn.Parameter], model: InfiniteVL):
        self.run, self.model = run, model
        self.graphs: dict[tuple, _Graph | None] = {}
        self.stream, self.pool = torch.cuda.Stream(model.device), torch.cuda.graph_pool_handle()
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    def __call__(self, batch: Batch, factor: float) -> Tensor:
        counted(batch, self.model.config)
        batch = filled_up(batch, self.model.config)
        shape = shape_of(batch)
        if shape not in self.graphs:
            self.graphs[shape] = None
            return self._as_it_is(batch, factor)
        if self.graphs[shape] is None:
            if sum(graph is not None for graph in self.graphs.values()) == GRAPHS:
                return self._as_it_is(batch, factor)
            self.graphs[shape] = _Graph(self.run, batch, self.model, self.stream, self.pool)
        return self.graphs[shape](batch, factor)

    def _as_it_is(self, batch: Batch, factor: float) -> Tensor:
        """On the stream that recordings are made on: a gradient's place remembers the stream that it was first on."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            loss = self.run(batch.to(self.model.device), factor)
        torch.cuda.current_stream().wait_stream(self.stream)
        return loss


class _Graph:
    """The graph of one shape, and the tensors that it reads and leaves."""

    def __init__(self, run: Pass, batch: Batch, model: InfiniteVL, stream: torch.cuda.Stream, pool):
        if batch.vectors is not None:  # one for each token: however many of them are pads, there is room
            batch = replace(batch, vectors=batch.vectors.new_zeros(batch.ids.numel(), batch.vectors.shape[1]))
        self.batch = batch.to(model.device)
        self.factor = torch.zeros((), device=model.device)
        # The graph reads the tensors of the tower's plan, which would be thrown away otherwise.
        self.plan = None if batch.pixels is None else model.model.visual.plan(batch.grids)
        self.graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with RECORDING, torch.cuda.graph(self.graph, stream=stream, pool=pool):
            self.loss = run(self.batch, self.factor)

    def __call__(self, batch: Batch, factor: float) -> Tensor:
        for name, x in batch.tensors().items():
            place = getattr(self.batch, name)
            (place[: len(x)] if name == "vectors" else place).copy_(x)
        self.factor.fill_(factor)
        self.graph.replay()
        return self.loss


def filled_up(batch: Batch, config: Config) -> Batch:
    """The same batch with rows of a multiple of WHOLE tokens. Of pictures seen before, nobody asks for the grids."""
    more = (0, -batch.ids.shape[1] % WHOLE)
    return replace(
        batch,
        ids=F.pad(batch.ids, more, value=config.bos_token_id),
        labels=F.pad(batch.labels, more, value=IGNORED),
        positions=F.pad(batch.positions, more),
        mask=F.pad(batch.mask, more),
        grids=None if batch.pixels is None else batch.grids,
    )


def shape_of(batch: Batch) -> tuple:
    """What two batches must share to go through one graph; one may have more vectors than the other."""
    found = {name: (tuple(x.shape), x.dtype) for name, x in batch.tensors().items()}
    if batch.vectors is not None:
        found["vectors"] = (batch.vectors.shape[1], batch.vectors.dtype)
    return *found.items(), () if batch.grids is None else tuple(batch.grids.flatten().tolist())


def counted(batch: Batch, config: Config) -> None:
    """A replayed graph can't tell that there are more pads than cells of pictures, or fewer."""
    pads = int(((batch.ids == config.image_token_id) | (batch.ids == config.video_token_id)).sum())
    cells = 0 if batch.vectors is None else len(batch.vectors)
    if batch.pixels is not None:
        cells = int(batch.grids.prod(1).sum()) // config.vision.spatial_merge_size**2
    if pads != cells:
        raise ValueError(f"a batch has {pads} picture pads, and its pictures {cells} cells; they should be as many")
