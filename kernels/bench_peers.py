"""Ours and the libraries that bench.py times and checks beside it, each behind one signature.

Flash Linear Attention (FLA, Triton) takes the model's shapes as they are. Its backward pass refuses a Hopper card with
Triton 3.4 to 3.7.0, which miscompile a transpose there, unless TileLang is installed, which it then uses for that step.
So there are two of it: "FLA" is what it does by itself, and "FLA forced", of which only the backward pass counts, is
its Triton kernel with that check switched off; the errors measured in the same run say what its gradients are worth.

FlashQLA (TileLang, Hopper and later) takes heads of 128 only. Columns of V never meet in the rule, so a head of V = 256
is two heads of 128 that share q, k and both gates: the same rule exactly. What is laid out anew for that is laid out
before the clock starts. It compiles at its first calls, for up to minutes, and has no step for a single token.
"""

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from unittest.mock import patch

from torch import Tensor

from . import chunked_gated_delta_rule, step_gated_delta_rule
from .bench_report import K

SCALE = K**-0.5
OURS = "MiniVL"
WIDEST_OF_FLASH_QLA = 128


def as_given(case: dict) -> dict:
    return case


def both(out: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return out, state


@dataclass(frozen=True)
class Library:
    """`rule` takes q, k, v, log_decay, beta and state as `fit` lays them out, and returns out and state, which `join`
    lays out as ours; `step` the same for one token. `meanwhile` is what must hold while they run."""

    rule: Callable
    step: Callable | None = None
    fit: Callable[[dict], dict] = as_given
    join: Callable = both
    meanwhile: Callable[[], AbstractContextManager] = nullcontext
    backward_only: bool = False
    refusals: tuple[type[Exception], ...] = (Exception,)
    note: str = ""

    def attempt(self, action: Callable[[], object]) -> tuple[object, str | None]:
        """What the action returns, or the reason why the library refuses it."""
        try:
            with self.meanwhile():
                return action(), None
        except self.refusals as refusal:
            return None, one_line(refusal)


def one_line(refusal: Exception) -> str:
    said = " ".join(str(refusal).split())
    return f"{type(refusal).__name__}: {said}"[:200]


def ours() -> Library:
    def rule(q, k, v, log_decay, beta, state):
        gates = {"log_decay": log_decay, "beta": beta}
        return chunked_gated_delta_rule(q, k, v, **gates, state=state, scale=SCALE, normalize_qk=True)

    def step(q, k, v, log_decay, beta, state):
        gates = {"log_decay": log_decay, "beta": beta}
        return step_gated_delta_rule(q, k, v, **gates, state=state, scale=SCALE, normalize_qk=True)

    return Library(rule, step, refusals=())


def foreign(function: Callable) -> Callable:
    """A function with FLA's signature, which FlashQLA shares, behind ours."""

    def run(q, k, v, log_decay, beta, state):
        return function(
            q, k, v, g=log_decay, beta=beta, scale=SCALE, initial_state=state, output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )  # fmt: skip

    return run


def fla() -> Library:
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

    rule, step = foreign(chunk_gated_delta_rule), foreign(fused_recurrent_gated_delta_rule)
    note = f"{version('fla-core')}, as it ships; on Hopper with this Triton its backward needs TileLang, or refuses"
    return Library(rule, step, note=note)


def fla_forced() -> Library:
    from fla.ops.common import chunk_o

    if not chunk_o.IS_NVIDIA_HOPPER or not chunk_o.TRITON_ABOVE_3_4_0 or chunk_o.TRITON_ABOVE_3_7_1:
        raise RuntimeError("FLA's backward refuses nothing here, so nothing is forced")

    @contextmanager
    def unchecked():
        with patch.dict(os.environ, FLA_TILELANG="0"), patch.object(chunk_o, "TRITON_ABOVE_3_7_1", True):
            yield

    note = "FLA's backward in Triton with its check for this card switched off: see the errors of its gradients"
    return Library(fla().rule, meanwhile=unchecked, backward_only=True, note=note)


def narrow_heads(case: dict) -> dict:
    """Each head's V columns shared among heads of 128; a column of V is a column of the state, and needs no other."""
    parts = case["v"].shape[-1] // WIDEST_OF_FLASH_QLA
    gates = {name: case[name].repeat_interleave(parts, -1) for name in ("log_decay", "beta")}
    v = case["v"].unflatten(-1, (parts, -1)).flatten(2, 3)
    state = case["state"].unflatten(-1, (parts, -1)).movedim(3, 2).flatten(1, 2)
    return case | gates | {"v": v, "state": state.contiguous()}


def joined_heads(out: Tensor, state: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """What narrow_heads takes apart, for this number of wide heads."""
    out, state = out.unflatten(2, (heads, -1)).flatten(3), state.unflatten(1, (heads, -1))
    return out, state.movedim(2, 3).flatten(3)


def flash_qla() -> Library:
    from flash_qla import chunk_gated_delta_rule

    from .bench_report import H

    note = f"{version('flash_qla')}; a head of V = 256 as two of 128, laid out outside of the timing; no step"
    return Library(
        foreign(chunk_gated_delta_rule),
        fit=narrow_heads,
        join=lambda out, state: joined_heads(out, state, H),
        note=note,
    )


PEERS = {"FLA": ("fla", fla), "FLA forced": ("fla", fla_forced), "FlashQLA": ("flash_qla", flash_qla)}


def libraries() -> tuple[dict[str, Library], dict[str, str]]:
    """{name: library}, ours first; and {name: why it is not compared} of those that can't be had here."""
    found, missing = {OURS: ours()}, {}
    for name, (package, make) in PEERS.items():
        if importlib.util.find_spec(package) is None:
            missing[name] = f"the package {package} is not installed"
            continue
        try:
            found[name] = make()
        except Exception as refusal:  # an import of theirs may fail in any way
            missing[name] = one_line(refusal)
    return found, missing
