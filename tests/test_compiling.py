"""What is said while Triton compiles: once when it begins, once how long it took, and nothing when all is on disk."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

SCRIPT = """
from minivl.commands import compiling
compiling.tell()
compiling.tell()
from kernels.resource_rows import rows
from kernels.resources import resources
for row in list(rows("bf16", 128, 89))[:2]:
    resources(row, "bf16", 89)
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_compiling_is_told_the_first_time_and_only_then(tmp_path):
    place = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    said = [
        subprocess.run([sys.executable, "-c", SCRIPT], env=place, capture_output=True, text=True, check=True).stderr
        for _ in range(2)
    ]
    assert re.fullmatch(r"compiling kernels .*\n2 kernels compiled in \d+\.\d s; .*\n", said[0])
    assert said[1] == ""
