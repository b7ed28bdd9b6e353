"""How a function is asked. The same few lines ask the student's function, the reference's and a wrong one's.

A driver takes `find`, which gives a function by its name, and a question's tensors and options; its answer is a
dictionary of tensors. This folder stands alone: it goes into the student's folder, and into the process that runs the
student's code, where nothing of the reference is.
"""

import importlib
import sys
from pathlib import Path

from torch import Tensor

from .kernels import kernel
from .ladder import Operations, properties, rule, steps
from .layers import conv, layer, loading, names
from .plain import values
from .training import adapted, at_work, frozen, objective, predicted, says
from .windows import held, longest_writes, refuses, remembering, window, writes

__all__ = ["DRIVERS", "Operations", "answered", "finder"]

DRIVERS = {
    driver.__name__: driver
    for driver in (
        values, rule, steps, properties, window, held, refuses, writes, longest_writes, remembering, conv, layer, names,
        loading, objective, at_work, frozen, adapted, says, predicted, kernel,
    )
}  # fmt: skip


def finder(folder: str):
    """What finds functions in a folder with a package `minivl`, and perhaps files beside it: "ops.delta_rule.wy"."""
    sys.path.insert(0, str(folder))

    def find(name: str):
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            for module in (("minivl", *parts[:cut]), parts[:cut]):
                if Path(folder, *module).with_suffix(".py").is_file():
                    found = importlib.import_module(".".join(module))
                    for part in parts[cut:]:
                        found = getattr(found, part)
                    return found
        raise LookupError(f"there is no {name} in {folder}")

    return find


def answered(find, driver: str, tensors: dict[str, Tensor], options: dict, remote=None) -> dict[str, Tensor]:
    """The answer to a question. What a function makes of its inputs' memory is its own: it gets copies."""
    copies = {name: x.clone() for name, x in tensors.items()}
    extra = {"remote": remote} if remote else {}
    return DRIVERS[driver](find, copies, **options, **extra)
