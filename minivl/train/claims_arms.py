"""What is compared: one line an arm, and everything that all arms share.

An arm is the tiny model's decoder with other layers, another rule, another course of training or fewer examples. All
else is the same: depth, width, the frozen eyes, the first weights (which depend on the seed and a weight's own name
only), the examples, their order, the number of steps, and the learning rate.
"""

import dataclasses
import math
from dataclasses import dataclass

from .tiny_settings import whole

STARTS = ("nothing", "teacher")
LAYERS = 8  # the fewest in which one of eight can be a window layer
WINDOW, LINEAR, FULL = "sliding_attention", "linear_attention", "full_attention"


def one_in(period: int) -> tuple[str, ...]:
    """A window layer at the head of every `period` layers, the others linear."""
    return tuple(LINEAR if layer % period else WINDOW for layer in range(LAYERS))


# What learns in each part of a course is in claims_runs.py; here is how the steps are shared out.
AT_ONCE = (("answers", 1.0),)
WITH_STAGE_1 = (("layers", 0.25), ("logits", 0.25), ("tuning", 0.5))
WITHOUT_STAGE_1 = (("tuning", 1.0),)


@dataclass(frozen=True)
class Arm:
    """`course`: its stages, each with its share of the steps. `examples`: the share of all distinct examples that it
    may see. `taught_by`: the arm whose result of the same seed is the teacher. `ages`: it also watches a stream of
    half a million tokens."""

    name: str
    told: str
    layer_types: tuple[str, ...] = one_in(4)
    mixer: str = "gated_delta"
    course: tuple[tuple[str, float], ...] = AT_ONCE
    examples: float = 1.0
    taught_by: str | None = None
    ages: bool = False


ARMS = {
    arm.name: arm
    for arm in (
        Arm("full", "full attention", LAYERS * (FULL,)),  # first: it is a teacher that others wait for
        Arm("hybrid-4", "hybrid, 1/4 window", ages=True),
        Arm("window", "window only", one_in(1)),
        Arm("linear", "linear only", LAYERS * (LINEAR,), ages=True),
        Arm("hybrid-8", "hybrid, 1/8 window", one_in(8)),
        Arm("hybrid-2", "hybrid, 1/2 window", one_in(2)),
        Arm("rule-linear", "1/4, linear attention", mixer="linear", ages=True),
        Arm("rule-delta", "1/4, delta rule", mixer="delta", ages=True),
        Arm("data-4", "1/4, a quarter of the examples", examples=0.25),
        Arm("data-2", "1/4, half of the examples", examples=0.5),
        Arm("with-stage-1", "1/4, taught: with stage 1", course=WITH_STAGE_1, taught_by="full"),
        Arm("without-stage-1", "1/4, taught: without stage 1", course=WITHOUT_STAGE_1, taught_by="full"),
    )
}

# The parts of the report, and the arms that stand side by side in each.
PARTS = {
    "How many window layers": ("window", "hybrid-2", "hybrid-4", "hybrid-8", "linear", "full"),
    "The rule of the linear layers": ("rule-linear", "rule-delta", "hybrid-4"),
    "With and without stage 1": ("with-stage-1", "without-stage-1", "full"),
    "How many examples": ("data-4", "data-2", "hybrid-4"),
}


@dataclass(frozen=True)
class Protocol:
    """What all arms share; two runs may only be compared where all of it is the same. Lengths are in tokens.

    `start`: "nothing", a decoder that has learnt nothing; or "teacher", as the paper has it: a student of the model
    that the eyes are from, which then has full attention in every layer, and teaches stage 1, too.
    """

    start: str = "nothing"
    steps: int = 2000
    batch: int = 64
    learning_rate: float = 1.5e-3
    reading: float = 0.25  # share of the steps with lines to read alone, where a decoder starts from nothing
    window: int = 64
    pictures: int = 30_000  # distinct pictures with a line to read, and as many with other questions
    streams: int = 3_000  # distinct streams of each length
    looks: int = 4  # pictures of each fact
    others: int = 2048  # frames that show no fact
    longest: int = 1024  # the longest distance in training
    tests: int = 256  # questions to each score
    windows: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 32, 64)  # distances that recall is asked at
    facts: tuple[int, ...] = (1, 2, 4, 8, 15)  # known at once
    ages: tuple[int, ...] = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 17, 1 << 18, 500_000)
    age_streams: int = 32  # that are watched side by side
    piece: int = 8192  # tokens that they are fed at a time

    def __post_init__(self):
        if self.start not in STARTS:
            raise ValueError(f"start is {self.start!r}; it should be one of {', '.join(STARTS)}")
        for name, number in dataclasses.asdict(self).items():
            if isinstance(number, int):
                whole(name, number, 4 if name == "steps" else 1)  # so that no stage of a course has none
        if not isinstance(self.learning_rate, int | float) or not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate!r}; it should be a number above 0")
        if not isinstance(self.reading, int | float) or not 0 <= self.reading <= 1:
            raise ValueError(f"reading is {self.reading!r}; it should be a share of the steps, from 0 to 1")

    def waits_for(self, arm: Arm) -> str | None:
        """The arm whose result of the same seed teaches this one."""
        return arm.taught_by if self.start == "nothing" else None

    def steps_alone(self, arm: Arm) -> int:
        """The steps at the beginning that have lines to read and nothing else. Who has a teacher needs none."""
        return round(self.reading * self.steps) if self.start == "nothing" and arm.taught_by is None else 0

    def steps_of(self, arm: Arm) -> list[tuple[str, int]]:
        """Each stage of an arm's course, and its steps; they add up to `steps`."""
        ends = [round(self.steps * sum(share for _, share in arm.course[: n + 1])) for n in range(len(arm.course))]
        return [(stage, end - start) for (stage, _), start, end in zip(arm.course, [0, *ends], ends, strict=False)]


def on_a_cpu(**changes) -> Protocol:
    """What two cores do in half a day."""
    small = {
        "steps": 1200, "batch": 16, "pictures": 8000, "streams": 1000, "tests": 128, "age_streams": 8, "piece": 2048,
    }  # fmt: skip
    return Protocol(**small | changes)


def quick(**changes) -> Protocol:
    """Everything once, in minutes on a CPU. It shows that the command works, and nothing else."""
    small = {
        "steps": 16, "batch": 4, "pictures": 48, "streams": 8, "looks": 1, "others": 32, "longest": 64, "tests": 8,
        "windows": (0, 2), "facts": (1, 4), "ages": (256, 512), "age_streams": 2, "piece": 256,
    }  # fmt: skip
    return Protocol(**small | changes)


def as_told(protocol: Protocol) -> dict:
    """A protocol as JSON gives it back."""
    return {name: list(x) if isinstance(x, tuple) else x for name, x in dataclasses.asdict(protocol).items()}
