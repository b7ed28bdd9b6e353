"""Right or wrong, by how much, and where first. This file stands alone: it goes into the student's folder, too."""

import torch
from torch import Tensor

AXES = {  # what the axes of an answer are called, by its name and number of axes
    ("out", 4): ("row", "t", "head", "channel"),
    ("out", 3): ("row", "t", "channel"),
    ("state", 4): ("row", "head", "key row", "value column"),
}


def error(actual: Tensor, expected: Tensor) -> float:
    """|actual − expected| / |expected|; absolute where expected is zero; infinite where only one is finite."""
    actual, expected = actual.double(), expected.double()
    size, difference = expected.norm().item(), (actual - expected).norm().item()
    if difference != difference:
        return float("inf")
    return difference / size if size else difference


def judged(judge: str, answer: dict, expected: dict, options: dict, tolerance: float) -> str | None:
    """None where all is well, or what is wrong. A sentence that ends in a full stop is a diagnosis by itself."""
    try:
        return JUDGES[judge](answer, expected, options, tolerance)
    except (KeyError, RuntimeError, ValueError, IndexError, TypeError, OverflowError) as fault:
        return f"the answer has not the form that was asked for ({type(fault).__name__}: {fault})"


def equal(answer: dict, expected: dict, options: dict, tolerance: float) -> str | None:
    """None where each part of the answer is the expected one; else what is wrong with the first that is not."""
    for name, right in expected.items():
        if name not in answer:
            return f"there is no {name}"
        found = answer[name]
        if found.shape != right.shape:
            return f"{name} has shape {list(found.shape)}; it should be {list(right.shape)}"
        if not found.isfinite().all() and right.isfinite().all():
            return f"{name} has inf or NaN, first {place(name, ~found.isfinite())}"
        if (off := error(found, right)) > tolerance:
            return f"{name} is off by {off:.1e} of its size, {first_wrong(name, found, right, tolerance)}"
    return None


def first_wrong(name: str, found: Tensor, right: Tensor, tolerance: float) -> str:
    """The first place, in time before all, where two tensors differ."""
    if right.ndim == 0:
        return f"found {found.item():.6g}, expected {right.item():.6g}"
    scale = right.double().abs().max().clamp(min=1e-300)
    differs = (found.double() - right.double()).abs() > max(tolerance, 1e-12) * scale
    if not differs.any():  # small everywhere, too much in sum
        differs = (found.double() - right.double()).abs() > 0
    return f"first {place(name, differs)}: {numbers(name, found, right, differs)}"


def first(name: str, chosen: Tensor) -> tuple[int, ...]:
    """The index of the first True, earliest in time where there is a time."""
    places = chosen.nonzero()
    if name == "out" and chosen.ndim > 2:
        places = places[places[:, 1].argsort(stable=True)]
    return tuple(places[0].tolist())


def place(name: str, chosen: Tensor) -> str:
    axes = AXES.get((name, chosen.ndim))
    index = first(name, chosen)
    if axes is None:
        return f"at {list(index)}"
    order = sorted(range(len(index)), key=lambda axis: axes[axis] != "t")
    return "at " + ", ".join(f"{axes[axis]} = {index[axis]}" for axis in order)


def numbers(name: str, found: Tensor, right: Tensor, differs: Tensor) -> str:
    index = first(name, differs)
    return f"found {found[index].item():.6g}, expected {right[index].item():.6g}"


def same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 1e-6) -> bool:
    """Two answers alike, in what is not finite, too: the sign of the same mistake."""
    for name in one.keys() | other.keys():
        a, b = one.get(name), other.get(name)
        if a is None or b is None or a.shape != b.shape:
            return False
        a, b = a.double(), b.double()
        if not torch.equal(a.isfinite(), b.isfinite()):
            return False
        if error(a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)) > tolerance:
            return False
    return True


def few_operations(answer: dict, expected: dict, options: dict, tolerance: float) -> str | None:
    """A chunked form makes few, large operations; a loop over tokens makes many, and more for more tokens."""
    count, T = int(answer["operations"]), options["T"]
    if count < T // options["chunk"]:
        return f"{count} operations at T = {T} cannot have made the answer"
    if count > options["most"]:
        return f"Operations grow with T ({count:,} at {T}): this is the recurrence, not the chunked form."
    return None


def constant(answer: dict, expected: dict, options: dict, tolerance: float) -> str | None:
    """What is held after many rounds is what was held after one."""
    once, often = answer["bytes"].tolist()
    if once <= 0:
        return "no tensors are held at all"
    if often > once:
        rounds = options["rounds"]
        return (
            f"Bytes held grow: {once:,} after one round of the ring, {often:,} after {rounds}. Keep R slots, no more."
        )
    return None


def few_loads(answer: dict, expected: dict, options: dict, tolerance: float) -> str | None:
    """A kernel that works by chunks loads few, large tiles."""
    count, T = int(answer["loads"]), options["T"]
    if count == 0:
        return "nothing was loaded by tl.load"
    if count > options["most"]:
        return f"Loads grow with T ({count:,} at {T}): this is the recurrence. Load a chunk's tile at a time."
    return None


def launched(answer: dict, expected: dict, options: dict, tolerance: float) -> str | None:
    """The right numbers, and by a kernel of Triton's that was launched once."""
    if not int(answer["launched"]):
        return "No Triton kernel was launched: the function with @triton.jit should do the work, in one launch."
    return equal(answer, expected, options, tolerance)


def caught(answer: dict, expected: dict, options: dict, tolerance: float) -> str | None:
    """Properties should fail for each wrong version, and for no right one."""
    found, right = answer["caught"].tolist(), expected["caught"].tolist()
    if any(f and not r for f, r in zip(found, right, strict=True)):
        return "your properties fail for a right version"
    if found != right:
        return "your properties let a wrong version pass"
    return None


JUDGES = {judge.__name__: judge for judge in (equal, few_operations, constant, few_loads, launched, caught)}
