"""Every shipped configuration compiles for every card, on a machine without any, and fits an RTX 4090."""

import itertools
import json
import os
import subprocess
import sys

import pytest
import torch
import triton

from kernels.configurations import choose
from kernels.matrix_vector import WIDEST, configuration
from kernels.resource_rows import products
from kernels.resources import SHARED_MEMORY

DELTA_RULE = {"chunk", "chunk (backward)", "state", "walks", "gradient", "step", "decode"}
RING = {"window", "window (few)", "merge", "ring"}
BETWEEN_PRODUCTS = {"conv", "norm", "add norm", "gated norm", "product", "gates", "turn"}
PRODUCTS = {"matvec", "matvec (int8)"}

# Of spilled registers, a thread, in 16 bits: the most that any kernel has by each compiler, the pinned Triton 3.7.1 and
# 3.6.0, of the delta rule's and of the others. float32's kernels have no speed to lose.
FEW_BYTES, OTHERS = (144, 16) if triton.__version__.startswith("3.6.") else (120, 0)


@pytest.fixture(scope="module")
def compilers():
    """One process for each architecture, side by side, since the interpreter, asked for here, puts the compiler out of
    reach. sm_80 and sm_120 have the same rows as sm_89: one shape of them suffices."""
    command = [sys.executable, "-m", "kernels.resources", "--json"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, "TRITON_INTERPRET": "0"}}
    started = {
        architecture: subprocess.Popen([*command, str(architecture), *narrow], text=True, **options)
        for architecture, narrow in ((80, ["--narrow"]), (89, []), (90, []), (120, ["--narrow"]))
    }
    yield started
    for process in started.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("architecture", SHARED_MEMORY)
def test_every_configuration_fits(architecture, compilers):
    output, errors = compilers[architecture].communicate()
    assert compilers[architecture].returncode == 0, errors
    rows = json.loads(output)
    assert {row["architecture"] for row in rows} == {architecture}
    assert {row["kernel"] for row in rows if row["dtype"] == "bf16"} == DELTA_RULE | RING | BETWEEN_PRODUCTS | PRODUCTS
    assert SHARED_MEMORY[89] == 101_376  # an RTX 4090's
    for row in rows:
        assert row["shared"] <= SHARED_MEMORY[architecture], row
        if row["dtype"] == "bf16":
            assert row["spilled"] <= (FEW_BYTES if row["kernel"] in DELTA_RULE else OTHERS), row


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_every_configuration_of_a_tokens_products_is_among_them_at_its_widest(dtype):
    compiled = [(row.warps, row.constants) for row in products(dtype.itemsize)]
    for int8, gated, In in itertools.product((False, True), (False, True), range(1, WIDEST + 1, 511)):
        rows, warps = configuration(In, 1 if int8 else dtype.itemsize, gated=gated)
        wanted = {"SCALED": int8, "GATED": gated, "ROWS": rows}
        found = [row["IN"] for threads, row in compiled if threads == warps and wanted.items() <= row.items()]
        assert max(found, default=0) >= In, f"{warps} warps, {wanted}"


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("K", [16, 128, 256])
@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (12, 0)])
def test_spans_are_whole_chunks(capability, K, backward):
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        config = choose(dtype, K, capability, backward=backward)
        assert config.span % config.chunk == 0
