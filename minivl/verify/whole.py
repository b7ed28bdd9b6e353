"""The third part of verify: the whole model on one prompt, each thing that has two ways of being done done both ways.

Read at once, in pieces through the memory, and word by word at the end, the prompt must give the same; the vision tower
must give the same fused as it is loaded, and something else for another picture; and so must the whole model, fused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from ..generate import prefill
from ..memory import Memory
from ..model import InfiniteVL
from ..processor import Inputs
from .report import Report, name_of, relative_error

# A model in 16 bits rounds anew in each of its layers, pieces round differently, and later layers amplify it.
WHOLE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 2.5e-1, torch.float16: 4e-2}
TOWER = {torch.float64: 1e-8, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
BLIND = 1e-3  # the least by which another picture must change the tower's answer
PIECE, WORDS = 64, 8


@contextmanager
def last_layer(model: InfiniteVL) -> Iterator[list[Tensor]]:
    """What the last layer gives, call by call, [T, D] each."""
    kept = []
    hook = model.model.language_model.layers[-1].register_forward_hook(lambda *call: kept.append(call[-1][0]))
    try:
        yield kept
    finally:
        hook.remove()


def read_at_once(model: InfiniteVL, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """What the last layer gives for every token [T, D], and the logits after the last one."""
    with last_layer(model) as kept:
        logits = model(inputs.ids, positions=inputs.positions, pixels=inputs.pixels, grids=inputs.grids, last_only=True)
    return torch.cat(kept), logits[0, -1]


def read_in_pieces(model: InfiniteVL, inputs: Inputs) -> tuple[Tensor, Memory]:
    """The logits through a memory, which comes along: pieces of 64, the last words one by one."""
    memory = model.new_memory(longest_write=PIECE, room=inputs.ids.shape[1])
    start = replace(
        inputs,
        ids=inputs.ids[:, :-WORDS],
        positions=inputs.positions[:, :, :-WORDS],
        mask=inputs.mask[:, :-WORDS],
    )
    prefill(model, start, memory)
    for word in inputs.ids[0, -WORDS:]:
        logits = model(word.view(1, 1), memory=memory, last_only=True)
    return logits[0, -1], memory


def check_streaming(model: InfiniteVL, inputs: Inputs, at_once: tuple[Tensor, Tensor], report: Report) -> None:
    with last_layer(model) as kept:
        logits, memory = read_in_pieces(model, inputs)
    hidden = torch.cat(kept)
    dtype, bound = name_of(model.dtype), WHOLE[model.dtype]
    errors = {
        "the last layer at every token": relative_error(hidden.double(), at_once[0].double()),
        "the scores of the next word": relative_error(logits.double(), at_once[1].double()),
    }
    for what, error in errors.items():
        line = f"streamed = at once in {dtype}: {what}, error {error:.0e}, bound {bound:.0e}"
        report.check(error <= bound, line, f"streamed ≠ at once: {what}, error {error:.0e}, bound {bound:.0e}")
    states = sum(x.nbytes for name, x in memory.tensors().items() if name.endswith(".state"))
    report.facts["whole"] = {
        "errors": errors,
        "bound": bound,
        "memory_bytes": memory.nbytes,
        "state_bytes": states,
    }
    report.show(f"         memory {memory.nbytes:,} bytes, states {states:,} of them, after any number of tokens")


def check_tower(model: InfiniteVL, inputs: Inputs, report: Report) -> None:
    """Fuses the model's tower."""
    tower, pixels, dtype = model.model.visual, inputs.pixels.to(model.dtype), name_of(model.dtype)
    seen, other = tower(pixels, inputs.grids), tower(-pixels.flip(0), inputs.grids)
    if not report.check(bool(seen.isfinite().all()), f"the vision tower's answer is finite in {dtype}"):
        return
    change = relative_error(other.double(), seen.double())
    report.check(
        change > BLIND,
        f"another picture changes the vision tower's answer by {change:.0e} of its size, at least {BLIND:.0e}",
        f"the vision tower is dead: another picture changes its answer by {change:.0e} only",
    )
    cells = relative_error(seen.double(), seen.double().mean(0, keepdim=True).expand_as(seen))
    report.check(
        cells > BLIND,
        f"its vectors differ from cell to cell by {cells:.0e} of their size, at least {BLIND:.0e}",
        f"the vision tower is dead: its vectors differ from cell to cell by {cells:.0e} only",
    )
    tower.fuse()
    error, bound = relative_error(tower(pixels, inputs.grids).double(), seen.double()), TOWER[model.dtype]
    line = f"the vision tower fused = as loaded in {dtype}, error {error:.0e}, bound {bound:.0e}"
    report.check(error <= bound, line)
    report.facts["tower"] = {"another_picture": change, "from_cell_to_cell": cells, "fused": error, "bound": bound}


def check_fused(model: InfiniteVL, inputs: Inputs, at_once: tuple[Tensor, Tensor], report: Report) -> None:
    """As chat runs it, on a GPU by kernels that do whole layers. The last check: the model stays fused."""
    logits, _ = read_in_pieces(model.fuse(), inputs)
    error, bound = relative_error(logits.double(), at_once[1].double()), WHOLE[model.dtype]
    line = f"fused and streamed = as loaded, at once, in {name_of(model.dtype)}: error {error:.0e}, bound {bound:.0e}"
    report.check(error <= bound, line)
    report.facts["fused"] = {"error": error, "bound": bound}
