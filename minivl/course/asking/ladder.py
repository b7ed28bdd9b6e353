"""A rung of the ladder in one call or several, token by token, and versions that a student's properties try."""

import contextlib
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .plain import accepted


class Operations(TorchDispatchMode):
    """Counts PyTorch's operations."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def rule(find, tensors, *, function: str, cuts: list[int] = (), operations: bool = False, **options) -> dict:
    """A rung of the ladder: (q, k, v, *, gates, state) → (out, state). With `cuts`, in several calls that each go on
    from the last one's state; with `operations`, only how many it takes."""
    run, state = find(function), tensors.pop("state", None)
    options = accepted(run, **options)
    T, pieces = tensors["q"].shape[1], []
    edges = [0, *cuts, T]
    counted = Operations() if operations else contextlib.nullcontext()
    with counted:
        for start, stop in pairwise(edges):
            part = {name: x[:, start:stop] for name, x in tensors.items()}
            q, k, v = part.pop("q"), part.pop("k"), part.pop("v")
            given = {} if state is None else {"state": state}
            out, state = run(q, k, v, **part, **given, **options)
            pieces.append(out)
    if operations:
        return {"operations": torch.tensor(counted.count)}
    return {"out": torch.cat(pieces, 1), "state": state}


def steps(find, tensors, *, function: str, **options) -> dict[str, Tensor]:
    """One token at a time through a function that changes its state in place: the state is the one that was given."""
    run, state = find(function), tensors.pop("state")
    out = []
    for t in range(tensors["q"].shape[1]):
        part = {name: x[:, t : t + 1] for name, x in tensors.items()}
        q, k, v = part.pop("q"), part.pop("k"), part.pop("v")
        out.append(run(q, k, v, **part, state=state, **accepted(run, **options))[0])
    return {"out": torch.cat(out, 1), "state": state}


def properties(find, tensors, *, function: str, subject: str, versions: int, remote=None) -> dict[str, Tensor]:
    """Which versions of `subject` a student's properties catch. The versions are the grader's, and run there; without
    a grader, the student's own is tried."""

    def version(which: int):
        def run(q, k, v, *, state=None, log_decay=None, beta=None, **options):
            given = {"q": q, "k": k, "v": v, "state": state, "log_decay": log_decay, "beta": beta}
            given = {name: x for name, x in given.items() if x is not None}
            answer = remote(f"{which}", given, **options)
            return answer["out"], answer["state"]

        return run

    caught = []
    for which in range(versions):
        try:
            find(function)(version(which) if remote else find(subject))
            caught.append(0)
        except AssertionError:
            caught.append(1)
    return {"caught": torch.tensor(caught)}
