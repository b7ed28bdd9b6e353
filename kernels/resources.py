"""What the shipped configurations take on cards that need not be there: shared memory, registers, spills.

    python -m kernels.resources [--json] [--narrow] [89 …]     for sm_80, sm_89, sm_90 and sm_120, or those named

Triton compiles for any target without a GPU, and its own cuobjdump reads the machine code. What is compiled stands in
resource_rows.py.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .resource_rows import Row, rows

SHARED_MEMORY = {80: 166_912, 89: 101_376, 90: 232_448, 120: 101_376}  # bytes a block may use

# The types of arguments, by their names; all others are pointers to numbers of the inputs' dtype.
COUNTS = ("start", "T", "N", "H", "D", "R", "window", "rows", "per", "patches", "width", "outputs")
COUNTS += ("q_width", "k_width", "v_width", "batch_stride", "row_stride", "x_row", "other_row")
COUNTS += ("q_row", "k_row", "v_row", "gate_row", "a_row", "b_row")
FLOAT32 = ("gains", "log_decay", "beta", "state", "state_out", "d_state", "d_start", "d_log_decay", "d_beta")
FLOAT32 += ("q_tail", "k_tail", "v_tail", "answers", "partial", "cos", "sin", "scales")
INT64 = ("lengths", "number", "positions", "seen")
TYPES = dict.fromkeys(COUNTS, "i32") | dict.fromkeys(FLOAT32, "*fp32") | dict.fromkeys(INT64, "*i64")
TYPES |= {"arrivals": "*i32"} | dict.fromkeys(("scale", "eps", "factor"), "fp32")


def resources(row: Row, dtype: str, architecture: int) -> dict[str, int]:
    """Compile one kernel; pointers are 16-byte aligned, as PyTorch's are."""
    signature, attributes = {}, {}
    for place, name in enumerate(row.kernel.arg_names):
        signature[name] = "constexpr" if name in row.constants else {**TYPES, **row.types}.get(name, f"*{dtype}")
        if signature[name].startswith("*"):
            attributes[(place,)] = [["tt.divisibility", 16]]
    places = {(row.kernel.arg_names.index(name),): value for name, value in row.constants.items()}
    source = ASTSource(row.kernel, signature, constexprs=places, attrs=attributes)
    options = {"num_warps": row.warps, "num_stages": row.stages, "enable_fp_fusion": row.fused}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        report = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", report.stdout).groups()
    return {"shared": compiled.metadata.shared, "registers": int(registers), "spilled": int(stack)}


def table(architectures: list[int], *, narrow: bool = False) -> list[dict]:
    """One row per kernel, shape, dtype and architecture; narrow: only bf16 with K = 128, the model's."""
    return [
        {"kernel": row.name, "shape": row.shape, "dtype": dtype, "architecture": architecture}
        | resources(row, dtype, architecture)
        for architecture in architectures
        for dtype, K in (("bf16", 128), ("bf16", 256), ("fp32", 128), ("fp32", 256))[: 1 if narrow else None]
        for row in rows(dtype, K, architecture)
    ]


def main(arguments: list[str]) -> None:
    architectures = [int(x) for x in arguments if x.isdigit()] or list(SHARED_MEMORY)
    found = table(architectures, narrow="--narrow" in arguments)
    if "--json" in arguments:
        print(json.dumps(found))
        return
    print("sm    kernel              shape                dtype   shared bytes of allowed   registers  spilled bytes")
    for row in found:
        architecture = row["architecture"]
        print(
            f"{architecture:<5} {row['kernel']:<19} {row['shape']:<20} {row['dtype']:<6} "
            f"{row['shared']:>13,} {SHARED_MEMORY[architecture]:>10,} {row['registers']:>11} {row['spilled']:>14}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
