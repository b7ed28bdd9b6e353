"""Many runs at once: processes that take one run after another, each at home on one GPU.

A run that needs another's result waits for it, and nothing else waits. A run that fails leaves the others alone and is
told of at the end; those that are done stay done, and the same command does what is left.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace

import torch

from ..commands.faults import FAULTS
from .claims_runs import Run

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
AT_ONCE = 6  # runs on one GPU: while one's batches are put together, others' passes run; and there is room for so many
HEARTBEAT = 20  # seconds without news after which the steps are counted
_home = "cpu"  # of this process, once it is one of many


def homes(device: str | None) -> list[str]:
    """The devices that runs are spread over: all GPUs, or the one that was named."""
    if device not in (None, "cuda"):
        return [device]
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def _settle(places, threads: int) -> None:
    """A new process: where its runs run, and with how many threads."""
    global _home
    os.environ["TQDM_DISABLE"] = "1"  # bars of many processes would write over one another
    torch.set_num_threads(threads)
    if places is not None:
        _home = places.get()
        if _home.startswith("cuda"):
            torch.cuda.set_device(_home)


@contextmanager
def pool(count: int, places: Sequence[str] = ()) -> Iterator[ProcessPoolExecutor]:
    """`count` processes, spread evenly over the places."""
    context = multiprocessing.get_context("spawn")  # a copy of a process that has used a GPU can't use it
    queue = context.Queue() if places else None
    for number in range(count if places else 0):
        queue.put(places[number % len(places)])
    threads = max(1, CORES // count)
    made = ProcessPoolExecutor(count, context, initializer=_settle, initargs=(queue, threads))
    try:
        yield made
    finally:
        made.shutdown(cancel_futures=True)


def _perform(run: Run) -> None:
    replace(run, device=_home, quiet=True).perform()


def waits_for(run: Run, left: Sequence[Run]) -> bool:
    """Whether another run must be done first."""
    first = run.place.protocol.waits_for(run.arm)
    return any(other.arm.name == first and other.seed == run.seed for other in left)


def perform_all(runs: Sequence[Run], *, at_once: int, places: Sequence[str], say: Callable[[str], object]) -> None:
    """All runs whose results are not there yet, so many at once."""
    left = [run for run in runs if not run.place.result(run.arm.name, run.seed).exists()]
    if done := len(runs) - len(left):
        say(f"{done} of {len(runs)} runs are done already")
    if not left:
        return
    began, faults = time.monotonic(), {}

    def finished(run: Run, fault: BaseException | None) -> None:
        left.remove(run)
        if fault is not None:
            faults[run.name] = fault
        what = f"failed: {fault}" if fault is not None else "done"
        tell(f"{run.name} {what}; {len(left)} to go")

    def tell(line: str) -> None:
        say(f"{time.monotonic() - began:6.0f} s  {line}")

    if at_once == 1:
        for run in list(left):
            try:
                replace(run, device=places[0]).perform()
                finished(run, None)
            except Exception as fault:
                finished(run, fault)
    else:
        with pool(min(at_once, len(left)), places) as processes:
            side_by_side(left, processes, finished, tell)
    for fault in faults.values():
        if not isinstance(fault, FAULTS):
            raise fault  # not what a user can mend
    if faults:
        told = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        raise ValueError(f"{len(faults)} of {len(runs)} runs failed ({told}); run again to go on")


def side_by_side(left: list[Run], processes: Executor, finished: Callable, tell: Callable) -> None:
    """Each run as soon as it need not wait. `finished` takes it out of `left`."""
    under_way: dict[Future, Run] = {}
    while left:
        for run in left:
            if run not in under_way.values() and not waits_for(run, left):
                under_way[processes.submit(_perform, run)] = run
        ended = wait(under_way, timeout=HEARTBEAT, return_when=FIRST_COMPLETED).done
        for future in ended:
            fault = future.exception()
            if isinstance(fault, BrokenProcessPool):
                raise ChildProcessError("a process was killed; run again: what is done stays done")
            finished(under_way.pop(future), fault)
        if not ended:
            tell(pace(list(under_way.values())))


def pace(runs: Sequence[Run]) -> str:
    """How far these runs are."""
    done, all_of_them = (sum(getattr(run, what) for run in runs) for what in ("steps_done", "steps"))
    return f"{len(runs)} runs under way or waiting for a process: {done:,} of {all_of_them:,} steps"
