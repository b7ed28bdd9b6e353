"""What a claim is given: an implementation of a rung (`Rule`), and one drawn case of inputs (`Case`).

A rung is one of linear attention, the delta rule and the gated delta rule. All its implementations, kernels
included, have the signature of its recurrence, so that one claim serves them all. A kernel is held to them by

    triton = Rule("triton", chunked_gated_delta_rule, gated_delta_rule.recurrent, GATES, kernel=True)

with cases of its own dtype, device and widths.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from . import tolerances
from .regimes import BY_NAME, Inputs, Shape

SCALE = 0.7  # anything but 1, so that a forgotten or doubled scale shows

Answer = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """One draw of inputs, in words: it is printed where a claim fails, and is all that is needed to fail again."""

    regime: str = "wide"
    shape: Shape = field(default_factory=Shape)
    chunk: int = 8
    seed: int = 0
    dtype: torch.dtype = torch.float64
    device: str = "cpu"

    def like(self, **changes: int) -> "Case":
        """This case in another shape."""
        return replace(self, shape=replace(self.shape, **changes))

    def pick(self, highest: int) -> int:
        """A whole number from 0 to `highest`, a different one for each seed."""
        generator = torch.Generator().manual_seed(self.seed + 12345)
        return int(torch.randint(highest + 1, (), generator=generator))


@dataclass(frozen=True)
class Rule:
    """One implementation of a rung, and what a claim must know of it."""

    name: str
    run: Callable[..., Answer]
    oracle: Callable[..., Answer]  # the rung's recurrence, which is run in float64
    gates: tuple[str, ...] = ()  # which of log_decay and beta it takes
    carries: bool = True  # takes a starting state
    chunked: bool = False  # takes chunk=
    differentiable: bool = True  # gradients pass through it
    naive: bool = False  # goes token by token: see tolerances
    kernel: bool = False  # multiplies in its input's dtype: see tolerances

    def inputs(self, case: Case) -> Inputs:
        """The case's tensors, those that this rung takes."""
        taken = ("q", "k", "v", *self.gates, *(("state",) if self.carries else ()))
        drawn = BY_NAME[case.regime](case.shape, case.seed, case.dtype, case.device)
        return {name: drawn[name] for name in taken}

    def answer(self, case: Case, inputs: Inputs, **options) -> Answer:
        if self.chunked:
            options["chunk"] = case.chunk
        return self.run(**inputs, **{"scale": SCALE, **options})

    def truth(self, inputs: Inputs, **options) -> Answer:
        """The oracle's answer to the same inputs, in float64."""
        exact = {name: x.detach().double() for name, x in inputs.items()}
        return self.oracle(**exact, **{"scale": SCALE, **options})

    def close(self, case: Case, actual: Tensor, oracle: Tensor, what: str, of: str = "out") -> None:
        limit = tolerances.tolerance(
            case.dtype, regime=case.regime, T=case.shape.T, naive=self.naive, kernel=self.kernel, of=of
        )
        tolerances.close(actual, oracle, tolerance=limit, what=f"{what} of {self.name}")

    def agree(self, case: Case, actual: Answer, oracle: Answer, when: str = "") -> None:
        """Output and state are both what the oracle says."""
        self.close(case, actual[0], oracle[0], f"the output{when}")
        self.close(case, actual[1], oracle[1], f"the state{when}", of="state")


def tokens(inputs: Inputs, time: slice) -> Inputs:
    """These tokens of the inputs; the state belongs to no token and is left as it is."""
    return {name: x if name == "state" else x[:, time] for name, x in inputs.items()}


def gradients(run: Callable[..., Answer], inputs: Inputs, seed: int) -> Inputs:
    """The gradient of one random weighting of the output and the state, by the name of the input."""
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items()}
    generator = torch.Generator().manual_seed(seed)
    loss = 0.0
    for answer in run(leaves):
        weight = torch.randn(answer.shape, generator=generator, dtype=torch.float64).to(answer)
        loss = loss + (answer * weight).sum()
    if not loss.requires_grad:  # T = 0 and no state: nothing depends on anything
        return {name: torch.zeros_like(x) for name, x in leaves.items()}
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True), strict=True))


@st.composite
def cases(
    draw: st.DrawFn,
    regime: str = "wide",
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    widths: Sequence[int] = (2, 3, 5, 8),
    chunks: Sequence[int] = (1, 2, 3, 4, 7, 16),
    shortest: int = 0,
) -> Case:
    """Cases of one regime. Everything drawn is a size or a seed, so that a failure shrinks to few and short tokens.

    The length is drawn by the number of chunks and the rest, so that T below, at and beside a multiple all come up.
    No width is 1: a state of one row is erased whole by β = 1, and of what should be zero no relative error exists.
    """
    chunk = draw(st.sampled_from(chunks))
    T = max(shortest, draw(st.integers(0, 3)) * chunk + draw(st.sampled_from((1, 0, -1, chunk // 2))))
    B, H = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    K, V = draw(st.sampled_from(widths)), draw(st.sampled_from(widths))
    seed = draw(st.integers(0, 999))
    return Case(regime, Shape(B, T, H, K, V), chunk, seed, dtype, device)


def by_name(thing: object) -> str:
    """What a test's name calls its parameter."""
    return getattr(thing, "__name__", None) or getattr(thing, "name", None) or str(thing)


def claims_on(rules: Sequence[Rule], regimes: Sequence[str], claims_of: Callable) -> pytest.MarkDecorator:
    """One test for each claim, each implementation that must meet it, and each regime."""
    every = [
        pytest.param(claim, rule, regime, id=f"{claim.__name__}-{rule.name}-{regime}")
        for rule in rules
        for claim in claims_of(rule)
        for regime in regimes
    ]
    return pytest.mark.parametrize(("claim", "rule", "regime"), every)
