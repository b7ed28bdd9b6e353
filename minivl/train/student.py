"""A student from a teacher: the same weights, but for the mixers of the layers that become linear.

The teacher is any checkpoint of the Qwen2.5-VL form: full attention in every layer. The student is a configuration of
our own with as many layers, of which some attend to a window and the others are Gated DeltaNet. A window layer, a
feed-forward, the norms, the words and the eyes are the teacher's, bit for bit. A linear layer's mixer starts as the
released training starts it:

    a_proj = b_proj = 0      β = ½ for every token
    A_log = 0, softplus(dt_bias) = 0.001      α = e^−0.001 ≈ 0.999
    convolutions = identity on the last tap, o_norm = 1
    q, k, v, g, o   fresh: uniform within ±1/√inputs, PyTorch's own for a linear layer
"""

import dataclasses
import hashlib
import math

import torch
from torch import Tensor

from ..config import Config
from ..model import InfiniteVL

TIME_STEP = 0.001
# What a student may choose for itself; all else is the teacher's.
OWN = (
    "layer_types",
    "mixer",
    "sliding_window",
    "num_linear_heads",
    "linear_head_dim",
    "expand_v",
    "conv_size",
    "norm_eps",
    "max_position_embeddings",
)


def student_config(teacher: Config, *, period: int = 4, **own) -> Config:
    """The teacher's configuration with one window layer at the head of every `period` layers, the others linear.

    `own` sets any of OWN, layer_types among them. Without it a linear layer has as many heads as the teacher's
    attention, as wide, and values twice as wide, as in the released model.
    """
    if others := [name for name in own if name not in OWN]:
        raise ValueError(f"a student can't choose {', '.join(others)}; it may choose {', '.join(OWN)}")
    if not isinstance(period, int) or isinstance(period, bool) or period < 1:
        raise ValueError(f"period is {period!r}; it should be a whole number of at least 1")
    layers = range(len(teacher.layer_types))
    found = {
        "layer_types": tuple("linear_attention" if i % period else "sliding_attention" for i in layers),
        "num_linear_heads": teacher.num_attention_heads,
        "linear_head_dim": teacher.head_dim,
    }
    return dataclasses.replace(teacher, **(found | own))


def student_from(teacher: InfiniteVL, config: Config, *, seed: int = 0) -> InfiniteVL:
    """A student of this configuration, in the teacher's dtype and on its device. The teacher stays as it is."""
    fit(teacher.config, config)
    with torch.device("meta"):
        student = InfiniteVL(config)
    taught = teacher.state_dict()
    linear = tuple(
        f"model.language_model.layers.{i}.self_attn."
        for i, layer_type in enumerate(config.layer_types)
        if layer_type == "linear_attention"
    )
    weights = {}
    for name, x in student.state_dict().items():
        if name.startswith(linear):
            weights[name] = fresh(name, x.shape, seed).to(teacher.device, teacher.dtype)
        elif name in taught and taught[name].shape == x.shape:
            weights[name] = taught[name].clone()
        else:
            raise ValueError(f"the teacher's {name} does not fit: the student needs one of shape {list(x.shape)}")
    student.load_state_dict(weights, assign=True)
    return student


def fit(teacher: Config, student: Config) -> None:
    """One sentence with everything in which the two configurations should agree and don't."""
    if not teacher.is_teacher:
        raise ValueError(
            f"the teacher has {', '.join(sorted(set(teacher.layer_types)))} layers; "
            f"it should have full_attention in every layer"
        )
    if (found := len(student.layer_types)) != (wanted := len(teacher.layer_types)):
        raise ValueError(f"the student has {found} layers and the teacher {wanted}; they should be as many")
    names = [field.name for field in dataclasses.fields(Config) if field.name not in OWN]
    differ = [
        f"{name} ({getattr(student, name)!r}, the teacher's is {getattr(teacher, name)!r})"
        for name in names
        if getattr(student, name) != getattr(teacher, name)
    ]
    if differ:
        raise ValueError(f"the student differs from its teacher in {'; '.join(differ)}")


def fresh(name: str, shape: torch.Size, seed: int) -> Tensor:
    """A linear mixer's parameter before training, in float64. It depends on the seed and its own name only."""
    if name.endswith((".a_proj.weight", ".b_proj.weight", ".A_log")):
        return torch.zeros(shape, dtype=torch.float64)
    if name.endswith(".dt_bias"):
        return torch.full(shape, math.log(math.expm1(TIME_STEP)), dtype=torch.float64)  # softplus gives it back
    if "_conv1d." in name:
        identity = torch.zeros(shape, dtype=torch.float64)
        identity[..., -1] = 1
        return identity
    if name.endswith(".o_norm.weight"):
        return torch.ones(shape, dtype=torch.float64)
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    bound = shape[1] ** -0.5
    return torch.empty(shape, dtype=torch.float64).uniform_(-bound, bound, generator=generator)
