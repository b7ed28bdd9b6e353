"""Checks that every rung of the ladder is put to, so that an assignment says only which function, rule and points."""

from collections.abc import Callable

from .inputs import Draw, recurrence
from .tasks import Check, Question

CHUNK = 8
OPERATIONS = {"T": 512, "chunk": 64, "most": 3000}  # a loop over tokens makes 5,000 at least, and up to 21,000

EQUAL = (1, 3, 7, 12)
ACROSS = (2, 9, 17, 29)


def drawn(function: str, about: str, inputs: dict, options: dict | None = None, *, cut: bool = False) -> Callable:
    """A way to ask `function`: `inputs` go to inputs.recurrence, `options` to the function."""

    def ask(seed: int, T: int) -> Question:
        asked = {"function": function, "scale": 0.7, **(options or {})}
        if cut:
            draw = Draw(seed + 1)
            asked["cuts"] = sorted({1 + draw.below(T - 1) for _ in range(2)}) if T > 1 else []
        return Question("rule", recurrence(seed, T, **inputs), asked, about)

    return ask


def counted(function: str, points: int, **inputs) -> Check:
    """Not the recurrence in disguise: a chunked form makes few, large operations."""

    def ask(seed: int, T: int) -> Question:
        options = {"function": function, "operations": True, **OPERATIONS}
        return Question("rule", recurrence(seed, T, B=1, **inputs), options, f"T = {T}, chunk {options['chunk']}")

    claim = f"at T = {OPERATIONS['T']} and chunks of {OPERATIONS['chunk']} it takes no more than "
    claim += f"{OPERATIONS['most']:,} of PyTorch's operations"
    return Check(claim, points, ask, (OPERATIONS["T"],), oracle="none", judge="few_operations", shrinks=False)
