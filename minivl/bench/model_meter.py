"""What one piece of work takes of a device: milliseconds by its own clock, and the most memory that was held.

On a GPU the clock is a pair of events around the work, so that Python's share counts only where the device waits for
it, and what ships as a CUDA graph is timed as one. On a CPU there are no events, graphs or counters: the same code is
timed by the host's clock, and memory is not measured. So everything here runs, and is tested, on any machine.
"""

import gc
import statistics
import time
from collections.abc import Callable

import torch


class Meter:
    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.cuda = self.device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.cuda:
            torch.cuda.synchronize()

    def captured(self, run: Callable[[], object]) -> Callable[[], object]:
        """`run` as a CUDA graph, after two calls that set up whatever a first call does. On a CPU `run` itself."""
        if not self.cuda:
            return run
        run()
        run()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = run()

        def replay() -> object:
            graph.replay()
            return out

        return replay

    def times(
        self, run: Callable[[], object], repeats: int, *, before: Callable[[], object] = lambda: None
    ) -> list[float]:
        """Milliseconds of each call; what `before` does ahead of each is not counted."""
        marks = []
        for _ in range(repeats):
            before()
            start = self.mark()
            run()
            marks.append((start, self.mark()))
        return [self.between(*pair) for pair in marks]

    def median(self, run: Callable[[], object], repeats: int, **options) -> float:
        return statistics.median(self.times(run, repeats, **options))

    def wall(self, run: Callable[[], object]) -> float:
        """Milliseconds on the host's clock until the device is done with one call."""
        self.wait()
        start = time.perf_counter()
        run()
        self.wait()
        return 1e3 * (time.perf_counter() - start)

    def mark(self):
        """A moment on the device's clock: when it gets to this place in its work. The host doesn't wait."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start, end) -> float:
        """Milliseconds from one mark to another; waits for the later one."""
        if not self.cuda:
            return 1e3 * (end - start)
        end.synchronize()
        return start.elapsed_time(end)

    def allocated(self) -> int | None:
        """Bytes that all tensors on the device hold now; None on a CPU."""
        return torch.cuda.memory_allocated() if self.cuda else None

    def begin_peak(self) -> None:
        """Forget the peaks of what was measured before, and let go of what is no longer used."""
        if self.cuda:
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int | None:
        """The most bytes that tensors held at once since `begin_peak`; None on a CPU."""
        return torch.cuda.max_memory_allocated() if self.cuda else None
