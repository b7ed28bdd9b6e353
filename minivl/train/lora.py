"""LoRA: a frozen matrix learns through a sum of few outer products, which at the end is added to it.

A long sequence leaves no room for the optimiser's two numbers beside each weight. Instead of W, two thin matrices
learn, and W's step is their product. The second starts at zero, so that the model starts as it was.

    out = W x + b + (alpha / rank) · up (down x)          merged:  W ← W + (alpha / rank) · up · down

    code       shape           what
    lora_down  [rank, In]      starts uniform within ±1/√In
    lora_up    [Out, rank]     starts at zero
"""

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model import InfiniteVL
from ..ops.checks import positive, state_dtype

# The decoder's matrices that are adapted: of all mixers and of the feed-forwards.
TARGETS = ("q_proj", "k_proj", "v_proj", "g_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Adapted(nn.Linear):
    """A linear layer with an adapter. `weight` and `bias` are the plain layer's own."""

    def __init__(self, plain: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        super().__init__(plain.in_features, plain.out_features, bias=plain.bias is not None, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        self.scale = alpha / rank
        wide = {"dtype": state_dtype(plain.weight.dtype), "device": plain.weight.device}
        bound = plain.in_features**-0.5
        down = torch.empty(rank, plain.in_features, dtype=torch.float64).uniform_(-bound, bound, generator=generator)
        self.lora_down = nn.Parameter(down.to(**wide))
        self.lora_up = nn.Parameter(torch.zeros(plain.out_features, rank, **wide))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.lora_down), self.lora_up)

    def merged(self) -> nn.Linear:
        """The plain layer again, the adapter added to its weight and rounded once."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        with torch.no_grad():
            step = self.scale * (self.lora_up @ self.lora_down)
            weight = (self.weight.to(step.dtype) + step).to(self.weight.dtype)
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=self.weight.requires_grad), self.bias
        return plain


def adapt(
    model: InfiniteVL, *, rank: int = 16, alpha: float = 32.0, targets: tuple[str, ...] = TARGETS, seed: int = 0
) -> InfiniteVL:
    """Give these matrices of the decoder's layers an adapter each, in place. The model's answers stay the same."""
    positive("rank", rank)
    layers = model.model.language_model.layers
    if any(isinstance(module, Adapted) for module in layers.modules()):
        raise ValueError("the model has adapters already; merge them before it gets new ones")
    found = [name for name, module in layers.named_modules() if type(module) is nn.Linear and _ends(name) in targets]
    if missing := [target for target in targets if target not in map(_ends, found)]:
        raise ValueError(
            f"the decoder's layers have no {', '.join(missing)}; adapters go to any of {', '.join(TARGETS)}"
        )
    for name in found:
        digest = hashlib.sha256(f"{seed} lora {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        _replace(layers, name, Adapted(layers.get_submodule(name), rank, alpha, generator))
    return model


def merge(model: InfiniteVL) -> InfiniteVL:
    """Every adapter into its matrix, in place: the released names and shapes again."""
    layers = model.model.language_model.layers
    for name, module in list(layers.named_modules()):
        if isinstance(module, Adapted):
            _replace(layers, name, module.merged())
    return model


def is_adapted(model: nn.Module) -> bool:
    return any(isinstance(module, Adapted) for module in model.modules())


def _ends(name: str) -> str:
    return name.rpartition(".")[2]


def _replace(layers: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(layers.get_submodule(parent), own, module)
