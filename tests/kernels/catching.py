"""A wrong version of a kernel, which is one edit of the right source, and the claims that can catch it.

The same arguments give the same claim, so that the right kernels need to be put to each but once.
"""

import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

import kernels
from tests import claims
from tests.kernels import test_kernels_layers as layers
from tests.kernels import test_kernels_matrix_vector as vector
from tests.kernels import test_kernels_rotary as rotary
from tests.kernels.rules import case_of, configured


class Claim(NamedTuple):
    check: Callable[[ModuleType], None]  # takes the wrong module
    says: str  # in the message of the claim's own assertion: another one's, or a crash, is no catch
    interpreted: bool = False  # only under the interpreter can it be seen


class Wrong(NamedTuple):
    name: str
    claim: Claim
    right: str  # what stands in kernels/<module>.py
    instead: str
    module: str


def wrong_module(wrong: Wrong, folder: Path) -> ModuleType:
    """The module with this one edit, loaded from a copy in the folder; its neighbours are the right ones."""
    source = (Path(kernels.__file__).parent / f"{wrong.module}.py").read_text()
    assert wrong.right in source, f"{wrong.right!r} no longer stands in kernels/{wrong.module}.py"
    path = folder / f"{wrong.module}.py"
    path.write_text(source.replace(wrong.right, wrong.instead))
    spec = importlib.util.spec_from_file_location(f"kernels.{folder.name}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def recurrence(regime: str = "wide") -> Claim:
    case = case_of(regime, B=2, T=150)
    return Claim(lambda wrong: claims.it_equals_the_recurrence(configured(wrong.forward, chunk=64), case), "is off by")


@functools.cache
def product(*parts: str, outputs: int = 5, In: int = 33) -> Claim:
    return Claim(lambda wrong: vector.it_equals_the_modules(outputs, In, *parts, run=wrong.matvec), "is off by")


@functools.cache
def norm_rounded() -> Claim:
    check = vector.the_norm_is_rounded_before_its_weight_multiplies_and_after
    return Claim(lambda wrong: check(torch.float16, run=wrong.matvec), "were rounded otherwise")


@functools.cache
def rounded_once(*parts: str) -> Claim:
    return Claim(
        lambda wrong: vector.all_else_is_rounded_once(parts, torch.float16, run=wrong.matvec), "rounded more than once"
    )


@functools.cache
def touched(says: str) -> Claim:
    check = vector.nothing_but_the_tensors_is_touched
    return Claim(lambda wrong: check(5, 33, "gated", "residual", run=wrong.matvec), says, interpreted=True)


def with_names_of(tests: ModuleType, names: tuple[str, ...], check: Callable[[], None], says: str) -> Claim:
    """A claim of a test module, which finds these functions there by their names."""

    def swapped(wrong: ModuleType) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in names:
                patch.setattr(tests, name, getattr(wrong, name))
            check()

    return Claim(swapped, says)


@functools.cache
def written(says: str, *, dtype: torch.dtype = torch.float32, padded: bool = False) -> Claim:
    check = functools.partial(
        rotary.check_writes, 2, 3, 2, 16, 4, 5, [1, 5, 2, 5], dtype, padded=padded, merged=True, seed=0
    )
    return with_names_of(rotary, ("store_turned",), check, says)


@functools.cache
def turned(says: str, *, dtype: torch.dtype = torch.float32) -> Claim:
    check = functools.partial(rotary.check_turn, 5, 3, 16, dtype, gap=3, seed=0)
    return with_names_of(rotary, ("turn_in_place",), check, says)


@functools.cache
def gates() -> Claim:
    return with_names_of(layers, ("gates",), layers.test_gates_are_the_layers, "^assert .* < 1e-06")


@functools.cache
def gates_far_out() -> Claim:
    check = layers.test_gates_keep_their_digits_however_far_out.hypothesis.inner_test
    far = functools.partial(check, B=1, T=3, H=4, shift=-9, seed=0, dtype=torch.float32)
    return with_names_of(layers, ("gates",), far, "^assert ")


@functools.cache
def laid_out(*names: str) -> Claim:
    check = functools.partial(layers.test_layout_in_memory_does_not_matter, "in one piece", "a slice", (2, 3, 4, 24))
    return with_names_of(layers, names, check, "^assert False")


@functools.cache
def added() -> Claim:
    def check() -> None:
        x, y, weight = (layers.draw(*rows, 40, seed=len(rows), dtype=torch.float16) for rows in ((9,), (1, 9), ()))
        layers.check_add_norm(x, y[0], weight)

    return with_names_of(layers, ("add_norm",), check, "^assert False")


@functools.cache
def normed() -> Claim:
    check = layers.test_norms_and_product_equal_their_modules.hypothesis.inner_test
    names = ("norm", "gated_norm", "gated_product")
    return with_names_of(layers, names, lambda: check(rows=2, D=5, seed=0), "^assert .* < 1e-05")


@functools.cache
def convolved() -> Claim:
    check = functools.partial(layers.check_conv, 2, 20, 5, 4, True, None, 0)
    return with_names_of(layers, ("short_conv_silu",), check, "^assert .* < 1e-05")


@functools.cache
def three_convolved(says: str, *, T: int = 3, widths: tuple[int, ...] = (3, 1, 4), padded: bool = False) -> Claim:
    """Beside what the right one makes of each alone."""

    def check() -> None:
        lengths = torch.tensor([T, T - 2], device=layers.DEVICE) if padded else None
        layers.check_convs(2, T, widths, 4, lengths, 0)

    return with_names_of(layers, ("short_convs_silu",), check, says)
