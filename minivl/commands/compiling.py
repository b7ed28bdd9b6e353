"""What a GPU's first minute is spent on, told: Triton compiles each kernel for the card once, and keeps it on disk.

The first frame and the first answer on a new machine take seconds for that, later ones milliseconds. So whoever waits
reads why, once it begins, and at the end how long it was. Nothing is said where all kernels were on disk already.
"""

import atexit
import sys
from importlib.util import find_spec


class Told:
    """Triton calls this for each kernel that it has compiled, or found on disk."""

    def __init__(self):
        self.kernels, self.seconds = 0, 0.0

    def __call__(self, *, times, cache_hit: bool, **_) -> None:
        if cache_hit:
            return
        if not self.kernels:
            print("compiling kernels for this GPU: a few seconds, once …", file=sys.stderr, flush=True)
            atexit.register(self.sum)
        self.kernels += 1
        self.seconds += times.total / 1e6

    def sum(self) -> None:
        what = f"{self.kernels} kernel{'s' if self.kernels > 1 else ''} compiled in {self.seconds:.1f} s"
        print(f"{what}; they are kept, and the next start is spared it", file=sys.stderr, flush=True)


def tell() -> None:
    """From now on."""
    if find_spec("triton") is not None:
        from triton import knobs

        if not isinstance(knobs.compilation.listener, Told):
            knobs.compilation.listener = Told()
