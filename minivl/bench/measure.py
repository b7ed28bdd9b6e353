"""How time and memory are measured, and on what: interleaved rounds, and every byte that the allocator hands out.

Time. All runs take part in every round, in a new order each time, so that whatever else the machine does falls on
all of them alike. A call just before the timed one warms the caches and the allocator, so that none pays for what its
neighbour left behind. A run of over a third of a second needs no warming, and after three rounds it sits out three of
four. The median is what counts; the fastest round is what the same code can do when nothing disturbs it.

Memory. PyTorch's profiler reports every allocation and release of the CPU allocator, those inside of a kernel too.
The peak is the largest sum of what a call holds at once beyond its inputs: intermediate values, outputs, final state.
"""

import os
import platform
import random
import time
from collections.abc import Callable, Hashable
from pathlib import Path

import torch
from tqdm import tqdm


def machine() -> dict[str, object]:
    """What a figure from here was measured on."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def cpu_model() -> str:
    """The processor's name as Linux knows it; elsewhere what Python is told."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def describe(on: dict[str, object]) -> str:
    """machine() in a line."""
    load = "" if on["load"] is None else f", load {on['load']} at the start"
    return (
        f"{on['cpu']}, {on['cores']} cores, {on['threads']} threads{load}; "
        f"{on['system']}, Python {on['python']}, torch {on['torch']}"
    )


def interleaved(runs: dict[Hashable, Callable[[], object]], *, rounds: int, label: str) -> dict[Hashable, list[float]]:
    """Seconds that each run took, round by round, by its name in `runs`."""
    seconds: dict[Hashable, list[float]] = {name: [] for name in runs}
    order = random.Random(0)
    with torch.no_grad():
        for number in tqdm(range(rounds), desc=label, unit="round", leave=False, disable=None):
            for name in order.sample(list(runs), len(runs)):
                slow = min(seconds[name], default=0) > 1 / 3
                if slow and number > 2 and number % 4:
                    continue
                if not slow:
                    runs[name]()
                start = time.perf_counter()
                runs[name]()
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that one call holds at once on the CPU, beyond what was there before it."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would announce itself on stderr
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.no_grad(), torch.profiler.profile(activities=cpu, profile_memory=True, acc_events=True) as profile:
        kept = run()  # until the profile ends: what a call returns counts too
    del kept
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
