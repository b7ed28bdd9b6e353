"""A run that goes on: what is kept at a checkpoint, how it is put back, and which runs may go on at all."""

import json
import logging
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import saving
from .distributed import Processes, gathered, put
from .optimiser import moments
from .progress import Log

CHECKPOINTS = "checkpoints"
log = logging.getLogger(__name__)


def keep(
    out: Path,
    step: int,
    held: dict,
    learns: Mapping[str, nn.Parameter],
    optimiser: torch.optim.AdamW,
    group: Processes,
    rows: Log | None,
) -> None:
    """A checkpoint of this moment, by process 0."""
    tensors = {f"weight.{name}": x for name, x in learns.items()} | moments(optimiser, learns)
    tensors = gathered(tensors, group)
    if group.first:
        rows.flush()
        saving.save(out / CHECKPOINTS, saving.Saved(step, held, randomness(), tensors))
    group.wait()


def resume(
    out: Path, held: dict, learns: Mapping[str, nn.Parameter], optimiser: torch.optim.AdamW, *, say: bool
) -> int:
    """Put the newest checkpoint's numbers in place, if there is one; how many steps are done."""
    out.mkdir(parents=True, exist_ok=True)
    saved, faults = saving.newest(out / CHECKPOINTS)
    if saved is None:
        return 0
    same(saved.settings, held, out)
    if say and faults:
        log.warning("%s; going on from step %d", "; ".join(faults), saved.step)
    for name, parameter in learns.items():
        with torch.no_grad():
            put(saved.tensors[f"weight.{name}"], parameter)
        where = parameter.device if optimiser.defaults["fused"] else "cpu"  # as a first step would have made it
        state = {"step": torch.tensor(float(saved.step), device=where)}
        for which in ("exp_avg", "exp_avg_sq"):
            state[which] = torch.zeros_like(parameter)
            put(saved.tensors[f"{which}.{name}"], state[which])
        optimiser.state[parameter] = state
    set_randomness(saved.randomness)
    return saved.step


def same(before: dict, now: dict, out: Path) -> None:
    """The settings of a run that goes on are those it began with."""
    differ = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if differ:
        changes = "; ".join(
            f"{name} was {short(before.get(name))} and is now {short(now.get(name))}" for name in differ
        )
        raise ValueError(
            f"{out} holds a run of another configuration: {changes}; choose another folder, or the same settings"
        )


def normal(held: dict) -> dict:
    """Settings as they come back from a file."""
    return json.loads(json.dumps(held))


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def last_good(out: Path) -> str:
    found = saving.checkpoints(out / CHECKPOINTS)
    return f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"


def randomness() -> dict:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    version, state, gauss = random.getstate()
    found = {"torch": torch.get_rng_state().numpy().tobytes().hex(), "python": [version, list(state), gauss]}
    return found | {"numpy": [kind, keys.tolist(), *rest]}


def set_randomness(found: dict) -> None:
    version, state, gauss = found["python"]
    random.setstate((version, tuple(state), gauss))
    kind, keys, *rest = found["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(found["torch"]), dtype=torch.uint8))


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the state that others' code may draw from
