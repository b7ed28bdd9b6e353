"""Assignment 3: attention over a window, the ring that carries it from call to call, and a memory of rings."""

from collections.abc import Callable

from torch import Tensor

from . import a3_mistakes
from .inputs import Draw
from .sources import Edit
from .tasks import Assignment, Check, Question, Task, Variant

WINDOW = "ops.sliding_window"


def tensors(seed: int, T: int, group: int = 2, K: int = 4) -> dict[str, Tensor]:
    draw = Draw(seed)
    return {"q": 1.5 * draw.normal(2, T, 2 * group, K), "k": draw.normal(2, T, 2, K), "v": draw.normal(2, T, 2, K)}


def pieces(draw: Draw, T: int, longest: int) -> list[int]:
    """A split of T into writes of 1 to `longest` tokens."""
    lengths = []
    while T:
        lengths.append(min(1 + draw.below(longest), T))
        T -= lengths[-1]
    return lengths


def banded(about: str, group: int, window: int | None) -> Callable:
    def ask(seed: int, T: int) -> Question:
        options = {"function": f"{WINDOW}.banded", "window": window or T + 2}
        return Question("window", tensors(seed, T, group), options, f"window {options['window']}, {about}")

    return ask


def round_the_ring(driver: str, function: str, about: str, longest: int | None = None, full: bool = True) -> Callable:
    """`longest` 1 is token by token; None is whatever the ring takes. T is as large as it must be to go round, unless
    the ring is not to be `full`."""

    def ask(seed: int, T: int) -> Question:
        draw = Draw(seed + 1)
        window, slack = 3 + draw.below(3), draw.below(4) if full else 3
        slots = window + slack if full else 4 * T + window
        lengths = pieces(draw, T, min(longest or slots - window + 1, slots - window + 1))
        options = {"function": f"{WINDOW}.{function}", "window": window, "slots": slots, "pieces": lengths}
        return Question(driver, tensors(seed, T), options, f"window {window}, {slots} slots, {about}")

    return ask


def held(seed: int, T: int) -> Question:
    options = {"function": f"{WINDOW}.ring", "window": 4, "slots": 8, "rounds": 6}
    return Question("held", tensors(seed, 8), options, "window 4, 8 slots, 6 times round")


def refused(seed: int, T: int) -> Question:
    options = {"function": f"{WINDOW}.ring", "window": 3, "slots": 7}
    return Question("refuses", tensors(seed, 8), options, "window 3, 7 slots")


def longest_writes(seed: int, T: int) -> Question:
    options = {"function": f"{WINDOW}.Ring.longest_write", "rings": [[5, 5], [8, 5], [7, 1], [30, 12]]}
    return Question("longest_writes", {}, options, "slots and windows of (5, 5), (8, 5), (7, 1), (30, 12)")


def remembered(how: str, about: str) -> Callable:
    def ask(seed: int, T: int) -> Question:
        options = {"function": "memory.Memory", "window": 5, "how": how}
        return Question("remembering", tensors(seed, 12), options, about)

    return ask


BANDED = Task(
    number="3.1",
    title="The band",
    functions=(f"{WINDOW}.visible", f"{WINDOW}.banded"),
    learns="Which keys a query sees, and which key head a query head reads.",
    hint="visible: distances first, all at once, then three conditions. banded: query head h reads key head "
    "h // (Hq // Hkv), so each key head is repeated for its group. Mask with −∞ before the softmax.",
    hours=1.5,
    checks=(
        Check("a query sees the newest W keys, itself among them", 8, banded("one query head a key head", 1, 4),
              (1, 3, 9)),
        Check("query heads are grouped: head h reads key head h // group", 7, banded("3 query heads a key head", 3, 4),
              (1, 9)),
        Check("a window longer than the text is full causal attention", 5, banded("longer than the text", 2, None),
              (1, 6)),
    ),
    mistakes=a3_mistakes.BANDED,
)  # fmt: skip

WRITE = Task(
    number="3.2",
    title="Writing into a ring",
    functions=(f"{WINDOW}.Ring.longest_write", f"{WINDOW}.Ring.write"),
    learns="Token number p goes to slot p mod R and overwrites token p − R; nothing moves.",
    hint="Numbers of the new tokens: `seen` and up. `scatter_` or index assignment puts k, v and the numbers into "
    "their slots, in place. Only the first two arguments are asked for here: `lengths` (rows with padding) and "
    "`for_gradient` may be left alone. What is returned is what to attend to: numbers, all keys, all values. How "
    "long may a write be, if its first query must still find the W − 1 tokens before it?",
    hours=2.5,
    checks=(
        Check("token by token, several times round, each slot's position is right", 10,
              round_the_ring("writes", "Ring.write", "token by token", 1), (2, 13, 31)),
        Check("any split into writes leaves the same ring, also where one goes across the wrap", 12,
              round_the_ring("writes", "Ring.write", "in pieces"), (5, 17, 31)),
        Check("longest_write is R − W + 1", 8, longest_writes, (1,), shrinks=False),
    ),
    mistakes=a3_mistakes.WRITE,
)  # fmt: skip

RING = Task(
    number="3.3",
    title="Attending to a ring",
    functions=(f"{WINDOW}.ring",),
    helpers=(f"{WINDOW}.attend",),
    learns="Softmax does not care for the order of its keys: positions say what is visible, and slots are read as they "
    "lie.",
    hint="Refuse a write that is too long (ValueError), write first, then attend to all slots with `visible(numbers, "
    "memory.positions, memory.window)`. Query heads are grouped, as in 3.1. `lengths` may be left alone. `attend` is a "
    "helper that you may write, or leave.",
    hours=2.5,
    checks=(
        Check("token by token, several times round, it gives what banded gives", 8,
              round_the_ring("window", "ring", "token by token", 1), (2, 13, 31), oracle=f"{WINDOW}.banded"),
        Check("any split into writes gives the same", 8, round_the_ring("window", "ring", "in pieces"), (5, 17, 31),
              oracle=f"{WINDOW}.banded"),
        Check("slots that are still empty are not seen", 6,
              round_the_ring("window", "ring", "most slots empty", full=False), (1, 4), oracle=f"{WINDOW}.banded"),
        Check("what is held does not grow", 5, held, (8,), oracle="none", judge="constant", shrinks=False),
        Check("a write that is too long is a ValueError", 3, refused, (8,), shrinks=False),
    ),
    mistakes=a3_mistakes.RING,
)  # fmt: skip

REMEMBER = Task(
    number="3.4",
    title="Clone, save, resume",
    functions=("memory.Memory.clone", "memory.Memory.save", "memory.Memory.resume"),
    learns="Who owns a tensor: a copy shares nothing, and a saved memory has its counters, too.",
    hint="clone: every tensor of every layer, and both counters. `tensors()` names all that must be saved; "
    "`save` of safetensors.torch gives bytes, and metadata holds strings. resume: a fresh memory of the same shape "
    "from `model.new_memory`, then `copy_`. A file that is cut short should be a ValueError. The checksum and the "
    "atomic write of the docstring are good manners, and not asked for.",
    hours=1,
    checks=(
        Check("a clone and its source never touch each other", 8, remembered("clone", "cloned after 4 tokens"), (12,),
              shrinks=False),
        Check("saved and resumed gives what uninterrupted gives, counters included", 8,
              remembered("resume", "saved after 4 tokens"), (12,), shrinks=False),
        Check("a file that was cut short is a ValueError", 4, remembered("damaged", "half a file"), (12,),
              shrinks=False),
    ),
    mistakes=a3_mistakes.REMEMBER,
)  # fmt: skip

# A dilated window: every second token of it.
DILATED = (
    ("", "key j is visible to query i iff 0 ≤ i − j < W. So",
     "key j is visible to query i iff 0 ≤ i − j < W and i − j is even. So"),
    ("", "v_j   over 0 ≤ i − j < W", "v_j   over 0 ≤ i − j < W, i − j even"),
    (".visible", '"""0 ≤ i − j < W, and slot j', '"""0 ≤ i − j < W, i − j is even, and slot j'),
    (".visible", "(distance < window)", "(distance < window) & (distance % 2 == 0)"),
)  # fmt: skip

A3 = Assignment(
    name="A3",
    title="The sliding window and its ring",
    summary="Softmax attention over the last W tokens, from a ring whose content never moves.",
    modules=("memory",),
    tasks=(BANDED, WRITE, RING, REMEMBER),
    also_blank=(f"{WINDOW}.blocked",),
    variants=(
        Variant(
            "a dilated window",
            "A query sees every second token of its window: those at an even distance.",
            tuple(Edit(f"{WINDOW}{where}", right, wrong) for where, right, wrong in DILATED),
        ),
    ),
)
