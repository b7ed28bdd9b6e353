"""The Triton kernels, each with a twin in minivl/ops. Importing this needs triton, which exists for Linux only.

configurations.py   which tile sizes run where
launch.py           a compiled kernel launched again, without Triton's search for it
chunked.py          the gated delta rule, chunk by chunk: two kernels
backward.py         its gradients: two more
step.py             one token, the state updated in place
decode.py           one token through the whole middle of a Gated DeltaNet layer
window.py           attention over the ring
window_tiles.py     which of its tiles run where
rotary.py           queries and keys turned, and keys and values put into the ring
short_conv.py       the short convolutions with their SiLU
gating.py           norms, gates and gated product, one pass each
matrix_vector.py    one token's matrix products, with the norm before them and the sum after them
operators.py        all of it as PyTorch operators: checks, autograd, torch.compile
resources.py        what every configuration takes on each card, compiled without one
resource_rows.py    what there is to compile for that
bench.py            times and errors, beside other libraries where they are installed
"""

from .decode import decode_gated_deltanet
from .gating import add_norm, gated_norm, gated_product, gates, norm
from .matrix_vector import matvec
from .operators import chunked_gated_delta_rule, step_gated_delta_rule
from .rotary import store_turned, turn_in_place
from .short_conv import short_conv_silu, short_convs_silu
from .window import window_attention

__all__ = [
    "add_norm",
    "chunked_gated_delta_rule",
    "decode_gated_deltanet",
    "gated_norm",
    "gated_product",
    "gates",
    "matvec",
    "norm",
    "short_conv_silu",
    "short_convs_silu",
    "step_gated_delta_rule",
    "store_turned",
    "turn_in_place",
    "window_attention",
]
