"""A step of the model as a CUDA graph: recorded once for a memory, then replayed for every token or every frame.

A step's hundreds of kernels take less time to run than to launch, one by one, from Python. A graph launches them all
at once. It stays right for ever, since nothing in a step depends on a number in Python's hands: the place in each
ring, the counters and the positions lie in tensors on the device, and the graph itself advances them. What changes
from step to step, a token or a frame's pixels, is written into tensors that the graph reads.
"""

import copy
import ctypes
import math
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from .memory import Memory

EAGER = 3  # tokens before the recording: it costs about as much as two of them, and many an answer ends sooner
RECORDING = threading.Lock()  # PyTorch records one graph at a time


class Captured:
    """run(memory), over and over, for one memory into which each call takes `tokens` tokens a row.

    The first `eager` calls run as they are, and so does every one on a CPU. From then on the graph is replayed, and
    each call overwrites what the one before gave. The weights must stay where they were at the recording.
    """

    def __init__(self, run: Callable[[Memory], Tensor | None], memory: Memory, *, tokens: int = 1, eager: int = EAGER):
        self.run, self.memory, self.tokens = run, memory, tokens
        self.eager = eager if recordable(memory) else math.inf
        self.graph = self.out = None

    def prepare(self) -> None:
        """Record, if it is time. The memory stays as it is, also when there is no room for the graph."""
        if self.graph is None and self.eager == 0:
            self.graph, self.out = record(self.run, self.memory)

    @torch.no_grad()
    def __call__(self) -> Tensor | None:
        self.prepare()
        if self.graph is None:
            self.eager -= 1
            return self.run(self.memory)
        self.memory.admit(self.memory.config, len(self.memory.seen), self.tokens)
        self.memory.take(self.tokens)
        self.graph.replay()
        return self.out


def recording(x: Tensor) -> bool:
    """Whether what is done to x is being recorded, so that nothing may depend on its numbers."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def recordable(memory: Memory) -> bool:
    return memory.seen.is_cuda


@torch.no_grad()
def record(run: Callable[[Memory], Tensor | None], memory: Memory) -> tuple[torch.cuda.CUDAGraph, Tensor | None]:
    """The graph of run(memory), and where it leaves its answer. Nothing runs on the device.

    What a first call sets up must not be recorded, so `run` should have been called before. Other threads may use the
    device meanwhile.
    """
    graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    same = copy.copy(memory)  # its very tensors; only what is counted on the host is its own, and thrown away
    try:
        with RECORDING, torch.cuda.graph(graph, capture_error_mode="thread_local"):
            return graph, run(same)
    except RuntimeError as fault:  # a recording that is broken off may fail to end, which hides why, and where we were
        torch.cuda.set_stream(here)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(graph))  # kept for ever: destroying such a graph ends the process
        first = fault.__context__
        raise (first if isinstance(first, torch.OutOfMemoryError | KeyboardInterrupt) else fault) from None


class CapturedStep:
    """step(model, memory, token, mask) → scores, for one model and memory; the next call overwrites the scores."""

    def __init__(self, step: Callable[..., Tensor], model, memory: Memory):
        self.token = token = torch.zeros_like(memory.seen)
        self.mask = mask = torch.ones_like(memory.seen, dtype=torch.bool)
        self.alone = Captured(lambda memory: step(model, memory, token, None), memory)
        self.masked = Captured(lambda memory: step(model, memory, token, mask), memory)

    def __call__(self, token: Tensor, mask: Tensor | None = None) -> Tensor:
        """token [B] → scores [B, vocabulary]. A row whose mask [B] is False takes nothing in."""
        self.token.copy_(token)
        if mask is None:
            return self.alone()
        self.mask.copy_(mask)
        return self.masked()
