"""The one loop of all stages: examples by number, sums divided once, a step, a row in the log, at times a checkpoint.

A step's numbers are a function of its own number: which examples, what rate. The weights, the optimiser's averages and
the states of random numbers are in the checkpoint. So a run that was killed at any moment and goes on gives the losses
that it would have given, bit for bit.

    loss(s) = Σ objective(batch) / Σ units(batch)      over all batches of all processes in step s
"""

import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from . import not_finite
from .distributed import Processes, gradients_wait, spread
from .examples import Batch
from .feeding import loader, next_step
from .freezing import learning
from .memory_saving import autocast, recompute, widen
from .objectives import Objective
from .optimiser import adamw, clip, fill_gradients, gradient_length, rate, set_rate, warm_steps
from .progress import Log, bar
from .recorded import Pass, Recorded
from .resuming import keep, last_good, normal, resume, seed_all
from .settings import FREE, Settings
from .sources import described

LOG = "log.csv"
ALONE = Processes()


def train(
    objective: Objective,
    data,
    out: Path,
    settings: Settings,
    *,
    group: Processes = ALONE,
    identity: dict | None = None,
    label: str = "training",
    quiet: bool = False,
    stepped: Callable[[int, float], object] = lambda step, loss: None,
) -> None:
    """Train what learns in the objective's student, in place; go on where `out` holds an earlier part of this run.

    `data[number]` is an Example that depends on the number only, for numbers from 0 without end. `identity` is what
    else must be the same for a run to go on.
    """
    settings.passes(group.count)  # or they can't be made
    device = objective.student.device
    casts = settings.bf16 if settings.bf16 is not None else device.type == "cuda"
    passes = prepared(objective, settings, group, casts)
    learns = learning(objective.student)
    if objective.beside is not None:
        learns |= {f"beside.{name}": x for name, x in objective.beside.named_parameters()}
    run = partial(one_pass, passes, device=device, casts=casts)
    if settings.recorded:
        if device.type != "cuda" or group.count > 1:
            raise ValueError(f"recorded is for one process with a GPU; here are {group.count}, on {device.type}")
        run = Recorded(run, learns.values(), objective.student)
    optimiser = adamw(learns, weight_decay=settings.weight_decay)
    seed_all(settings.seed)
    held = {name: value for name, value in dataclasses.asdict(settings).items() if name not in FREE}
    held |= {"bf16": casts, "learns": sorted(learns), "data": described(data)} | (identity or {})
    held = normal(held)
    done = resume(out, held, learns, optimiser, say=group.first and not quiet)
    group.wait()  # until all have read: process 0 is about to clear up

    log = Log(out / LOG, done=done) if group.first else None
    quiet = quiet or not group.first
    made = iter(loader(data, objective.student.config, settings, group, done))
    warm = warm_steps(settings.steps, settings.warmup)
    steps = bar(range(done, settings.steps), done=done, total=settings.steps, label=label, quiet=quiet)
    try:
        for step in steps:
            began = time.perf_counter()
            some = next_step(made, settings, group)
            loss, units = gradients(objective, passes, some, settings, group, run)
            fill_gradients(learns.values())
            length = gradient_length(learns.values())
            if not (math.isfinite(loss) and math.isfinite(length)):
                what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's length is {length}"
                with autocast(device, casts):
                    raise not_finite.told(step + 1, what, objective, passes, some, last_good(out))
            clip(learns.values(), length, settings.clip)
            now = rate(step, steps=settings.steps, warm=warm, peak=settings.learning_rate)
            set_rate(optimiser, now)
            optimiser.step()
            optimiser.zero_grad(set_to_none=not settings.recorded)  # a graph adds to gradients where they lie
            if log is not None:
                seconds = round(time.perf_counter() - began, 4)
                log.add(step=step + 1, loss=loss, rate=now, gradient=length, units=units, seconds=seconds)
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                keep(out, step + 1, held, learns, optimiser, group, log)
            steps.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            stepped(step + 1, loss)
    finally:
        if log is not None:
            log.close()


def prepared(objective: Objective, settings: Settings, group: Processes, casts: bool) -> nn.Module:
    """The objective as passes call it, its models in the dtypes that they are trained in."""
    names = learning(objective.student)
    if not names:
        raise ValueError("nothing learns in the student; freezing.freeze says which parts do")
    if lost := [name for name in names if not objective.reaches(name)]:
        raise ValueError(
            f"{type(objective).__name__} teaches nothing to {', '.join(lost[:3])}{' and others' if lost[3:] else ''}, "
            f"which should learn"
        )
    for model in (objective.student, objective.teacher):
        if model is not None:
            cut_up = settings.spread == "fsdp" and model is objective.student  # FSDP2 gathers numbers of one dtype
            widen(model, all_of_it=not casts or cut_up)
    if settings.recompute:
        recompute(objective.student)
    return spread(objective, settings.spread, group)


def gradients(
    objective: Objective, passes: nn.Module, batches: list[Batch], settings: Settings, group: Processes, run: Pass
) -> tuple[float, int]:
    """Leave the step's gradient in the parameters; its loss, and what that was divided by."""
    (units,) = group.total(sum(objective.units(batch) for batch in batches))
    if not units:
        raise ValueError(f"a step of {settings.batch} examples has no {objective.per} to learn from")
    total = 0.0
    for number, batch in enumerate(batches):
        with gradients_wait(passes, last=number == len(batches) - 1):
            total = total + run(batch, group.count / units)  # spread modules take the mean over processes, not the sum
    (total,) = group.total(float(total))
    return total / units, int(units)


def one_pass(passes: nn.Module, batch: Batch, factor: Tensor | float, *, device: torch.device, casts: bool) -> Tensor:
    """The sum of a batch's losses; the gradient of `factor` times it is added to the parameters'."""
    with autocast(device, casts):
        loss = passes(batch.to(device))
    (loss * factor).backward()
    return loss.detach()
