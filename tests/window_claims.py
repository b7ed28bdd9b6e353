"""What must hold of attention over a sliding window, and of the ring that carries it from call to call.

An implementation is a function (case, q, k, v, scale) → out. The oracle is `banded` in float64; the claims that do not
mention it hold `banded` itself to what its words say.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from minivl.ops import sliding_window

from .regimes import Draw
from .tolerances import close, tolerance

REGIMES = ("ordinary", "sharp", "equal")


@dataclass(frozen=True)
class WindowCase:
    """ordinary: scores of about 1. sharp: of hundreds, so that one key takes all. equal: of 0, so that all share."""

    regime: str = "ordinary"
    B: int = 2
    T: int = 23
    heads: int = 2  # of keys and values
    group: int = 2  # query heads for each of them
    K: int = 4
    window: int = 5
    slack: int = 3  # slots beyond the window
    seed: int = 0
    dtype: torch.dtype = torch.float64
    device: str = "cpu"

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        draw, size = Draw(self.seed), {"ordinary": 1.0, "sharp": 30.0, "equal": 0.0}[self.regime]
        q = size * draw.normal(self.B, self.T, self.heads * self.group, self.K)
        k, v = (draw.normal(self.B, self.T, self.heads, self.K) for _ in range(2))
        return tuple(x.to(self.device, self.dtype) for x in (q, k, v))

    def pieces(self, longest: int) -> list[slice]:
        """A split of T into writes of 0 to `longest` tokens; the longest possible one is drawn often."""
        generator, pieces, start = torch.Generator().manual_seed(self.seed), [], 0
        while start < self.T:
            length = min(int(torch.randint(2 * longest + 1, (), generator=generator)), longest)
            pieces.append(slice(start, min(start + length, self.T)))
            start += length
        return pieces

    def ragged_pieces(self, longest: int) -> list[list[int]]:
        """How many tokens each row writes in each call, until every row has written its T."""
        generator, pieces, left = torch.Generator().manual_seed(self.seed), [], torch.full((self.B,), self.T)
        while (left > 0).any():
            lengths = torch.randint(longest + 1, (self.B,), generator=generator).minimum(left)
            pieces.append(lengths.tolist())
            left = left - lengths
        return pieces

    def new_ring(self, ops: ModuleType = sliding_window, slots: int | None = None):
        return ops.Ring(
            self.B, slots or self.window + self.slack, self.heads, self.K,
            window=self.window, dtype=self.dtype, device=self.device,
        )  # fmt: skip

    def close(self, actual: Tensor, oracle: Tensor, what: str = "the output") -> None:
        close(actual, oracle, tolerance=tolerance(self.dtype), what=what)


@dataclass(frozen=True)
class Attention:
    name: str
    run: Callable[..., Tensor]


def truth(case: WindowCase, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    return sliding_window.banded(q.double(), k.double(), v.double(), window=case.window, scale=scale)


def it_equals_banded_attention(op: Attention, case: WindowCase) -> None:
    q, k, v = case.inputs()
    case.close(op.run(case, q, k, v), truth(case, q, k, v))


def a_key_is_visible_iff_it_is_less_than_the_window_behind(op: Attention, case: WindowCase) -> None:
    """With equal scores and value j the j-th unit vector, out[i, j] is 1 / (number of visible keys), or 0."""
    case = replace(case, regime="equal", K=max(case.T, 1))
    q, k, _ = case.inputs()
    v = torch.eye(case.K, dtype=case.dtype, device=case.device)[None, : case.T, None].expand_as(k)
    time = torch.arange(case.T, device=case.device)
    distance = time[:, None] - time
    share = ((distance >= 0) & (distance < case.window)).double() / (time[:, None] + 1).clamp(max=case.window)
    oracle = F.pad(share, [0, case.K - case.T])[None, :, None].expand_as(q)
    case.close(op.run(case, q, k, v), oracle, "each key's share")


def a_window_of_at_least_T_is_full_attention(op: Attention, case: WindowCase) -> None:
    q, k, v = case.inputs()
    case = replace(case, window=case.T + case.seed % 3 + 1)
    time = torch.arange(case.T, device=case.device)
    heads = torch.arange(case.heads * case.group, device=case.device) // case.group
    scores = torch.einsum("BiHK,BjHK->BHij", q.double(), k[:, :, heads].double()) / case.K**0.5
    weights = scores.masked_fill(time > time[:, None], -torch.inf).softmax(-1)
    case.close(op.run(case, q, k, v), torch.einsum("BHij,BjHK->BiHK", weights, v[:, :, heads].double()))


def a_window_of_one_returns_v(op: Attention, case: WindowCase) -> None:
    """Each query head returns the values of the key head it reads: head h reads h // group."""
    q, k, v = case.inputs()
    heads = torch.arange(case.heads * case.group, device=case.device) // case.group
    case.close(op.run(replace(case, window=1), q, k, v), v[:, :, heads])


def future_tokens_never_matter(op: Attention, case: WindowCase) -> None:
    inputs, other = case.inputs(), replace(case, seed=case.seed + 1).inputs()
    now = case.seed % (case.T + 1)
    changed = (torch.cat([x[:, :now], 3 * y[:, now:]], 1) for x, y in zip(inputs, other, strict=True))
    case.close(op.run(case, *changed)[:, :now], truth(case, *inputs)[:, :now], f"the output before t = {now}")


def keys_that_left_the_window_never_matter(op: Attention, case: WindowCase) -> None:
    (q, k, v), other = case.inputs(), replace(case, seed=case.seed + 1).inputs()
    gone = max(case.T - case.window, 0)  # of the last query
    k, v = (torch.cat([3 * y[:, :gone], x[:, gone:]], 1) for x, y in zip((k, v), other[1:], strict=True))
    case.close(op.run(case, q, k, v)[:, -1:], truth(case, *case.inputs())[:, -1:], "the last output")


def key_heads_are_independent(op: Attention, case: WindowCase) -> None:
    q, k, v = case.inputs()
    out = op.run(case, q, k, v)
    for head in range(case.heads):
        queries, keys = slice(head * case.group, (head + 1) * case.group), slice(head, head + 1)
        alone = truth(case, q[:, :, queries], k[:, :, keys], v[:, :, keys])
        case.close(out[:, :, queries], alone, f"key head {head} alone")


def a_permutation_of_the_batch_permutes_the_answer(op: Attention, case: WindowCase) -> None:
    case = replace(case, B=3)
    order = torch.tensor([2, 0, 1], device=case.device)
    q, k, v = case.inputs()
    case.close(op.run(case, q[order], k[order], v[order]), truth(case, q, k, v)[order])


def scale_multiplies_the_scores(op: Attention, case: WindowCase) -> None:
    q, k, v = case.inputs()
    case.close(op.run(case, q, k, v, scale=0.3), truth(case, 0.3 * case.K**0.5 * q, k, v))


def inputs_stay_as_they_were(op: Attention, case: WindowCase) -> None:
    inputs = case.inputs()
    op.run(case, *inputs)
    for name, x, before in zip("qkv", inputs, case.inputs(), strict=True):
        assert torch.equal(x, before), f"{op.name} changed its input {name}"


def layout_in_memory_does_not_matter(op: Attention, case: WindowCase) -> None:
    scattered = (torch.stack([x, x], -1)[..., 0].mT.contiguous().mT for x in case.inputs())
    case.close(op.run(case, *scattered), truth(case, *case.inputs()))


def the_output_keeps_its_dtype(op: Attention, case: WindowCase) -> None:
    inputs = case.inputs()
    out = op.run(case, *inputs)
    assert out.dtype == case.dtype, f"the output is {out.dtype}; it should be {case.dtype}"
    case.close(out, truth(case, *inputs))


CLAIMS = (
    it_equals_banded_attention,
    a_key_is_visible_iff_it_is_less_than_the_window_behind,
    a_window_of_at_least_T_is_full_attention,
    a_window_of_one_returns_v,
    future_tokens_never_matter,
    keys_that_left_the_window_never_matter,
    key_heads_are_independent,
    a_permutation_of_the_batch_permutes_the_answer,
    scale_multiplies_the_scores,
    inputs_stay_as_they_were,
    layout_in_memory_does_not_matter,
    the_output_keeps_its_dtype,
)


@st.composite
def window_cases(
    draw: st.DrawFn, regime: str = "ordinary", dtype: torch.dtype = torch.float64, shortest: int = 0
) -> WindowCase:
    """T up to several times round the ring; only sizes and a seed are drawn."""
    window, slack = draw(st.integers(1, 6)), draw(st.integers(0, 5))
    return WindowCase(
        regime, draw(st.integers(1, 2)), draw(st.integers(shortest, 4 * (window + slack))), draw(st.integers(1, 2)),
        draw(st.integers(1, 3)), draw(st.sampled_from((2, 4, 8))), window, slack, draw(st.integers(0, 999)), dtype,
    )  # fmt: skip
