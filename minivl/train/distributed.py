"""One process or many: the same script under torchrun, each process on its own part of every step's examples.

A step's examples are numbered; process r of n takes every n-th, and the sums of losses are divided by what the whole
step holds, so that the gradient is the one that a single process would have found. DDP keeps a whole copy of the model
in each process and sums gradients; FSDP2 cuts weights, gradients and averages into n parts. Only process 0 writes.

    python -m torch.distributed.run --nproc-per-node 8 …      sets RANK, WORLD_SIZE and LOCAL_RANK for each process
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

WAYS = ("ddp", "fsdp")


@dataclass(frozen=True)
class Processes:
    """Which of how many this is."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mine(self, numbers: range) -> range:
        """This process's part of a step's examples."""
        return numbers[self.rank :: self.count]

    def total(self, *numbers: float) -> list[float]:
        """Each number summed over all processes, in float64."""
        if self.count == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64, device=_device_of_messages())
        dist.all_reduce(sums)
        return sums.tolist()

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()


@contextmanager
def processes() -> Iterator[Processes]:
    """All processes that torchrun has started, joined; or this one alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if dist.is_initialized():  # by whoever called, who also ends it
        yield Processes(dist.get_rank(), dist.get_world_size())
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def own_device() -> torch.device | None:
    """The GPU of this process under torchrun; None leaves the choice to whoever loads the model."""
    many = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if many and torch.cuda.is_available() else None


def spread(objective: nn.Module, way: str, group: Processes) -> nn.Module:
    """The objective as the passes call it. With FSDP2 the student's parameters are cut up in place."""
    if way not in WAYS:
        raise ValueError(f"the way to spread a model is {way!r}; it should be one of {', '.join(WAYS)}")
    if group.count == 1:
        return objective
    device = objective.student.device
    if way == "ddp":
        return DistributedDataParallel(objective, device_ids=None if device.type == "cpu" else [device.index])
    mesh = init_device_mesh(device.type, (group.count,))
    for layer in objective.student.model.language_model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(objective, mesh=mesh)


def gradients_wait(passes: nn.Module, *, last: bool):
    """Around all passes of a step but the last: with DDP gradients are summed over processes once a step."""
    return passes.no_sync() if isinstance(passes, DistributedDataParallel) and not last else nullcontext()


@torch.no_grad()
def gathered(tensors: Mapping[str, Tensor], group: Processes) -> dict[str, Tensor]:
    """Whole tensors on the CPU, in process 0; the others take part and keep nothing."""
    kept = {}
    for name, x in tensors.items():
        whole = x.full_tensor() if isinstance(x, DTensor) else x
        if group.first:
            kept[name] = whole.detach().cpu()
    return kept


@torch.no_grad()
def put(whole: Tensor, x: Tensor) -> None:
    """Write a whole tensor into x, of which this process may hold a part only."""
    if isinstance(x, DTensor):
        part = distribute_tensor(whole.to(x.device, x.dtype), x.device_mesh, x.placements, src_data_rank=None)
        x.to_local().copy_(part.to_local())
    else:
        x.copy_(whole)


def _device_of_messages() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
