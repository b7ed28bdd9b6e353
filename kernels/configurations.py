"""Which tile sizes run where: a small table by dtype, key width and architecture, measured once, not tuned at run time.

Autotuning would take memory and seconds at the first call of each length, and inside a captured graph it cannot run.
Every row fits the shared memory of its cards: `python -m kernels.resources` compiles them all, on any machine.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)  # compared and hashed as the object it is: a launcher looks things up by it
class Configuration:
    """Of the kernels chunk, state and gradient: warps of a program, and stages, that is how many chunks
    (or slices) are in flight from memory at once. What is said of state holds for the loop back, too."""

    chunk: int  # C
    slice: int  # columns of V per program of both loops
    chunk_warps: int = 4
    state_warps: int = 4
    state_stages: int = 2
    gradient_slice: int = 32  # columns of V per round of gradient's loops
    gradient_warps: int = 8
    gradient_stages: int = 2
    span: int = 16384  # tokens per pair of launches, a multiple of C: bounds the memory between the two kernels
    precision: str = "tf32"  # of products of float32 numbers; tiles of 16-bit numbers do not ask
    inverse_precision: str = "tf32"


# (forward, backward), by (is the dtype of 16 bits, is K at most 128, is the card a Hopper)
HOPPER = (
    Configuration(chunk=32, slice=64, chunk_warps=2, state_stages=3),
    Configuration(chunk=64, slice=64, state_stages=3, gradient_slice=64, gradient_stages=3),
)
NARROW = (
    Configuration(chunk=32, slice=32, state_stages=3),
    Configuration(chunk=32, slice=32, state_stages=3),
)
WIDE = (
    Configuration(chunk=32, slice=32),
    Configuration(chunk=32, slice=16),
)
EXACT = {"chunk": 16, "gradient_slice": 16, "precision": "tf32x3", "inverse_precision": "tf32x3"}
NARROW_EXACT = (Configuration(slice=32, **EXACT), Configuration(slice=32, **EXACT))
WIDE_EXACT = (Configuration(slice=16, **EXACT), Configuration(slice=16, **EXACT))


@functools.cache
def choose(dtype: torch.dtype, K: int, capability: tuple[int, int], *, backward: bool = False) -> Configuration:
    if dtype == torch.float32:
        row = NARROW_EXACT if K <= 128 else WIDE_EXACT
    elif K > 128:
        row = WIDE
    else:
        row = HOPPER if capability == (9, 0) else NARROW
    return row[backward]


@functools.cache
def capability(device: torch.device) -> tuple[int, int]:
    """(8, 9) on a CPU, where the interpreter runs what an RTX 4090 would."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (8, 9)


def configuration(q: Tensor, *, backward: bool = False) -> Configuration:
    """The configuration for these inputs on their device."""
    return choose(q.dtype, q.shape[-1], capability(q.device), backward=backward)
