"""What every op demands of its arguments, each fault told in one sentence: the name, what it was, what it should be.

Ops never broadcast, truncate or cast down in silence, so these checks are exact: shapes must match to the number,
gates come in q's dtype or in float32, and a state comes in the dtype that the op computes in (`state_dtype`).
Checks look at shapes and dtypes only, never at values: looking at a value would make a GPU wait.
"""

import torch
from torch import Tensor


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that states are kept and sums are made in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def tensor(name: str, x: Tensor, shape: tuple[int | str, ...] | None, *dtypes: torch.dtype) -> None:
    """x is a tensor of this shape, a letter standing for any size, and of one of these dtypes (any float, if none).

    A shape of None stands for any shape.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a {type(x).__name__}; it should be a tensor")
    fits = shape is None or (
        x.ndim == len(shape)
        and all(isinstance(want, str) or want == size for want, size in zip(shape, x.shape, strict=True))
    )
    if not fits:
        wanted = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name} has shape {list(x.shape)}; it should be [{wanted}]")
    if dtypes and x.dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dict.fromkeys(dtypes))
        raise TypeError(f"{name} is {x.dtype}; it should be {wanted}")
    if not dtypes and not x.is_floating_point():
        raise TypeError(f"{name} is {x.dtype}; it should be a floating-point tensor")


def same_device(**tensors: Tensor | None) -> None:
    """All of these live on the first one's device."""
    given = {name: x for name, x in tensors.items() if x is not None}
    first = next(iter(given))
    for name, x in given.items():
        if x.device != given[first].device:
            raise ValueError(f"{name} is on {x.device}; it should be on {given[first].device}, where {first} is")


def positive(name: str, number: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} is {number!r}; it should be a whole number of at least 1")
    if number < 1:
        raise ValueError(f"{name} is {number}; it should be at least 1")


def recurrence(q: Tensor, k: Tensor, v: Tensor, *, state: Tensor | None = None, **gates: Tensor) -> Tensor:
    """Check the arguments that every rung of the ladder takes; return the starting state, zeros where none came.

    q, k [B, T, H, K], v [B, T, H, V], one dtype; each gate [B, T, H], in that dtype or float32; state [B, H, K, V].
    """
    tensor("q", q, ("B", "T", "H", "K"))
    B, T, H, K = q.shape
    tensor("k", k, (B, T, H, K), q.dtype)
    tensor("v", v, (B, T, H, "V"), q.dtype)
    for name, gate in gates.items():
        tensor(name, gate, (B, T, H), q.dtype, torch.float32)
    shape = (B, H, K, v.shape[-1])
    if state is None:
        state = q.new_zeros(shape, dtype=state_dtype(q.dtype))
    tensor("state", state, shape, state_dtype(q.dtype))
    same_device(q=q, k=k, v=v, state=state, **gates)
    return state
