"""The implementations of each rung, made from its module: the real one, or one that has been edited to be wrong."""

from types import ModuleType

import torch

from minivl.ops import delta_rule, gated_delta_rule, linear_attention
from minivl.ops.checks import state_dtype

from .cases import Rule
from .window_claims import Attention, WindowCase

GATES = ("log_decay", "beta")


def linear_attention_rules(ops: ModuleType) -> tuple[Rule, ...]:
    oracle = linear_attention.recurrent
    return (
        Rule("recurrent", ops.recurrent, oracle, naive=True),
        Rule("parallel", ops.parallel, oracle, carries=False),
        Rule("chunked", ops.chunked, oracle, chunked=True),
    )


def delta_rules(ops: ModuleType) -> tuple[Rule, ...]:
    oracle = delta_rule.recurrent
    return (
        Rule("recurrent", ops.recurrent, oracle, GATES[1:], naive=True),
        Rule("chunked", ops.chunked, oracle, GATES[1:], chunked=True),
    )


def gated_rules(ops: ModuleType) -> tuple[Rule, ...]:
    oracle = gated_delta_rule.recurrent

    def token_by_token(q, k, v, *, log_decay, beta, state=None, **options):
        """`step` for each token in turn, on a copy of the state, which it changes."""
        B, T, H, K = q.shape
        state = q.new_zeros(B, H, K, v.shape[-1], dtype=state_dtype(q.dtype)) if state is None else state.clone()
        out = [v[:, :0]]
        for t in range(T):
            now = [x[:, t : t + 1] for x in (q, k, v)]
            gates = {"log_decay": log_decay[:, t : t + 1], "beta": beta[:, t : t + 1]}
            out.append(ops.step(*now, state=state, **gates, **options)[0])
        return torch.cat(out, 1), state

    return (
        Rule("recurrent", ops.recurrent, oracle, GATES, naive=True),
        Rule("chunked", ops.chunked, oracle, GATES, chunked=True),
        Rule("step", token_by_token, oracle, GATES, differentiable=False, naive=True),
    )


def attentions(ops: ModuleType) -> tuple[Attention, ...]:
    def banded(case: WindowCase, q, k, v, scale=None):
        return ops.banded(q, k, v, window=case.window, scale=scale)

    def blocked(case: WindowCase, q, k, v, scale=None):
        return ops.blocked(q, k, v, window=case.window, scale=scale)

    def ring_at_once(case: WindowCase, q, k, v, scale=None):
        memory = case.new_ring(ops, slots=case.window - 1 + max(case.T, 1))
        return ops.ring(q, k, v, memory=memory, scale=scale)

    def ring_in_pieces(case: WindowCase, q, k, v, scale=None):
        memory = case.new_ring(ops)
        out = [torch.zeros_like(q[:, :0])]
        for piece in case.pieces(memory.longest_write):
            out.append(ops.ring(q[:, piece], k[:, piece], v[:, piece], memory=memory, scale=scale))
        return torch.cat(out, 1)

    def ring_token_by_token(case: WindowCase, q, k, v, scale=None):
        memory = case.new_ring(ops)
        out = [ops.ring(q[:, [t]], k[:, [t]], v[:, [t]], memory=memory, scale=scale) for t in range(case.T)]
        return torch.cat([torch.zeros_like(q[:, :0]), *out], 1)

    def ring_of_padded_rows(case: WindowCase, q, k, v, scale=None):
        """Each row has its own split, writes of no tokens among them, and NaN stands after its real tokens."""
        memory = case.new_ring(ops)
        rows, done = [[torch.zeros_like(q[0, :0])] for _ in range(case.B)], [0] * case.B
        for lengths in case.ragged_pieces(memory.longest_write):
            padded = [x.new_full((case.B, max(lengths), *x.shape[2:]), torch.nan) for x in (q, k, v)]
            for b, length in enumerate(lengths):
                for x, whole in zip(padded, (q, k, v), strict=True):
                    x[b, :length] = whole[b, done[b] : done[b] + length]
            out = ops.ring(*padded, memory=memory, scale=scale, lengths=torch.tensor(lengths, device=q.device))
            for b, length in enumerate(lengths):
                rows[b].append(out[b, :length])
                done[b] += length
        return torch.stack([torch.cat(row) for row in rows])

    every = (banded, blocked, ring_at_once, ring_in_pieces, ring_token_by_token, ring_of_padded_rows)
    return tuple(Attention(run.__name__, run) for run in every)
