"""Assignment 5: Triton kernels, from a masked load to the chunked rule with its state in registers; traffic."""

from collections.abc import Callable

import torch

from . import a5_mistakes
from .inputs import Draw, recurrence
from .tasks import Assignment, Check, Question, Task


def rows(seed: int, T: int) -> Question:
    x = Draw(seed).normal(3, T + 5).float()
    block = 2 ** (T - 1).bit_length()
    behind = torch.zeros(x.numel() + block)  # room for what is written in wrong places
    right = {"sums": x[:, :T].cumsum(1), "behind": behind, "launched": torch.tensor(1)}
    options = {"function": "gated_kernel.running_sum", "columns": T}
    return Question("kernel", {"x": x}, options, f"3 rows of {T} numbers, {T + 5} apart", {"expected": right})


def matrices(about: str, same: bool) -> Callable:
    def ask(seed: int, size: int) -> Question:
        draw = Draw(seed)
        gram = draw.normal(2, size, size).tril(-1) / 2
        if same:
            gram = 0 * gram + 1
        gram = gram.tril(-1).float()
        inverse = torch.linalg.inv(torch.eye(size, dtype=torch.float64) + gram.double()).float()
        right = {"value": inverse, "launched": torch.tensor(1)}
        options = {"function": "gated_kernel.inverted"}
        return Question("kernel", {"gram": gram}, options, f"{about}, C = {size}", {"expected": right})

    return ask


def chunks(about: str, **regime) -> Callable:
    def ask(seed: int, T: int) -> Question:
        drawn = recurrence(seed, T, B=1, K=16, V=16, **{"beta": "wide", "decay": "wide", **regime})
        given = {name: x.float() for name, x in drawn.items()}
        return Question("kernel", given, {"function": "gated_kernel.chunked", "scale": 0.7}, about)

    return ask


def loads(seed: int, T: int) -> Question:
    drawn = recurrence(seed, T, B=1, K=16, V=16, beta="wide", decay="wide")
    options = {"function": "gated_kernel.chunked", "loads": True, "T": T, "most": 100}
    return Question(
        "kernel", {name: x.float() for name, x in drawn.items()}, options, f"T = {T}, 2 heads, chunks of 16"
    )


SIZES = ((2, 512, 3, 64, 128), (1, 4096, 16, 128, 256), (4, 128, 2, 16, 32))
CARDS = ((1e12, 8e13), (3.35e12, 9.9e14))


def counting(function: str, last: tuple[str, tuple[int, ...]], driver: str = "values") -> Callable:
    def ask(seed: int, T: int) -> Question:
        draw = Draw(seed)
        sizes = dict(zip(("B", "T", "H", "K", "V"), SIZES[draw.below(3)], strict=True))
        sizes[last[0]] = last[1][draw.below(len(last[1]))]
        return Question(driver, {}, {"function": f"traffic.{function}", **sizes}, f"{sizes}")

    return ask


def timing(function: str, driver: str) -> Callable:
    def ask(seed: int, T: int) -> Question:
        draw = Draw(seed)
        bandwidth, peak = CARDS[draw.below(2)]
        given = {"moved": 10**6 * (1 + draw.below(900)), "computed": 10**8 * (1 + draw.below(900))}
        given |= {"bandwidth": bandwidth, "peak": peak}
        return Question(driver, {}, {"function": f"traffic.{function}", **given}, f"{given}")

    return ask


FLOAT32 = {"tolerance": 2e-5, "judge": "launched"}
SUM = Task(
    number="5.1",
    title="A masked load and a running sum",
    functions=("gated_kernel.running_sum_kernel",),
    learns="A program's number is all it knows: where its row begins, and where it ends.",
    hint="`tl.arange(0, BLOCK)` is longer than the row: mask the load, and mask the store as well, or the next row's "
    "memory is yours. x's rows are `stride` apart, out's are T. `tl.cumsum(numbers, 0)`.",
    hours=2,
    triton=True,
    checks=(
        Check("each row's running sum, rows lying apart", 8, rows, (1, 4, 16), oracle="none", **FLOAT32),
        Check("and of a length that is no power of two, nothing written behind it", 7, rows, (3, 13, 21), oracle="none",
              **FLOAT32),
    ),
    mistakes=a5_mistakes.SUM,
)  # fmt: skip

INVERSE = Task(
    number="5.2",
    title="An exact inverse by halves",
    functions=("gated_kernel.inverse",),
    learns="A triangular inverse from log C rounds of products, exact where a series is not.",
    hint="Keep all diagonal blocks' inverses in one matrix. At each level the block below each even diagonal block is "
    "what is missing: mask it out of gram, multiply from both sides, subtract. `tl.where` with i // size and j // size "
    "finds it; only every second one of them lies inside a pair.",
    hours=3,
    triton=True,
    checks=(
        Check("(I + gram)⁻¹ for random matrices", 15, matrices("random", False), (16, 32), oracle="none",
              shrinks=False, **FLOAT32),
        Check("and where one key comes again and again, which a series does not survive", 10,
              matrices("all ones", True),
              (16, 32), oracle="none", shrinks=False, **FLOAT32),
    ),
    mistakes=a5_mistakes.INVERSE,
)  # fmt: skip

KERNEL = Task(
    number="5.3",
    title="The chunk kernel",
    functions=("gated_kernel.chunk_kernel",),
    learns="A state that never leaves the registers: load it once, walk through the chunks, store it once.",
    hint="minivl/ops/gated_delta_rule.py is the twin: `chunked` there has the same lines. Rows of one head lie H "
    "apart; mask what lies beyond T, and zeros write nothing. Mask before exp. `head.to(tl.int64)` in what is "
    "multiplied by T: 32 bits end at two thousand million numbers, which no test here can show.",
    hours=6,
    triton=True,
    checks=(
        Check("one chunk gives what the recurrence gives", 8, chunks("one chunk"), (9,),
              oracle="ops.gated_delta_rule.recurrent", **FLOAT32),
        Check("several chunks and a rest do", 14, chunks("several chunks"), (20,),
              oracle="ops.gated_delta_rule.recurrent", **FLOAT32),
        Check("strong decay gives neither inf nor NaN", 7, chunks("gates down to −20", decay="always"), (18,),
              oracle="ops.gated_delta_rule.recurrent", **FLOAT32),
        Check("it is exact where one key comes again and again", 6,
              chunks("one key for all tokens, β = 1", beta="one", keys="same"), (18,),
              oracle="ops.gated_delta_rule.recurrent", **FLOAT32),
        Check("at T = 64 it loads at most 100 tiles", 5, loads, (64,), oracle="none", judge="few_loads", shrinks=False),
    ),
    mistakes=a5_mistakes.KERNEL,
)  # fmt: skip

ESTIMATE = Task(
    number="5.4",
    title="What it must take at least",
    functions=("traffic.bytes_moved", "traffic.operations", "traffic.seconds", "traffic.bound"),
    learns="The roofline: bytes over bandwidth, operations over peak, and the larger of the two.",
    hint="Count by hand for one head and one chunk first. At one token nearly all bytes are the state; at long T it "
    "hardly counts.",
    hours=2,
    checks=(
        Check("bytes: every tensor once, the state twice", 8, counting("bytes_moved", ("width", (2, 4))), (1, 2, 3),
              shrinks=False),
        Check("operations: seven products a chunk", 6, counting("operations", ("C", (16, 64))), (1, 2, 3),
              shrinks=False),
        Check("the larger of two times", 3, timing("seconds", "values"), (1, 2, 3, 4), shrinks=False),
        Check("and which it is", 3, timing("bound", "says"), (1, 2, 3, 4, 5, 6), shrinks=False),
    ),
    mistakes=a5_mistakes.ESTIMATE,
)  # fmt: skip

A5 = Assignment(
    name="A5",
    title="The Triton kernel",
    summary="The chunked rule as a kernel, in Triton's interpreter: no GPU is needed. Triton exists for Linux only; "
    "elsewhere 5.1 to 5.3 run in a Linux container, in WSL2, or in a notebook service, without reinstalling its torch.",
    modules=("ops.gated_delta_rule",),
    own_files=("gated_kernel.py", "traffic.py"),
    tasks=(SUM, INVERSE, KERNEL, ESTIMATE),
    also_blank=tuple(
        f"ops.delta_rule.{name}" for name in ("householder", "recurrent", "ut_transform", "wy", "chunked")
    ),
    gives_away=("A2",),
)
