"""Which tiles the ring's attention takes where: a small table, measured once (docs/ring-kernel.md), not tuned in use.

Every row fits the shared memory of its cards and spills nothing: `python -m kernels.resources` compiles them all.
"""

from typing import NamedTuple

import torch


class Configuration(NamedTuple):
    rows: int  # of a tile of queries
    block: int  # keys a step
    warps: int
    stages: int  # steps in flight from memory at once
    late: bool = False  # values added one step late: for tensor cores that work on while threads make the next softmax
    tiles: bool = False  # keys and values fetched by TMA
    least: int = 256  # numbers that a program should have to itself


# (K at most 128, wider keys)
FEW = (Configuration(16, 64, 4, 2, least=64), Configuration(16, 32, 4, 2, least=64))
HOPPER = (Configuration(64, 64, 4, 3, late=True, tiles=True), Configuration(64, 32, 4, 2, late=True, tiles=True))
OTHERS = (Configuration(64, 64, 4, 2), Configuration(64, 32, 8, 2))
EXACT = Configuration(16, 16, 4, 2)  # float32: in no hurry


def configuration(dtype: torch.dtype, K: int, capability: tuple[int, int], *, few: bool) -> Configuration:
    """`few`: so few queries that they hardly fill a tile."""
    if dtype == torch.float32:
        return EXACT
    row = FEW if few else HOPPER if capability[0] == 9 else OTHERS
    return row[K > 128]


def splits_of(programs: int, span: int, least: int) -> int:
    """How many programs share a tile's numbers: enough to fill a large GPU, each with at least `least` numbers."""
    wanted = min(256 // programs, span // least)
    return 1 << max(0, wanted.bit_length() - 1)
