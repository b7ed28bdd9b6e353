"""Times and errors of the kernels, beside Flash Linear Attention and FlashQLA where they are installed, in one run.

    python -m minivl bench kernels [--quick] [--json FILE] [--plot FILE.png]

Shapes are the model's: B 1, H 16, K 128, V 256, bfloat16, normalised q and k, a starting state and a final one. Times
are medians of device events; "graph" is inside a captured CUDA graph, "eager" outside it, Python and launches included.
Inputs are random and several sets rotate. Errors are relative norms against the float64 recurrence (bench_errors.py);
what a peer is and how its inputs are laid out, bench_peers.py says.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import triton
from torch import Tensor

from minivl.bench.measure import cpu_model

from . import bench_decode
from .bench_errors import Draw, errors, wide
from .bench_peers import OURS, SCALE, Library, libraries
from .bench_report import B, plot, report
from .chunked import forward


def inputs(T: int, *, batch: int = B, seed: int = 0) -> dict[str, Tensor]:
    return wide(Draw(seed), batch, T)


def with_seeds(case: dict[str, Tensor]) -> dict:
    """The case with gradients asked for, and what a backward pass starts from."""
    leaves = {name: x.detach().requires_grad_() for name, x in case.items()}
    return leaves | {"seeds": [torch.randn_like(x) for x in (case["v"], case["state"])]}


def median(run: Callable[[int], object], repeats: int, per_event: int = 1) -> float:
    """Milliseconds of one run(i), i counting up."""
    times = []
    for i in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run(i)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / per_event)
    return sorted(times)[len(times) // 2]


def timed(library: Library, run: Callable, cases: list[dict], *, graph: bool, repeats: int = 20) -> dict:
    """{"ms": the median of run(**case), the cases rotating}; no time but the reason, "refused", where it won't run."""

    def measured() -> float:
        for i in range(3):
            run(**cases[i % len(cases)])
        torch.cuda.synchronize()
        if not graph:
            return median(lambda i: run(**cases[i % len(cases)]), repeats)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            for case in cases:
                run(**case)
        captured.replay()
        return median(lambda i: captured.replay(), repeats, per_event=len(cases))

    ms, refused = library.attempt(measured)
    return {"ms": ms, "refused": refused} if refused else {"ms": ms}


def with_gradients(run: Callable) -> Callable:
    """Forward and backward, for every input."""

    def both(**case):
        seeds = case.pop("seeds")
        torch.autograd.grad(run(**case), list(case.values()), seeds)

    return both


def host_microseconds(run: Callable, repeats: int = 200) -> float:
    """What the processor spends on one call, the queue never full."""
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e6 * sorted(times)[repeats // 2]


def memory_beyond(rule: Callable, T: int) -> float:
    """GB taken at the peak of a forward pass, beyond its inputs and outputs."""
    case = inputs(T)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = rule(**case)
    kept = sum(x.nbytes for x in results)
    return (torch.cuda.max_memory_allocated() - before - kept) / 1e9


def rows_of_lengths(found: dict[str, Library], lengths: list[int]) -> list[dict]:
    """Forward, and forward with backward, by T."""
    rows = []
    for T in lengths:
        cases = [inputs(T, seed=seed) for seed in range(4 if T <= 8192 else 1)]
        for name, library in found.items():
            fitted = [library.fit(case) for case in cases]
            for graph in () if library.backward_only else (True, False):
                row = {"what": "forward", "T": T, "library": name, "graph": graph}
                with torch.no_grad():
                    rows.append(row | timed(library, library.rule, fitted, graph=graph))
            if 2048 <= T <= 32768:
                row = {"what": "forward + backward", "T": T, "library": name, "graph": False}
                fitted = [with_seeds(case) for case in fitted]
                rows.append(row | timed(library, with_gradients(library.rule), fitted, graph=False))
    return rows


@torch.no_grad()
def rows_of_steps(found: dict[str, Library]) -> list[dict]:
    """One token of each row: the rule's step, and all that stands between a layer's projections; by batch."""
    rows = []

    def add(what: str, name: str, run: Callable, cases: list[dict], batch: int) -> None:
        for graph in (True, False):
            row = {"what": what, "batch": batch, "library": name, "graph": graph}
            rows.append(row | timed(found[name], run, cases, graph=graph))

    for batch in (1, 8, 32):
        cases = [inputs(1, batch=batch, seed=seed) for seed in range(8)]
        for name, library in found.items():
            if library.step:
                add("step", name, library.step, cases, batch)
    for batch in (1, 8, 32):
        cases = [bench_decode.case(batch, seed) for seed in range(40 if batch == 1 else 8)]
        for what, form in bench_decode.FORMS.items():
            add(what, OURS, form, cases, batch)
    return rows


def host_times(found: dict[str, Library], T: int = 256) -> dict[str, float]:
    case = inputs(T)
    tensors = [case[name] for name in ("q", "k", "v", "log_decay", "beta", "state")]
    rule = found[OURS].rule
    with torch.no_grad():
        times = {
            "bare launcher": host_microseconds(lambda: forward(*tensors, SCALE, True)),
            "operator": host_microseconds(lambda: rule(**case)),
        }
        for name, library in found.items():
            if name != OURS and not library.backward_only:
                fitted = library.fit(case)
                took, _ = library.attempt(lambda: host_microseconds(lambda: library.rule(**fitted)))  # noqa: B023
                times |= {name: took} if took else {}
    leaves = {name: x.requires_grad_() for name, x in case.items()}
    return times | {"operator with autograd": host_microseconds(lambda: rule(**leaves))}


def measure(quick: bool) -> dict:
    found, missing = libraries()
    lengths = [256, 2048, 8192] if quick else [64, 256, 1024, 2048, 8192, 32768, 131072]
    with torch.no_grad():
        workspace = memory_beyond(found[OURS].rule, lengths[-1])
    return {
        "device": torch.cuda.get_device_name(),
        "processor": cpu_model(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "rows": rows_of_lengths(found, lengths) + rows_of_steps(found),
        "host_microseconds_at_256": host_times(found),
        "workspace_gb": workspace,
        "errors": errors(found),
        "notes": {name: library.note for name, library in found.items() if library.note},
        "missing": missing,
    }


def run(*, quick: bool = False, json_file: Path | None = None, plot_file: Path | None = None) -> None:
    found = measure(quick)
    report(found)
    if json_file:
        json_file.write_text(json.dumps(found, indent=1))
    if plot_file:
        plot(found, plot_file)
