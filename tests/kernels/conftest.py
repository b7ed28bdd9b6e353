"""On a machine without a GPU the kernels run under Triton's interpreter, which must be asked for before they load."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
