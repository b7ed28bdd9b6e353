"""What must hold of every rule of the ladder. One function is one claim, and its name says it.

Each takes an implementation and a case, and fails with an AssertionError where the claim does not hold of them. What
only some rungs do is in rung_claims.py; attention over a window and the short convolution have claims of their own.
"""

from collections.abc import Callable
from itertools import pairwise

import torch

from minivl.ops.checks import state_dtype

from .cases import SCALE, Case, Rule, gradients, tokens
from .rung_claims import DELTA, GATED, LINEAR

Claim = Callable[[Rule, Case], None]


def it_equals_the_recurrence(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    rule.agree(case, rule.answer(case, inputs), rule.truth(inputs))


def gradients_equal_the_recurrences(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    actual = gradients(lambda leaves: rule.answer(case, leaves), inputs, case.seed)
    exact = {name: x.double() for name, x in inputs.items()}
    oracle = gradients(lambda leaves: rule.oracle(**leaves, scale=SCALE), exact, case.seed)
    for name in inputs:
        rule.close(case, actual[name], oracle[name], f"the gradient of {name}", of="gradient")


def gradients_equal_finite_differences(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case.like(B=1, T=min(case.shape.T, 4), H=1, K=min(case.shape.K, 3), V=min(case.shape.V, 2)))
    leaves = [x.clone().requires_grad_(bool(x.isfinite().all())) for x in inputs.values()]
    assert torch.autograd.gradcheck(
        lambda *values: rule.answer(case, dict(zip(inputs, values, strict=True))), leaves, raise_exception=False
    ), f"the gradients of {rule.name} are not its finite differences"


def splitting_anywhere_preserves_the_state(rule: Rule, case: Case) -> None:
    inputs, T = rule.inputs(case), case.shape.T
    cuts = [0, *sorted((case.pick(T), T - case.pick(T // 2))), T]
    pieces, state = [], inputs["state"]
    for start, stop in pairwise(cuts):
        out, state = rule.answer(case, tokens(inputs, slice(start, stop)) | {"state": state})
        pieces.append(out)
    rule.agree(case, (torch.cat(pieces, 1), state), rule.truth(inputs), f", cut at {cuts[1:-1]},")


def decoding_equals_prefilling(rule: Rule, case: Case) -> None:
    """One token at a time gives what all at once give."""
    inputs = rule.inputs(case)
    pieces, state = [inputs["v"][:, :0]], inputs["state"]
    for t in range(case.shape.T):
        out, state = rule.answer(case, tokens(inputs, slice(t, t + 1)) | {"state": state})
        pieces.append(out)
    rule.agree(case, (torch.cat(pieces, 1), state), rule.truth(inputs), ", token by token,")


def no_state_is_a_state_of_zeros(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    zeros = inputs | {"state": torch.zeros_like(inputs["state"])}
    del inputs["state"]
    rule.agree(case, rule.answer(case, inputs), rule.truth(zeros))


def no_tokens_leave_the_state_alone(rule: Rule, case: Case) -> None:
    inputs = tokens(rule.inputs(case), slice(0, 0))
    out, state = rule.answer(case, inputs)
    assert out.shape == inputs["v"].shape, f"no tokens should give an empty output; it has shape {list(out.shape)}"
    assert torch.equal(state, inputs["state"]), "no tokens changed the state"


def future_tokens_never_matter(rule: Rule, case: Case) -> None:
    inputs, now = rule.inputs(case), case.pick(case.shape.T)
    other = rule.inputs(Case("wide", case.shape, case.chunk, case.seed + 1, case.dtype, case.device))
    changed = {
        name: x if name == "state" else torch.cat([x[:, :now], 3 * other[name][:, now:]], 1)
        for name, x in inputs.items()
    }
    before = rule.truth(tokens(inputs, slice(0, now)))[0]
    rule.close(case, rule.answer(case, changed)[0][:, :now], before, f"the output before t = {now}")


def heads_are_independent(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    out, state = rule.answer(case, inputs)
    for head in range(case.shape.H):
        one = slice(head, head + 1)
        alone = {name: x[:, one] if name == "state" else x[:, :, one] for name, x in inputs.items()}
        rule.agree(case, (out[:, :, one], state[:, one]), rule.truth(alone), f" of head {head} alone")


def a_permutation_of_the_batch_permutes_the_answer(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case.like(B=3))
    order = torch.tensor([2, 0, 1], device=case.device)
    out, state = rule.truth(inputs)
    permuted = rule.answer(case, {name: x[order] for name, x in inputs.items()})
    rule.agree(case, permuted, (out[order], state[order]))


def an_empty_batch_gives_an_empty_answer(rule: Rule, case: Case) -> None:
    shape = case.like(B=0).shape
    out, state = rule.answer(case, rule.inputs(case.like(B=0)))
    assert out.shape == (0, shape.T, shape.H, shape.V), f"the output has shape {list(out.shape)}"
    assert state.shape == (0, shape.H, shape.K, shape.V), f"the state has shape {list(state.shape)}"


def output_and_state_are_linear_in_values_and_state(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    other = rule.inputs(Case("wide", case.shape, case.chunk, case.seed + 1, case.dtype, case.device))
    linear = [name for name in ("v", "state") if name in inputs]
    mixed = inputs | {name: inputs[name] - 2 * other[name] for name in linear}
    (out, state), (other_out, other_state) = (
        rule.truth(inputs),
        rule.truth(inputs | {name: other[name] for name in linear}),
    )
    rule.agree(case, rule.answer(case, mixed), (out - 2 * other_out, state - 2 * other_state))


def scale_multiplies_the_output_alone(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    out, state = rule.truth(inputs, scale=1.0)
    rule.agree(case, rule.answer(case, inputs, scale=-3.0), (-3.0 * out, state))


def inputs_stay_as_they_were(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    before = {name: x.clone() for name, x in inputs.items()}
    rule.answer(case, inputs)
    for name, x in inputs.items():
        assert torch.equal(x, before[name]), f"{rule.name} changed its input {name}"


def layout_in_memory_does_not_matter(rule: Rule, case: Case) -> None:
    """Views with gaps and swapped strides, and a batch that is one row expanded, give what plain tensors give."""
    inputs = rule.inputs(case)
    scattered = {name: torch.stack([x, x], -1)[..., 0].mT.contiguous().mT for name, x in inputs.items()}
    rule.agree(case, rule.answer(case, scattered), rule.truth(inputs))
    expanded = {name: x[:1].expand(case.shape.B, *x.shape[1:]) for name, x in inputs.items()}
    rule.agree(case, rule.answer(case, expanded), rule.truth(expanded))


def recording_gradients_does_not_change_the_answer(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    with torch.inference_mode():
        rule.agree(case, rule.answer(case, inputs), rule.truth(inputs), " in inference mode")
    leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    rule.agree(case, rule.answer(case, leaves), rule.truth(inputs), " with gradients")


def the_output_keeps_its_dtype_and_the_state_is_at_least_float32(rule: Rule, case: Case) -> None:
    """Also with gates in q's own dtype, though layers make them in float32."""
    inputs = rule.inputs(case)
    for dtype in (case.dtype, state_dtype(case.dtype)):
        cast = inputs | {name: inputs[name].to(dtype) for name in rule.gates}
        out, state = rule.answer(case, cast)
        assert out.dtype == case.dtype, f"the output is {out.dtype}; it should be {case.dtype}"
        assert state.dtype == state_dtype(case.dtype), f"the state is {state.dtype}; it should be at least float32"
        rule.agree(case, (out, state), rule.truth(cast))


EVERY_RULE = (
    it_equals_the_recurrence,
    future_tokens_never_matter,
    heads_are_independent,
    a_permutation_of_the_batch_permutes_the_answer,
    an_empty_batch_gives_an_empty_answer,
    output_and_state_are_linear_in_values_and_state,
    scale_multiplies_the_output_alone,
    inputs_stay_as_they_were,
    layout_in_memory_does_not_matter,
    recording_gradients_does_not_change_the_answer,
    the_output_keeps_its_dtype_and_the_state_is_at_least_float32,
)
DIFFERENTIABLE = (
    gradients_equal_the_recurrences,
    gradients_equal_finite_differences,
)
CARRYING = (
    splitting_anywhere_preserves_the_state,
    decoding_equals_prefilling,
    no_state_is_a_state_of_zeros,
    no_tokens_leave_the_state_alone,
)


def claims_of(rule: Rule) -> tuple[Claim, ...]:
    """The claims that this implementation must meet: by what it takes, and whether gradients can pass through it."""
    lists = {
        EVERY_RULE: True,
        DIFFERENTIABLE: rule.differentiable,
        CARRYING: rule.carries,
        DELTA: "beta" in rule.gates,
        GATED: "log_decay" in rule.gates,
        LINEAR: not rule.gates,
    }
    return tuple(claim for claims, meant in lists.items() if meant for claim in claims)
