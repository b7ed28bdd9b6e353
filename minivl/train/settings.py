"""How a run trains: every number that a person may choose, with the paper's own where it gives one."""

import math
from dataclasses import dataclass

from .distributed import WAYS


@dataclass(frozen=True)
class Settings:
    """How a run trains. A run that goes on must have the settings it began with, but for FREE."""

    steps: int
    batch: int = 64  # examples a step, of all processes together
    at_once: int = 1  # examples in one pass of one process
    tokens_at_once: int | None = None  # instead: as many as fit into so many tokens, those of similar length together
    learning_rate: float = 2e-4
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.01
    clip: float = 1.0  # the gradient's longest
    seed: int = 0
    bf16: bool | None = None  # products in bf16; None: on a GPU
    recompute: bool = False  # layers run twice instead of being remembered
    recorded: bool = False  # passes as CUDA graphs, one for each shape: for small models
    spread: str = "ddp"  # or "fsdp", over several processes
    workers: int = 0  # processes that make examples ahead of time
    save_every: int = 100  # steps

    def __post_init__(self):
        for name in ("steps", "batch", "at_once", "save_every"):
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ValueError(f"{name} is {number!r}; it should be a whole number of at least 1")
        if self.tokens_at_once is not None:
            tokens = self.tokens_at_once
            if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
                raise ValueError(f"tokens_at_once is {tokens!r}; it should be a whole number of at least 1, or None")
            if self.spread == "fsdp":  # it gathers weights in each pass, so all processes must have as many
                raise ValueError('tokens_at_once is for spread="ddp"; with "fsdp" passes are told by at_once')
        for name, most in {"learning_rate": math.inf, "weight_decay": math.inf, "clip": math.inf, "warmup": 1}.items():
            number = getattr(self, name)
            if not isinstance(number, int | float) or not 0 <= number <= most:
                raise ValueError(f"{name} is {number!r}; it should be a number from 0" + (" to 1" if most == 1 else ""))
        if self.spread not in WAYS:
            raise ValueError(f"spread is {self.spread!r}; it should be one of {', '.join(WAYS)}")

    def passes(self, processes: int) -> int:
        """Passes of each process in a step."""
        if self.batch % (self.at_once * processes):
            raise ValueError(
                f"batch is {self.batch}; it should be a multiple of {self.at_once * processes}: "
                f"at_once, {self.at_once}, times {processes} processes"
            )
        return self.batch // (self.at_once * processes)


# These change nothing but rounding.
FREE = ("at_once", "tokens_at_once", "recompute", "recorded", "spread", "workers", "save_every")

# The paper's, by stage; its other settings are the defaults above.
PAPER = {
    "layers": {"learning_rate": 2e-4, "batch": 64},
    "logits": {"learning_rate": 2e-4, "batch": 64},
    "tuning": {"learning_rate": 5e-5, "batch": 256},
    "long": {"learning_rate": 2e-5, "batch": 64},
}
