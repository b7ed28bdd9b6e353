"""What there is to compile: each kernel in each shape that it ships in, at the widest that its configuration serves.

Ragged tails, normalisation and everything else that can be asked for are asked for: they need the most.
"""

import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import triton

from . import matrix_vector, rotary, short_conv, window
from .backward import gradient_kernel, walks_kernel
from .chunked import chunk_kernel, state_kernel
from .configurations import choose
from .decode import SLICE, decode_kernel, warps
from .gating import gates_kernel, norm_kernel, product_kernel
from .step import step_kernel

V = 256  # of a linear layer
TORCH = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Row(NamedTuple):
    name: str
    shape: str
    kernel: Any
    constants: dict[str, Any]
    warps: int
    stages: int = 1
    types: Mapping[str, str] = MappingProxyType({})  # of arguments that have another type here than in other kernels
    fused: bool = True  # whether a product and a sum may become one instruction


def rows(dtype: str, K: int, architecture: int) -> Iterator[Row]:
    yield from delta_rule(dtype, K, architecture)
    yield from ring(dtype, K, architecture)
    if K == 128:  # the others' widths are of their own
        yield from between_products()
        yield from products(TORCH[dtype].itemsize)


def delta_rule(dtype: str, K: int, architecture: int) -> Iterator[Row]:
    shape = f"K {K}, V {V}"
    for backward in (False, True):
        row = choose(TORCH[dtype], K, divmod(architecture, 10), backward=backward)
        chunk = {"K": K, "C": row.chunk, "NORMALIZE": True, "BACKWARD": backward, "PRECISION": row.inverse_precision}
        loop = {"K": K, "V": V, "C": row.chunk, "SLICE": row.slice, "WHOLE": False, "PRECISION": row.precision}
        suffix = " (backward)" if backward else ""
        yield Row("chunk" + suffix, shape, chunk_kernel, chunk, row.chunk_warps)
        if not backward:
            yield Row(
                "state",
                shape,
                state_kernel,
                loop | {"HAS_STATE": True, "BACKWARD": False},
                row.state_warps,
                row.state_stages,
            )
    yield Row("walks", shape, walks_kernel, loop | {"HAS_STATE": True}, row.state_warps, row.state_stages)
    pairs = {"K": K, "V": V, "C": row.chunk, "SLICE": row.gradient_slice, "NORMALIZE": True, "PRECISION": row.precision}
    yield Row("gradient", shape, gradient_kernel, pairs, row.gradient_warps, row.gradient_stages)
    if dtype == "bf16":
        yield Row("step", shape, step_kernel, {"K": K, "V": V, "SLICE": 32, "NORMALIZE": True}, 2)
        token = {"K": K, "V": V, "SLICE": SLICE, "TAPS": 4, "HAS_LENGTHS": True}
        yield Row("decode", shape, decode_kernel, token, warps(K))


def ring(dtype: str, K: int, architecture: int) -> Iterator[Row]:
    shape = f"K {K}, 16 heads of 2"
    for few in (True, False):
        row = window.configuration(TORCH[dtype], K, divmod(architecture, 10), few=few)
        tile = {"HEADS": 16, "KEY_HEADS": 2, "K": K, "TIMES": row.rows // 8, "BLOCK": row.block}
        tile |= {"SPLITS": 128 if few else 1, "LATE": row.late, "TILES": row.tiles, "PRECISION": "tf32x3"}
        types = {"weight": "*fp32"} | ({"out": "*fp32"} if few else {})
        if row.tiles:  # which TMA fetches
            types |= dict.fromkeys(("keys", "values"), f"tensordesc<{dtype}[1,{row.block},{K}]>")
        name = "window (few)" if few else "window"
        yield Row(name, shape, window.window_kernel, tile, row.warps, row.stages, types)
    merge = {"SPLITS": 256, "K": K, "WIDTH": 32}
    yield Row("merge", shape, window.merge_kernel, merge, 4, types={"weight": "*fp32"})
    turn = {"HEADS": 16, "KEY_HEADS": 2, "K": K, "WIDTH": K // 2, "ROWS": rotary.ROWS, "HAS_LENGTHS": True}
    yield Row("ring", shape, rotary.ring_kernel, turn, 4, fused=False)


def between_products() -> Iterator[Row]:
    """The convolutions, norms and gates, and the vision tower's turn."""
    for times, steps, threads in ((8, 1, 2), (8, 8, 2), (64, 8, 1)):
        conv = {"TAPS": 4, "TIMES": times, "STEPS": steps, "WIDTH": short_conv.WIDTH, "HAS_LENGTHS": True}
        yield Row("conv", f"{steps} of {times} tokens", short_conv.conv_kernel, conv, threads)
    for name, width, added, gated in (
        ("norm", 2048, False, False), ("add norm", 2048, True, False), ("gated norm", V, False, True),
    ):  # fmt: skip
        norm = {"WIDTH": width, "ROWS": max(1, 1024 // width), "ADDED": added, "GATED": gated}
        yield Row(name, f"D {width:,}", norm_kernel, norm, 4)
    yield Row("product", "blocks of 2,048", product_kernel, {"BLOCK": 2048}, 4)
    yield Row("gates", "H 16", gates_kernel, {"WIDTH": 16, "ROWS": 32}, 4)
    turn = {"HEADS": 32, "K": 80, "WIDTH": 64, "ROWS": rotary.ROWS}
    yield Row("turn", "K 80, 32 heads", rotary.turn_kernel, turn, 4, fused=False)


def products(itemsize: int) -> Iterator[Row]:
    """A token's, with all that can be asked of each."""
    kernel, cut = matrix_vector.matvec_kernel, matrix_vector.configuration
    everything = dict.fromkeys(("NORMED", "BIASED", "ADDED"), True)
    for name, size, types in (("matvec", itemsize, {}), ("matvec (int8)", 1, {"weight": "*i8"})):
        for In, gated in itertools.product((2048, 4096, 11_008, matrix_vector.WIDEST), (False, True)):
            count, threads = cut(In, size, gated=gated)
            row = {"IN": In, "WIDTH": triton.next_power_of_2(In), "ROWS": count, "GATED": gated, "SCALED": size == 1}
            yield Row(name, f"In {In:,}{', gated' * gated}", kernel, row | everything, threads, types=types)
