"""Which tile sizes run where: a small table by dtype and architecture, chosen once and measured, not tuned at run time.

Autotuning would take memory and seconds at the first call of each length, and inside a captured graph it cannot run.
Every row compiles into the shared memory of its card (`python -m kernels.resources` shows it on any machine).
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Configuration:
    """chunk: C. slice: columns of V per program. precision: of products of float32 tiles (16-bit tiles ignore it)."""

    chunk: int = 64
    span: int = 16384
    slice: int = 64
    chunk_warps: int = 4
    state_warps: int = 4
    state_stages: int = 3
    reverse_stages: int = 2
    gradient_slice: int = 32
    gradient_warps: int = 8
    gradient_stages: int = 2
    precision: str = "tf32"
    inverse_precision: str = "tf32"


@functools.cache
def choose(dtype: torch.dtype, K: int, V: int, capability: tuple[int, int]) -> Configuration:
    if dtype == torch.float32:
        return Configuration(chunk=32, slice=32, precision="tf32x3", inverse_precision="tf32x3", state_stages=2,gradient_slice=16)
    return Configuration()


def configuration(q: Tensor, V: int) -> Configuration:
    """The configuration for these inputs on their device; the interpreter, on a CPU, runs sm_89's."""
    capability = torch.cuda.get_device_capability(q.device) if q.is_cuda else (8, 9)
    return choose(q.dtype, q.shape[-1], V, capability)
