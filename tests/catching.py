"""What it means that a test catches a wrong implementation: its claim holds for the real source and fails for the edit.

Each rung says where its implementations come from and on which cases they are tried, the same few every time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import ModuleType

import torch

from . import claims, rungs
from .cases import Case
from .conv_claims import ConvCase
from .editing import Edit, edited, find_module
from .regimes import Shape
from .window_claims import WindowCase


@dataclass(frozen=True)
class Rung:
    module: str
    implementations: Callable[[ModuleType], dict[str, object]]
    cases: Callable[[str, torch.dtype], Iterable[object]]


@dataclass(frozen=True)
class Wrong:
    name: str
    rung: str
    implementation: str
    edit: Edit
    claim: Callable[[object, object], None]
    regime: str = "wide"
    dtype: torch.dtype = torch.float64

    def caught(self) -> bool:
        """The claim fails for the edited source, on some case of the regime."""
        rung = RUNGS[self.rung]
        return self.fails(edited(self.edit, rung.module), self.claim, rung.cases(self.regime, self.dtype))

    def right_passes(self) -> bool:
        """The same claim holds for the source as it is, on all cases of the regime."""
        rung = RUNGS[self.rung]
        return not self.fails(find_module(rung.module), self.claim, rung.cases(self.regime, self.dtype))

    def fails(self, module: ModuleType, claim: Callable, cases: Iterable) -> bool:
        """A crash is not a catch: only an AssertionError of the claim is."""
        implementation = RUNGS[self.rung].implementations(module)[self.implementation]
        for case in cases:
            try:
                claim(implementation, case)
            except AssertionError:
                return True
        return False

    def passes(self, cases: Iterable[Case]) -> bool:
        """The wrong version equals the recurrence on all of these."""
        module = edited(self.edit, RUNGS[self.rung].module)
        return not self.fails(module, claims.it_equals_the_recurrence, cases)


def ladder_cases(regime: str, dtype: torch.dtype) -> list[Case]:
    """Several chunks and a rest, K = V; several seeds, so that `pick` cuts in several places."""
    case = Case(regime, Shape(B=2, T=37, H=2, K=8, V=8), chunk=8, dtype=dtype)
    long = Case(regime, Shape(B=1, T=150, H=2, K=8, V=8), chunk=64, dtype=dtype)
    return [*(replace(case, seed=seed) for seed in range(3)), long]


def window_cases(regime: str, dtype: torch.dtype) -> list[WindowCase]:
    """Windows of several and of one, rings with and without slack, always several times round."""
    case = WindowCase(regime, T=41, heads=2, group=3, window=5, dtype=dtype)
    return [replace(case, slack=slack, seed=seed) for slack in (0, 1, 4) for seed in range(2)]


def conv_cases(regime: str, dtype: torch.dtype) -> list[ConvCase]:
    return [ConvCase(T=T, seed=seed, dtype=dtype) for T in (2, 9) for seed in range(2)]


def by_name(build: Callable[[ModuleType], Iterable]) -> Callable[[ModuleType], dict[str, object]]:
    return lambda module: {implementation.name: implementation for implementation in build(module)}


RUNGS = {
    "linear_attention": Rung("ops.linear_attention", by_name(rungs.linear_attention_rules), ladder_cases),
    "delta_rule": Rung("ops.delta_rule", by_name(rungs.delta_rules), ladder_cases),
    "gated_delta_rule": Rung("ops.gated_delta_rule", by_name(rungs.gated_rules), ladder_cases),
    "sliding_window": Rung("ops.sliding_window", by_name(rungs.attentions), window_cases),
    "short_conv": Rung("ops.short_conv", lambda module: {"short_conv": module.short_conv}, conv_cases),
}
LADDER = ("linear_attention", "delta_rule", "gated_delta_rule")

# The inputs of a test that is too easy, each easy in one way and otherwise `wide`.
WEAK: dict[str, Callable[[torch.dtype], list[Case]]] = {
    "one token": lambda dtype: [case.like(T=1) for case in ladder_cases("wide", dtype)],
    "one chunk": lambda dtype: [replace(case, chunk=256) for case in ladder_cases("wide", dtype)],
    "one chunk, empty state": lambda dtype: [replace(case, chunk=256) for case in ladder_cases("zero_state", dtype)],
    "whole chunks": lambda dtype: [case.like(T=4 * case.chunk) for case in ladder_cases("wide", dtype)],
    "empty state": lambda dtype: ladder_cases("zero_state", dtype),
    "α = 1": lambda dtype: ladder_cases("alpha_one", dtype),
}


def wrong(
    name: str,
    implementation: str,
    right: str,
    instead: str,
    claim: Callable[[object, object], None],
    regime: str = "wide",
    dtype: torch.dtype = torch.float64,
    where: str | None = None,
) -> Wrong:
    """A row of the table. `where` names the edited function if it is not the implementation, by module and name."""
    return shared(name, implementation, Edit(f"ops.{where or implementation}", right, instead), claim, regime, dtype)


def shared(
    name: str,
    implementation: str,
    edit: Edit,
    claim: Callable[[object, object], None],
    regime: str = "wide",
    dtype: torch.dtype = torch.float64,
) -> Wrong:
    """A row whose edit stands elsewhere: see editing.known."""
    rung, function = implementation.split(".")
    return Wrong(name, rung, function, edit, claim, regime, dtype)
