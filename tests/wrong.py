"""The tests, tested: a table of wrong implementations, each caught by a claim of its own rung in a named regime.

A row is one edit of the real source, the claim that must fail for it, and the regime in which it does. `python -m
tests.wrong` prints the table, with the weak kinds of input that would have let each one pass. To add a row, add it to
its rung's; a new rung also needs an entry in RUNGS. Edits that students make as well stand in minivl/course, and are
`known` here by their task and name. The rows of rotations and layers are in wrong_layers.py, those of the vision tower
in wrong_vision.py, those of the whole model in wrong_model.py, those of a stream in wrong_stream.py.
"""

from collections import Counter

import torch

from . import claims, conv_claims, rung_claims, window_claims
from .catching import LADDER, RUNGS, WEAK, Wrong, shared, wrong
from .editing import known
from .wrong_layers import LAYER_RUNGS, WRONG_LAYERS
from .wrong_model import MODEL_RUNGS, WRONG_MODEL
from .wrong_stream import STREAM_RUNGS, WRONG_STREAM
from .wrong_vision import VISION_RUNGS, WRONG_VISION

RUNGS.update(LAYER_RUNGS | VISION_RUNGS | MODEL_RUNGS | STREAM_RUNGS)

EQUAL = claims.it_equals_the_recurrence
BANDED = window_claims.it_equals_banded_attention
SPLIT = claims.splitting_anywhere_preserves_the_state
RECALL = rung_claims.beta_one_with_a_unit_key_recalls_the_value
FUTURE = claims.future_tokens_never_matter
SUMS = rung_claims.each_output_sums_the_values_of_all_tokens_so_far
NORMALISE = rung_claims.normalize_qk_is_normalising_first
GRADIENTS = claims.gradients_equal_the_recurrences

LINEAR_ATTENTION = (
    shared("it reads before it writes", "linear_attention.recurrent", known("1.1", "it reads before it writes"), SUMS),
    shared("keys and values are swapped", "linear_attention.recurrent",
          known("1.1", "keys and values are swapped"), rung_claims.orthogonal_keys_recall_their_own_values),
    shared("the state is ignored", "linear_attention.recurrent", known("1.1", "the state is ignored"), SPLIT),
    shared("the mask lets the future in", "linear_attention.parallel",
          known("1.2", "the mask lets the future in"), FUTURE),
    shared("the mask is strict", "linear_attention.parallel", known("1.2", "the mask is strict"), SUMS),
    shared("the carry is added twice", "linear_attention.chunked", known("1.2", "the carry is added twice"), EQUAL),
    shared("the carry is lost", "linear_attention.chunked", known("1.2", "the carry is lost"), SPLIT),
    shared("queries do not read the carry", "linear_attention.chunked",
          known("1.2", "queries do not read the carry"), SPLIT),
    wrong("the scale reaches only part of the output", "linear_attention.chunked", "scale * (q[n] @ state + scores",
          "(scale * q[n] @ state + scores", claims.scale_multiplies_the_output_alone),
    shared("the mask is strict", "linear_attention.chunked", known("1.2", "the mask within a chunk is strict"), SUMS),
    wrong("the ragged tail is dropped", "linear_attention.chunked", "F.pad(x, [0, 0] * (x.ndim - 2) + [0, missing])",
          "x[:, : x.shape[1] // C * C]", EQUAL, where="chunks.to_chunks"),
)  # fmt: skip

DELTA_RULE = (
    shared("it predicts from the updated state", "delta_rule.recurrent",
          known("1.3", "it predicts from the updated state"), RECALL),
    shared("β scales what is written, not what is erased", "delta_rule.recurrent",
          known("1.3", "β scales only what is written"), rung_claims.beta_zero_only_decays),
    shared("β scales what is erased, not what is written", "delta_rule.recurrent",
          known("1.3", "β scales only what is erased"), rung_claims.beta_zero_only_decays),
    wrong("the Gram matrix is not strict", "delta_rule.chunked",
          "gram, torch.diag_embed(beta), upper=False, unitriangular=True",
          "gram + torch.diag_embed(1 + beta), torch.diag_embed(beta), upper=False", RECALL,
          where="delta_rule.ut_transform"),
    shared("the solve is transposed", "delta_rule.chunked", known("1.4", "the solve is transposed"), FUTURE),
    shared("β is missing from the Gram matrix", "delta_rule.chunked",
          known("1.4", "β is missing from the Gram matrix"), EQUAL),
    shared("β is missing from what is written", "delta_rule.chunked",
          known("1.4", "β is missing from what is written"), rung_claims.beta_zero_only_decays),
    shared("the Gram matrix takes the other token's β", "delta_rule.chunked",
          known("1.4", "the Gram matrix takes the other token's β"), EQUAL),
    shared("the inverse is a short series", "delta_rule.chunked",
          known("1.4", "the inverse is a short series"), EQUAL, "static"),
    shared("the mask on the output is strict", "delta_rule.chunked",
          known("1.4", "the mask on the output is strict"), RECALL),
    shared("the mask lets the future in", "delta_rule.chunked", known("1.4", "the mask lets the future in"), FUTURE),
    shared("what the state holds is not erased", "delta_rule.chunked",
          known("1.4", "what the state holds is not erased"), RECALL),
    wrong("queries do not read the state", "delta_rule.chunked", "q[n] @ state + scores", "scores", RECALL),
    shared("the state is reset at each chunk", "delta_rule.chunked",
          known("1.4", "the state is reset at each chunk"), SPLIT),
    wrong("the state is ignored", "delta_rule.chunked", "v, state=state,", "v,", SPLIT),
    wrong("the ragged tail is dropped", "delta_rule.chunked", "F.pad(x, [0, 0] * (x.ndim - 2) + [0, missing])",
          "x[:, : x.shape[1] // C * C]", EQUAL, where="chunks.to_chunks"),
)  # fmt: skip

GATED_DELTA_RULE = (
    shared("the decay comes after the prediction", "gated_delta_rule.recurrent",
          known("2.1", "the decay comes after the prediction"), RECALL),
    shared("the decay fades what was just written", "gated_delta_rule.recurrent",
          known("2.1", "the decay fades what was just written"), RECALL),
    shared("the exponential is missing", "gated_delta_rule.recurrent",
          known("2.1", "the exponential is missing"), rung_claims.beta_zero_only_decays),
    shared("β scales what is written, not what is erased", "gated_delta_rule.recurrent",
          known("2.1", "β scales only what is written"), rung_claims.beta_zero_only_decays),
    shared("the new state is not stored", "gated_delta_rule.step",
          known("2.1", "step does not store the state"), EQUAL),
    shared("the mask carries no decay", "gated_delta_rule.chunked", known("2.3", "the mask carries no decay"), EQUAL),
    shared("the Gram matrix is ungated", "gated_delta_rule.chunked", known("2.3", "the Gram matrix is ungated"), EQUAL),
    shared("the prediction's keys (W) carry no decay", "gated_delta_rule.chunked",
          known("2.3", "the prediction's keys (W) carry no decay"), RECALL),
    shared("the queries of the state carry no decay", "gated_delta_rule.chunked",
          known("2.3", "the queries of the state carry no decay"), rung_claims.beta_zero_only_decays),
    shared("the keys of the state carry no decay", "gated_delta_rule.chunked",
          known("2.3", "the keys of the state carry no decay"), EQUAL),
    shared("the state carries no decay", "gated_delta_rule.chunked",
          known("2.3", "the state carries no decay"), rung_claims.beta_zero_only_decays),
    shared("the state is reset at each chunk", "gated_delta_rule.chunked",
          known("2.3", "the state is reset at each chunk"), SPLIT),
    wrong("the state is ignored", "gated_delta_rule.chunked", "v, state=state,", "v,", SPLIT),
    shared("what the state holds is not erased", "gated_delta_rule.chunked",
          known("2.3", "what the state holds is not erased"), RECALL),
    wrong("queries do not read the state", "gated_delta_rule.chunked", "q_in @ state + scores", "scores", RECALL),
    shared("the mask on the output is strict", "gated_delta_rule.chunked",
          known("2.3", "the mask on the output is strict"), RECALL),
    wrong("the Gram matrix is not strict", "gated_delta_rule.chunked",
          "gram, torch.diag_embed(beta), upper=False, unitriangular=True",
          "gram + torch.diag_embed(1 + beta), torch.diag_embed(beta), upper=False", RECALL),
    shared("the solve is transposed", "gated_delta_rule.chunked", known("2.3", "the solve is transposed"), FUTURE),
    shared("β is missing from the Gram matrix", "gated_delta_rule.chunked",
          known("2.3", "β is missing from the Gram matrix"), EQUAL),
    shared("β is missing from what is written", "gated_delta_rule.chunked",
          known("2.3", "β is missing from what is written"), rung_claims.beta_zero_only_decays),
    wrong("the inverse is a short series", "gated_delta_rule.chunked",
          "torch.linalg.solve_triangular(gram, torch.diag_embed(beta), upper=False, unitriangular=True)",
          "(torch.eye(gram.shape[-1], dtype=gram.dtype) - gram + gram @ gram) @ torch.diag_embed(beta)",
          EQUAL, "static"),
    wrong("the ragged tail is dropped", "gated_delta_rule.chunked",
          "F.pad(x, [0, 0] * (x.ndim - 2) + [0, missing])", "x[:, : x.shape[1] // C * C]", EQUAL,
          where="chunks.to_chunks"),
    shared("a token's own gate is left out", "gated_delta_rule.chunked",
          known("2.2", "a token's own gate is left out"), rung_claims.beta_zero_only_decays),
    wrong("the running sum carries on into the next chunk", "gated_delta_rule.chunked", "chunk_decays(log_decay)",
          "chunk_decays(torch.cat([log_decay[..., :1] + log_decay.sum(-1, True).cumsum(0), log_decay[..., 1:]], -1))",
          rung_claims.beta_zero_only_decays),
    wrong("the exponential comes before the mask", "gated_delta_rule.chunked", "decay = between.exp().tril()",
          "G = log_decay.cumsum(-1); decay = (G[..., :, None] - G[..., None, :]).exp() * (between <= 0).tril()",
          EQUAL, "strong_decay", torch.float32, where="gated_delta_rule.chunk_decays"),
    wrong("float32 running sums cancel", "gated_delta_rule.chunked", "decay = between.exp().tril()",
          "G = log_decay.cumsum(-1); decay = (G[..., :, None] - G[..., None, :]).tril().exp().tril()",
          EQUAL, "bursts", torch.float32, where="gated_delta_rule.chunk_decays"),
    wrong("α = 0 is ∞ − ∞", "gated_delta_rule.chunked", "decay = between.exp().tril()",
          "G = log_decay.cumsum(-1); decay = (G[..., :, None] - G[..., None, :]).tril().exp().tril() + 0",
          rung_claims.a_reset_forgets_all_that_came_before, "resets", where="gated_delta_rule.chunk_decays"),
    wrong("the gate after j is counted too late", "gated_delta_rule.chunked", ".triu(1)", ".triu(2)", EQUAL,
          where="gated_delta_rule.chunk_decays"),
    wrong("gradients of the gate are lost", "gated_delta_rule.chunked", "between.exp()", "between.detach().exp()",
          GRADIENTS, where="gated_delta_rule.chunk_decays"),
    shared("only keys are normalised", "gated_delta_rule.chunked", known("2.3", "only keys are normalised"), NORMALISE),
    wrong("the norm divides by zero", "gated_delta_rule.chunked", "keepdim=True) + 1e-6", "keepdim=True)",
          NORMALISE, "zero_keys", where="delta_rule.unit"),
)  # fmt: skip

SLIDING_WINDOW = (
    shared("the window is one too wide", "sliding_window.banded",
          known("3.1", "the window is one too wide"), window_claims.a_window_of_one_returns_v, "ordinary"),
    shared("the window is one too narrow", "sliding_window.banded",
          known("3.1", "the window is one too narrow"),
          window_claims.a_key_is_visible_iff_it_is_less_than_the_window_behind, "equal"),
    shared("the next token is visible", "sliding_window.banded",
          known("3.1", "the next token is visible"), window_claims.future_tokens_never_matter, "ordinary"),
    shared("heads are tiled, not grouped", "sliding_window.banded",
          known("3.1", "heads are tiled"), window_claims.a_window_of_one_returns_v, "ordinary"),
    shared("scores are not scaled", "sliding_window.banded",
          known("3.1", "scores are not scaled"), window_claims.a_window_of_at_least_T_is_full_attention, "ordinary"),
    wrong("a block's oldest key is missing", "sliding_window.blocked", "start - window + 1", "start - window + 2",
          window_claims.a_key_is_visible_iff_it_is_less_than_the_window_behind, "equal"),
    wrong("empty slots are visible", "sliding_window.ring_in_pieces", " & (key >= 0)[..., None, :]", "",
          window_claims.a_key_is_visible_iff_it_is_less_than_the_window_behind, "equal",
          where="sliding_window.visible"),
    shared("the ring wraps one too early", "sliding_window.ring_token_by_token",
          known("3.2", "the ring wraps one too early"), BANDED, "ordinary"),
    shared("the ring wraps one too late", "sliding_window.ring_token_by_token",
          known("3.2", "the ring wraps one too late"), BANDED, "ordinary"),
    shared("the slot is taken for the position", "sliding_window.ring_token_by_token",
          known("3.3", "the slot is taken for the position"), BANDED, "ordinary"),
    shared("a write may be one too long", "sliding_window.ring_in_pieces",
          known("3.2", "a write may be one too long"), BANDED, "ordinary"),
    shared("values are stored as keys", "sliding_window.ring_in_pieces",
          known("3.2", "values are stored as keys"), window_claims.a_window_of_one_returns_v, "ordinary"),
    shared("the counter stands still", "sliding_window.ring_in_pieces",
          known("3.2", "the counter stands still"), BANDED, "ordinary"),
    wrong("padding is counted", "sliding_window.ring_of_padded_rows", "if lengths is None else lengths", "",
          BANDED, "ordinary", where="sliding_window.Ring.write"),
    wrong("padding is written", "sliding_window.ring_of_padded_rows", "real = offset < lengths[:, None]",
          "real = offset < lengths[:, None] + 1", BANDED, "ordinary", where="sliding_window.Ring.write"),
)  # fmt: skip

SHORT_CONV = (
    shared("the tail is taken after SiLU", "short_conv.short_conv",
          known("4.1", "the tail is taken after SiLU"), conv_claims.splitting_anywhere_preserves_the_tail),
    shared("the kernel is flipped", "short_conv.short_conv",
          known("4.1", "the kernel is flipped"), conv_claims.it_equals_the_equation),
    shared("the tail is ignored", "short_conv.short_conv",
          known("4.1", "the tail is ignored"), conv_claims.splitting_anywhere_preserves_the_tail),
    shared("the tail holds outputs", "short_conv.short_conv",
          known("4.1", "the tail holds outputs"), conv_claims.splitting_anywhere_preserves_the_tail),
    shared("a short call's tail forgets the older one", "short_conv.short_conv",
          known("4.1", "a short call's tail forgets the older one"), conv_claims.decoding_equals_prefilling),
    shared("the future is convolved", "short_conv.short_conv",
          known("4.1", "the future is convolved"), conv_claims.future_tokens_never_matter),
    wrong("the tail ends in padding", "short_conv.short_conv",
          "past.gather(1, last[..., None].expand(-1, -1, D))", "past[:, T:]", conv_claims.padding_is_inert),
)  # fmt: skip

WRONG: tuple[Wrong, ...] = (
    *LINEAR_ATTENTION, *DELTA_RULE, *GATED_DELTA_RULE, *SLIDING_WINDOW, *SHORT_CONV, *WRONG_LAYERS,
    *WRONG_VISION,
    *WRONG_MODEL,
    *WRONG_STREAM,
)  # fmt: skip

# Those of the ladder whose answers are wrong on ordinary gates: what a single comparison in `wide` must catch.
ORDINARY = tuple(
    row for row in WRONG
    if row.rung in LADDER and row.regime == "wide" and row.claim not in (GRADIENTS, NORMALISE)
)  # fmt: skip


def table() -> str:
    """The table in Markdown, and how many of the ladder's rows each weak kind of input lets pass."""
    lines = ["| where | what is wrong | caught by | in regime | but not with |", "|---|---|---|---|---|"]
    passed = Counter()
    for row in WRONG:
        weak = [name for name, cases in WEAK.items() if row in ORDINARY and row.passes(cases(row.dtype))]
        passed.update(weak)
        regime = row.regime + (", float32" if row.dtype == torch.float32 else "")
        claim = row.claim.__name__.replace("_", " ")
        lines.append(f"| `{row.rung}.{row.implementation}` | {row.name} | {claim} | {regime} | {'; '.join(weak)} |")
    let_pass = ", ".join(f"{name} {passed[name]}" for name in WEAK)
    return "\n".join(
        [*lines, f"Of {len(ORDINARY)} that `wide` catches by comparison alone, weak inputs let pass: {let_pass}."]
    )


if __name__ == "__main__":
    print(table())
