"""What must hold of single rungs of the ladder: what each rule, and no other, does. See claims.py."""

from dataclasses import astuple

import torch

from minivl.ops import delta_rule
from minivl.ops.delta_rule import unit

from .cases import SCALE, Case, Rule, tokens
from .regimes import Draw, Inputs


def beta_zero_only_decays(rule: Rule, case: Case) -> None:
    """S_t = e^{G_t} S_0, whatever the keys and values are."""
    inputs = rule.inputs(case)
    inputs["beta"] = torch.zeros_like(inputs["beta"])
    log_decay = inputs.get("log_decay", inputs["beta"]).double()
    faded = log_decay.cumsum(1).exp()[..., None, None] * inputs["state"].double()[:, None]
    out = SCALE * torch.einsum("BTHKV,BTHK->BTHV", faded, inputs["q"].double())
    state = log_decay.sum(1).exp()[..., None, None] * inputs["state"].double()
    rule.agree(case, rule.answer(case, inputs), (out, state))


def beta_one_with_a_unit_key_recalls_the_value(rule: Rule, case: Case) -> None:
    """Reading with the key that was just written gives its value, whatever the state held."""
    inputs = rule.inputs(case)
    inputs["k"] = torch.nn.functional.normalize(inputs["q"].double(), dim=-1).to(case.dtype)
    inputs["q"], inputs["beta"] = inputs["k"], torch.ones_like(inputs["beta"])
    rule.close(case, rule.answer(case, inputs)[0], SCALE * inputs["v"].double(), "the recalled value")


def the_product_of_householder_factors_is_the_states_transition(rule: Rule, case: Case) -> None:
    """S_T = e^{G_T} (I − β_T k_T k_Tᵀ) … (I − β_1 k_1 k_1ᵀ) S_0 + what the same tokens write into an empty state."""
    inputs = rule.inputs(case)
    k, beta = (inputs[name].double().transpose(1, 2) for name in ("k", "beta"))
    fade = inputs["log_decay"].double().sum(1).exp()[..., None, None] if "log_decay" in inputs else 1.0
    kept = fade * delta_rule.householder_product(k, beta) @ inputs["state"].double()
    written = rule.truth(inputs | {"state": torch.zeros_like(inputs["state"])})[1]
    rule.close(case, rule.answer(case, inputs)[1], kept + written, "the state", of="state")


def rewriting_one_key_leaves_orthogonal_keys_untouched(rule: Rule, case: Case) -> None:
    """K orthonormal keys are written, then the first again: it answers with its new value, the others as before."""
    case = case.like(T=case.shape.K + 1)
    inputs = rule.inputs(case) | orthonormal_keys(case)
    inputs["beta"] = torch.ones_like(inputs["beta"])
    log_decay = inputs.get("log_decay", torch.zeros_like(inputs["beta"])).double()
    state = rule.answer(case, inputs)[1]
    later = log_decay.flip(1).cumsum(1).flip(1)[:, 1:]  # what token t's value has faded by: the gates after it
    values = inputs["v"].double()
    remembered = torch.cat([values[:, -1:], later[:, 1:, :, None].exp() * values[:, 1:-1]], 1)
    answers = torch.einsum("BHKV,BTHK->BTHV", state.double(), inputs["k"].double()[:, : case.shape.K])
    rule.close(case, answers, remembered, "what the keys answer", of="state")


def each_output_sums_the_values_of_all_tokens_so_far(rule: Rule, case: Case) -> None:
    """out_t = scale · (S_0ᵀ q_t + Σ_{j≤t} (q_t·k_j) v_j), one pair of tokens after the other."""
    inputs = rule.inputs(case)
    q, k, v = (inputs[name].double() for name in "qkv")
    out = torch.zeros_like(v)
    for t in range(case.shape.T):
        for j in range(t + 1):
            out[:, t] += (q[:, t] * k[:, j]).sum(-1, keepdim=True) * v[:, j]
    if "state" in inputs:
        out += torch.einsum("BHKV,BTHK->BTHV", inputs["state"].double(), q)
    rule.close(case, rule.answer(case, inputs)[0], SCALE * out, "the output")


def orthogonal_keys_recall_their_own_values(rule: Rule, case: Case) -> None:
    """The state is a sum of outer products: K orthonormal keys, each written once, are each answered exactly."""
    case = case.like(T=case.shape.K)
    inputs = rule.inputs(case) | orthonormal_keys(case)
    inputs.pop("state", None)
    state = rule.answer(case, inputs)[1]
    answers = torch.einsum("BHKV,BTHK->BTHV", state.double(), inputs["k"].double())
    rule.close(case, answers, inputs["v"].double(), "what the keys answer", of="state")


def orthonormal_keys(case: Case) -> Inputs:
    """K keys at right angles, then the first of them again and again, up to T."""
    B, T, H, K, _ = astuple(case.shape)
    basis = torch.linalg.qr(Draw(case.seed).normal(B, H, K, K))[0].transpose(1, 2)
    keys = torch.cat([basis, basis[:, :1].expand(-1, max(T - K, 0), -1, -1)], 1)[:, :T]
    return {"k": keys.to(case.device, case.dtype)}


def alpha_one_is_the_plain_delta_rule(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    inputs["log_decay"] = torch.zeros_like(inputs["log_decay"])
    plain = {name: x.double() for name, x in inputs.items() if name != "log_decay"}
    rule.agree(case, rule.answer(case, inputs), delta_rule.recurrent(**plain, scale=SCALE))


def a_reset_forgets_all_that_came_before(rule: Rule, case: Case) -> None:
    """From a token with α = 0 on, all is as if it were the first token of an empty state."""
    inputs, reset = rule.inputs(case.like(T=case.shape.T + 1)), case.pick(case.shape.T)
    inputs["log_decay"] = inputs["log_decay"].clone()
    inputs["log_decay"][:, reset] = -torch.inf
    out, state = rule.answer(case, inputs)
    fresh = tokens(inputs, slice(reset, None)) | {"state": torch.zeros_like(inputs["state"])}
    rule.agree(case, (out[:, reset:], state), rule.truth(fresh), f" after a reset at t = {reset}")


def normalize_qk_is_normalising_first(rule: Rule, case: Case) -> None:
    inputs = rule.inputs(case)
    inputs |= {"q": 3 * inputs["q"], "k": 0.2 * inputs["k"]}
    first = {name: x.double() for name, x in inputs.items()}
    first |= {"q": unit(first["q"]), "k": unit(first["k"])}
    rule.agree(case, rule.answer(case, inputs, normalize_qk=True), rule.truth(first))


DELTA = (
    beta_zero_only_decays,
    beta_one_with_a_unit_key_recalls_the_value,
    the_product_of_householder_factors_is_the_states_transition,
    rewriting_one_key_leaves_orthogonal_keys_untouched,
)
LINEAR = (
    each_output_sums_the_values_of_all_tokens_so_far,
    orthogonal_keys_recall_their_own_values,
)
GATED = (
    alpha_one_is_the_plain_delta_rule,
    a_reset_forgets_all_that_came_before,
    normalize_qk_is_normalising_first,
)
