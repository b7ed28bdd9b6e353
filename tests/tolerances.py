"""How close is close: the one table of tolerances, and the one assertion that uses it.

The measure is always the relative norm |actual − oracle| / |oracle| over a whole tensor, and the oracle is always
the naive recurrence run in float64 on the very same (already rounded) inputs. A NaN or an infinity on either side
fails: both norms would be NaN, and a comparison with NaN is false.

    dtype        implementation            regime          out     state
    float64      any                       all others      1e-10   1e-10
    float64      any                       static ones     1e-8    1e-8
    float32      chunked, kernels          all             1e-5    1e-5
    float32      recurrence, step          all             max(1e-5, 5e-8 · T)
    bf16, fp16   whatever sums in float32  all             4e-3    as float32
    bf16, fp16   kernels                   layer's gates   4e-3    3e-3
    bf16, fp16   kernels                   all others      1e-2    1e-2

The recurrence gets its own row in float32 because it is the one that loses digits: with the same key over and over
it rounds the state T times where a chunk rounds it once. Gradients are held to the row of `out`, but for kernels in
16 bits, where they are held to 1e-2: a gradient is a sum over products that were rounded on their way, twice as many as
an output's, and nothing in the design asks more of it.
"""

import torch
from torch import Tensor

STATIC_REGIMES = frozenset({"static", "frozen"})
LAYER_REGIMES = frozenset({"layer_at_initialisation", "layer_after_training"})
HALF = (torch.bfloat16, torch.float16)


def tolerance(
    dtype: torch.dtype, *, regime: str = "wide", T: int = 1, naive: bool = False, kernel: bool = False, of: str = "out"
) -> float:
    """The table above. `naive`: goes token by token; `kernel`: multiplies in its input's dtype; `of`: out or state."""
    if dtype == torch.float64:
        return 1e-8 if regime in STATIC_REGIMES else 1e-10
    if dtype in HALF and kernel:
        return {"out": 4e-3, "state": 3e-3, "gradient": 1e-2}[of] if regime in LAYER_REGIMES else 1e-2
    if dtype in HALF and of != "state":
        return 4e-3  # half a unit in the last place of bf16, 2⁻⁹, is 2e-3 of the number itself
    return max(1e-5, 5e-8 * T) if naive else 1e-5


def relative_error(actual: Tensor, oracle: Tensor) -> float:
    """|actual − oracle| / |oracle| in float64; 0 where both are zero or empty, infinite where only the oracle is.

    Numbers that float32 cannot hold in full, below 1.2e-38, count as zero on both sides unless actual is float64.
    """
    smallest = 0.0 if actual.dtype == torch.float64 else torch.finfo(torch.float32).tiny
    actual, oracle = (x.detach().double().cpu() for x in (actual, oracle))
    actual, oracle = (x.masked_fill(x.abs() < smallest, 0) for x in (actual, oracle))
    difference, size = (actual - oracle).norm().item(), oracle.norm().item()
    if size == 0:
        return 0.0 if difference == 0 else difference * float("inf")
    return difference / size


def close(actual: Tensor, oracle: Tensor, *, tolerance: float, what: str = "the output") -> None:
    """Assert that actual equals oracle to this relative norm."""
    assert actual.shape == oracle.shape, f"{what} has shape {list(actual.shape)}; the oracle's is {list(oracle.shape)}"
    assert oracle.isfinite().all(), f"the oracle of {what} is not finite, so that nothing can be compared with it"
    error = relative_error(actual, oracle)
    assert error <= tolerance, f"{what} is off by {error:.2e} of the oracle's norm; the tolerance is {tolerance:.0e}"
