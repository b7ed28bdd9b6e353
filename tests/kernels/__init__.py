"""Tests of the kernels. Without a GPU they run under Triton's interpreter, which must be asked for before it loads."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

pytest.importorskip("triton", reason="the kernels need the package triton, which exists for Linux only")
