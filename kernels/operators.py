"""The kernels as operators of PyTorch: checked arguments, autograd, and fake implementations for torch.compile.

`chunked_gated_delta_rule` and `step_gated_delta_rule` are what everybody calls. Below them stand two operators of
torch.library, which torch.compile takes into its graph whole, since their fakes tell it the shapes that come out.
"""

import os

import torch
from torch import Tensor

from . import backward as backward_kernels
from . import chunked as forward_kernels
from . import step as step_kernel

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"  # Triton asks once, when a kernel is defined
WIDTHS = (16, 32, 64, 128, 256)


def check_tensor(name: str, x: Tensor, shape: tuple[int, ...], device: torch.device, *dtypes: torch.dtype) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a {type(x).__name__}; it should be a tensor")
    if tuple(x.shape) != shape:
        raise ValueError(f"{name} has shape {list(x.shape)}; it should be {list(shape)}")
    if x.dtype not in dtypes:
        raise TypeError(f"{name} is {x.dtype}; it should be {' or '.join(str(d) for d in dict.fromkeys(dtypes))}")
    if x.device != device:
        raise ValueError(f"{name} is on {x.device}; it should be on {device}, where the first one is")


def check_runs_here(x: Tensor) -> None:
    if x.device.type != "cuda" and not (x.device.type == "cpu" and INTERPRETED):
        where = f"the tensors are on {x.device}"
        raise ValueError(f"{where}; the kernels run on a CUDA device, or on a CPU with TRITON_INTERPRET=1")


def check(
    q: Tensor, k: Tensor, v: Tensor, *, log_decay: Tensor, beta: Tensor, state: Tensor | None, scale: float
) -> None:
    """Every demand of the kernels, each fault told in one sentence. Shapes and dtypes only: values stay on the GPU."""
    for name, x in (("q", q), ("v", v)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} is a {type(x).__name__}; it should be a tensor")
        if x.ndim != 4:
            raise ValueError(f"{name} has shape {list(x.shape)}; it should be [B, T, H, {'K' if name == 'q' else 'V'}]")
    (B, T, H, K), V = q.shape, v.shape[-1]
    check_tensor("q", q, (B, T, H, K), q.device, *DTYPES)
    check_tensor("k", k, (B, T, H, K), q.device, q.dtype)
    check_tensor("v", v, (B, T, H, V), q.device, q.dtype)
    for name, width in (("K", K), ("V", V)):
        if width not in WIDTHS:
            raise ValueError(f"{name} is {width}; it should be one of {', '.join(map(str, WIDTHS))}")
    check_tensor("log_decay", log_decay, (B, T, H), q.device, q.dtype, torch.float32)
    check_tensor("beta", beta, (B, T, H), q.device, q.dtype, torch.float32)
    if state is not None:
        check_tensor("state", state, (B, H, K, V), q.device, torch.float32)
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise TypeError(f"scale is {scale!r}; it should be a number")
    check_runs_here(q)


def chunked_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    scale: float = 1.0,
    normalize_qk: bool = False,
) -> tuple[Tensor, Tensor]:
    """S' = α_t S_{t−1};  S_t = S' + k_t (β_t (v_t − S'ᵀ k_t))ᵀ;  out_t = scale · S_tᵀ q_t.  → (out, final state)

    q, k [B, T, H, K] and v [B, T, H, V] in bfloat16, float16 or float32; log_decay and beta [B, T, H], in that dtype
    or float32; state [B, H, K, V] in float32. K and V are powers of two from 16 to 256. Tokens whose log_decay and
    beta are zero are inert padding.
    """
    check(q, k, v, log_decay=log_decay, beta=beta, state=state, scale=scale)
    inputs = (x.contiguous() for x in (q, k, v, log_decay, beta))
    return forward_operator(*inputs, None if state is None else state.contiguous(), float(scale), bool(normalize_qk))


@torch.library.custom_op("minivl::chunked_gated_delta_rule", mutates_args=())
def forward_operator(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor | None,
    scale: float, normalize_qk: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return forward_kernels.forward(q, k, v, log_decay, beta, state, scale, normalize_qk)


@forward_operator.register_fake
def _(q, k, v, log_decay, beta, state, scale, normalize_qk):
    B, _, H, K = q.shape
    return torch.empty_like(v), q.new_empty(B, H, K, v.shape[-1], dtype=torch.float32)


@torch.library.custom_op("minivl::chunked_gated_delta_rule_backward", mutates_args=())
def backward_operator(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor | None,
    d_out: Tensor, d_state: Tensor, scale: float, normalize_qk: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_out, d_state = d_out.contiguous(), d_state.contiguous()
    return backward_kernels.backward(q, k, v, log_decay, beta, state, d_out, d_state, scale, normalize_qk)


@backward_operator.register_fake
def _(q, k, v, log_decay, beta, state, d_out, d_state, scale, normalize_qk):
    return tuple(torch.empty_like(x) for x in (q, k, v, log_decay, beta, d_state))


def keep_inputs(ctx, inputs, output) -> None:
    *tensors, ctx.scale, ctx.normalize_qk = inputs
    ctx.save_for_backward(*tensors)


def gradients(ctx, d_out: Tensor, d_state: Tensor) -> tuple:
    *d_inputs, d_start = backward_operator(*ctx.saved_tensors, d_out, d_state, ctx.scale, ctx.normalize_qk)
    return *d_inputs, d_start if ctx.needs_input_grad[5] else None, None, None


forward_operator.register_autograd(gradients, setup_context=keep_inputs)


def step_gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor,
    scale: float = 1.0,
    normalize_qk: bool = False,
) -> tuple[Tensor, Tensor]:
    """One token (T = 1) of the same, without gradients, the state updated in place.  → (out, the same state)"""
    check(q, k, v, log_decay=log_decay, beta=beta, state=state, scale=scale)
    if state is None:
        raise TypeError("state is None; a step needs the state [B, H, K, V] that it updates in place")
    if q.shape[1] != 1:
        raise ValueError(f"a step takes one token: q has T = {q.shape[1]}; it should be 1")
    if not state.is_contiguous():
        raise ValueError("state is not contiguous; a step updates it in place and needs it contiguous")
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, log_decay, beta, state)):
        raise ValueError(
            "a step makes no gradients; call it under torch.no_grad(), or chunked_gated_delta_rule instead"
        )
    inputs = (x.contiguous() for x in (q, k, v, log_decay, beta))
    return step_operator(*inputs, state, float(scale), bool(normalize_qk)), state


@torch.library.custom_op("minivl::step_gated_delta_rule", mutates_args={"state"})
def step_operator(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor, scale: float, normalize_qk: bool
) -> Tensor:
    return step_kernel.step(q, k, v, log_decay, beta, state, scale, normalize_qk)


@step_operator.register_fake
def _(q, k, v, log_decay, beta, state, scale, normalize_qk):
    return torch.empty_like(v)
