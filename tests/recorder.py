"""CUDA graphs without a GPU: operations are recorded with their tensors and their numbers, and done again on demand.

What makes a graph stale on a GPU makes this one stale too: a number that lay in Python's hands at the recording is in
it for ever, and so is the tensor that was read. As there, recording leaves everything as it was, and an operation that
a graph cannot hold, such as a look at a number, is an error.
"""

from contextlib import contextmanager
from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LOOKS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"}


class Graph:
    """In place of torch.cuda.CUDAGraph."""

    made: ClassVar[list["Graph"]] = []

    def __init__(self):
        self.operations, self.replays = [], 0
        Graph.made.append(self)

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for function, arguments, named, out in self.operations:
            done = function(*arguments, **named)
            if not function._schema.is_mutable:
                for old, new in zip(tensors(out), tensors(done), strict=True):
                    old.copy_(new)


class Recording(TorchDispatchMode):
    """Notes operations in a graph. What lay there before gets back what it held."""

    def __init__(self, graph: Graph, *, strict: bool):
        super().__init__()
        self.graph, self.strict, self.before = graph, strict, {}

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        named, schema = named or {}, function._schema
        if self.strict and schema.name in LOOKS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {schema.name}")
        if schema.is_mutable:
            for x in tensors((arguments, tuple(named.values()))):
                storage = x.untyped_storage()
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        out = function(*arguments, **named)
        is_view = any(returned.alias_info is not None for returned in schema.returns) and not schema.is_mutable
        if not is_view and schema.name not in LOOKS:
            self.graph.operations.append((function, arguments, named, out))
        return out

    def put_back(self) -> None:
        for storage, held in self.before.values():
            storage.copy_(held)


def tensors(x) -> list[torch.Tensor]:
    if isinstance(x, torch.Tensor):
        return [x]
    return [tensor for part in x for tensor in tensors(part)] if isinstance(x, list | tuple) else []


def in_software(monkeypatch, *, strict: bool = True) -> type[Graph]:
    """From now on a CPU's steps are captured as a GPU's are. Gives the graphs that are made, in `made`."""

    @contextmanager
    def graph(made: Graph, **options):
        assert options == {"capture_error_mode": "thread_local"}
        recording = Recording(made, strict=strict)
        try:
            with recording:
                yield
        finally:
            recording.put_back()

    Graph.made = []
    monkeypatch.setattr("minivl.captured.recordable", lambda memory: True)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "here")
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    return Graph
