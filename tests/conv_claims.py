"""What must hold of the short convolution. An implementation has short_conv's signature; the oracle is a plain loop."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from .regimes import Draw
from .tolerances import close, tolerance


@dataclass(frozen=True)
class ConvCase:
    B: int = 2
    T: int = 9
    D: int = 5
    taps: int = 4
    seed: int = 0
    dtype: torch.dtype = torch.float64
    device: str = "cpu"

    def inputs(self) -> dict[str, Tensor]:
        draw = Draw(self.seed)
        drawn = {
            "x": draw.normal(self.B, self.T, self.D),
            "weight": draw.normal(self.D, 1, self.taps),
            "tail": draw.normal(self.B, self.taps - 1, self.D),
        }
        return {name: x.to(self.device, self.dtype) for name, x in drawn.items()}

    def close(self, actual: Tensor, oracle: Tensor, what: str = "the output") -> None:
        close(actual, oracle, tolerance=tolerance(self.dtype), what=what)

    def agree(self, actual: tuple[Tensor, Tensor], oracle: tuple[Tensor, Tensor]) -> None:
        self.close(actual[0], oracle[0])
        assert torch.equal(actual[1].double(), oracle[1]), "the tail is not the last inputs"


Conv = Callable[..., tuple[Tensor, Tensor]]


def by_the_equation(x: Tensor, weight: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    """out_t[d] = Σ_i weight[d, i] · past_{t+i}[d], one number after the other; past is the tail and then x."""
    past, filters = torch.cat([tail, x], 1).double(), weight.double()
    out = torch.zeros_like(x, dtype=torch.float64)
    for t in range(x.shape[1]):
        for i in range(weight.shape[-1]):
            out[:, t] += filters[:, 0, i] * past[:, t + i]
    return out, past[:, x.shape[1] :]


def it_equals_the_equation(conv: Conv, case: ConvCase) -> None:
    inputs = case.inputs()
    case.agree(conv(**inputs), by_the_equation(**inputs))


def no_tail_is_a_tail_of_zeros(conv: Conv, case: ConvCase) -> None:
    inputs = case.inputs()
    tail = torch.zeros_like(inputs.pop("tail"))
    case.agree(conv(**inputs), by_the_equation(**inputs, tail=tail))


def splitting_anywhere_preserves_the_tail(conv: Conv, case: ConvCase) -> None:
    inputs = case.inputs()
    cut = case.seed % (case.T + 1)
    first, tail = conv(inputs["x"][:, :cut], inputs["weight"], tail=inputs["tail"])
    second, tail = conv(inputs["x"][:, cut:], inputs["weight"], tail=tail)
    case.agree((torch.cat([first, second], 1), tail), by_the_equation(**inputs))


def decoding_equals_prefilling(conv: Conv, case: ConvCase) -> None:
    inputs = case.inputs()
    tail, out = inputs["tail"], [inputs["x"][:, :0]]
    for t in range(case.T):
        one, tail = conv(inputs["x"][:, [t]], inputs["weight"], tail=tail)
        out.append(one)
    case.agree((torch.cat(out, 1), tail), by_the_equation(**inputs))


def future_tokens_never_matter(conv: Conv, case: ConvCase) -> None:
    inputs, other = case.inputs(), replace(case, seed=case.seed + 1).inputs()
    now = case.seed % (case.T + 1)
    changed = inputs | {"x": torch.cat([inputs["x"][:, :now], 3 * other["x"][:, now:]], 1)}
    case.close(conv(**changed)[0][:, :now], by_the_equation(**inputs)[0][:, :now], f"the output before t = {now}")


def channels_are_independent(conv: Conv, case: ConvCase) -> None:
    """Other channels may hold anything, NaN too."""
    inputs = case.inputs()
    for name, x in inputs.items():
        x[(slice(1, None),) if name == "weight" else (..., slice(1, None))] = torch.nan
    alone = {name: x[:1] if name == "weight" else x[..., :1] for name, x in inputs.items()}
    out, tail = conv(**inputs)
    case.agree((out[..., :1], tail[..., :1]), by_the_equation(**alone))


def a_permutation_of_the_batch_permutes_the_answer(conv: Conv, case: ConvCase) -> None:
    inputs = replace(case, B=3).inputs()
    order = torch.tensor([2, 0, 1], device=case.device)
    out, tail = by_the_equation(**inputs)
    permuted = {name: x if name == "weight" else x[order] for name, x in inputs.items()}
    case.agree(conv(**permuted), (out[order], tail[order]))


def padding_is_inert(conv: Conv, case: ConvCase) -> None:
    """Row b's real tokens give what they give alone, and its tail ends at the last of them; NaN stands after it."""
    inputs = case.inputs()
    generator = torch.Generator().manual_seed(case.seed)
    lengths = torch.randint(case.T + 1, (case.B,), generator=generator)
    real = torch.arange(case.T) < lengths[:, None]
    x = torch.where(real[..., None].to(case.device), inputs["x"], torch.nan)
    out, tail = conv(**inputs | {"x": x}, lengths=lengths.to(case.device))
    for b, length in enumerate(lengths.tolist()):
        row = {name: y if name == "weight" else y[b : b + 1] for name, y in inputs.items()}
        oracle = by_the_equation(**row | {"x": row["x"][:, :length]})
        case.agree((out[b : b + 1, :length], tail[b : b + 1]), oracle)


def inputs_stay_as_they_were(conv: Conv, case: ConvCase) -> None:
    inputs = case.inputs()
    conv(**inputs)
    for name, before in case.inputs().items():
        assert torch.equal(inputs[name], before), f"the convolution changed its input {name}"


def layout_in_memory_does_not_matter(conv: Conv, case: ConvCase) -> None:
    inputs = case.inputs()
    scattered = {name: torch.stack([x, x], -1)[..., 0].mT.contiguous().mT for name, x in inputs.items()}
    case.agree(conv(**scattered), by_the_equation(**inputs))


def gradients_equal_the_equations(conv: Conv, case: ConvCase) -> None:
    gradients = []
    for run in (conv, by_the_equation):
        leaves = {name: x.requires_grad_() for name, x in case.inputs().items()}
        out, tail = run(**leaves)
        draw = Draw(case.seed)
        loss = (out * draw.normal(*out.shape).to(out)).sum() + (tail * draw.normal(*tail.shape).to(tail)).sum()
        of_each = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        gradients.append(dict(zip(leaves, of_each, strict=True)))
    for name in gradients[0]:
        case.close(gradients[0][name], gradients[1][name], f"the gradient of {name}")


CLAIMS = (
    it_equals_the_equation,
    no_tail_is_a_tail_of_zeros,
    splitting_anywhere_preserves_the_tail,
    decoding_equals_prefilling,
    future_tokens_never_matter,
    channels_are_independent,
    a_permutation_of_the_batch_permutes_the_answer,
    padding_is_inert,
    inputs_stay_as_they_were,
    layout_in_memory_does_not_matter,
    gradients_equal_the_equations,
)


@st.composite
def conv_cases(draw: st.DrawFn, dtype: torch.dtype = torch.float64) -> ConvCase:
    """Fewer tokens than taps and more, one tap and several."""
    B, T, D = draw(st.integers(1, 3)), draw(st.integers(0, 9)), draw(st.integers(1, 5))
    return ConvCase(B, T, D, draw(st.sampled_from((4, 1, 2, 3))), draw(st.integers(0, 999)), dtype)
