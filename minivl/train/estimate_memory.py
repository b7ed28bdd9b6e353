"""What each GPU holds in a stage: counted on a model without numbers, and multiplied by bytes.

bytes = weights + gradients + averages + copies + teacher + words + activations(row)

code          bytes a number    what
weights       4 and 2           what learns, and what does not (bf16); FSDP2: 4 / n, and what is whole at a time
gradients     4                 of what learns; DDP sends them in buckets, as large again; FSDP2: / n
averages      8                 AdamW's two; FSDP2: / n
copies        2                 in bf16, of what learns: autocast keeps them through a pass
teacher       2                 beside the student in 1a and 1b, whole in every process
words         16 or 32          scores of one piece of tokens, and all that is made of them
activations   a token           `kept`, and once `inside` or `scores`
"""

import functools
from dataclasses import dataclass

import torch

from ..config import Config
from ..model import InfiniteVL
from . import freezing, lora
from .estimate_work import as_teacher
from .losses import PIECE


@dataclass(frozen=True)
class Numbers:
    """How many: that learn, in all, in a teacher, outside of the decoder's layers; and of the layer with the most."""

    learns: int
    total: int
    teacher: int
    outside: int
    largest: int
    largest_learns: int


@functools.cache
def empty(config: Config, rank: int = 0) -> InfiniteVL:
    """The model without its numbers; with adapters where they have a rank."""
    with torch.device("meta"):
        model = InfiniteVL(config)
    return lora.adapt(model, rank=rank) if rank else model


def numbers(stage: str, config: Config, rank: int) -> Numbers:
    model, taught = empty(config, rank if stage == "long" else 0), empty(as_teacher(config))
    counts = freezing.freeze(model, freezing.LEARNS[stage])
    learns, total = (sum(getattr(count, which) for count in counts) for which in ("learns", "numbers"))
    layers = model.model.language_model.layers
    sizes, own = [size(layer) for layer in layers], [size(layer, learning=True) for layer in layers]
    teacher = size(taught) if stage in ("layers", "logits") else 0
    return Numbers(learns, total, teacher, total - sum(sizes), max(sizes), max(own))


def size(module: torch.nn.Module, *, learning: bool = False) -> int:
    return sum(x.numel() for x in module.parameters() if x.requires_grad or not learning)


def held(stage: str, way: str, gpus: int, config: Config, rank: int) -> dict[str, float]:
    """Bytes on each GPU whatever is read, by what they are."""
    n = numbers(stage, config, rank)
    copies = 2 * n.learns
    words = config.vocab_size * PIECE * (32 if stage == "logits" else 16) if stage != "layers" else 0
    if way == "fsdp":
        whole_ones = 4 * (n.outside + 2 * n.largest)  # what is in no layer, the layer at work, and the next one
        own = {"weights": 4 * n.total / gpus + whole_ones, "gradients": 4 * (n.learns / gpus + n.largest_learns)}
        return own | {"averages": 8 * n.learns / gpus, "copies": copies, "teacher": 2 * n.teacher, "words": words}
    gradients = 4 * n.learns * (1 if gpus == 1 else 2)
    own = {"weights": 4 * n.learns + 2 * (n.total - n.learns), "gradients": gradients, "averages": 8 * n.learns}
    return own | {"copies": copies, "teacher": 2 * n.teacher, "words": words}


def kept(stage: str, way: str, config: Config) -> int:
    """Bytes a token that stay from the way forwards to the way back, layers run twice.

    Each layer's input, in bf16 (FSDP2's norms are float32, and so is what passes through them); in 1a the teacher's
    inputs and outputs, and how far the student's outputs are from them, in float32.
    """
    D, layers = config.hidden_size, len(config.layer_types)
    if stage == "layers":
        return (layers + 1) * D * 2 * (2 if way == "fsdp" else 1) + 4 * D * config.layer_types.count("linear_attention")
    return layers * D * (4 if way == "fsdp" else 2)


def inside(stage: str, config: Config) -> int:
    """Bytes a token of what a linear layer keeps for its gradient: in bf16, but for the norm of its read-out."""
    D, inner, H = config.hidden_size, config.intermediate_size, config.num_linear_heads
    keys, values = H * config.linear_head_dim, H * config.linear_value_dim
    convolved = 3 * 2 * (2 * keys + values)  # before the convolution, after it, after SiLU
    normed = values * (5 * 4 + 2)
    feed = 3 * 2 * inner
    adapted = 2 * (inner + D + keys + values) if stage == "long" else 0  # what adapters learn from
    return 2 * 2 * D + convolved + normed + feed + adapted


def scores(stage: str, config: Config, tokens: int) -> int:
    """Bytes of a window layer's attention, the largest block by block, if PyTorch forms its scores.

    It has a kernel for masks that does not, but no training on a GPU has shown yet that it is the one taken.
    """
    if stage == "layers":
        return 0  # no gradient passes a window layer
    W, heads = config.sliding_window, config.num_attention_heads
    blocks = [(min(W, tokens - start), min(start + W, tokens) - max(0, start - W + 1)) for start in range(0, tokens, W)]
    pairs = [queries * seen for queries, seen in blocks]
    return 4 * heads * (sum(pairs) + 2 * max(pairs))  # all of one layer's stay; one block's come and go, twice


def activations(stage: str, way: str, config: Config, tokens: int) -> float:
    """Bytes for one row: what is kept, and one layer's inside with as much again for its gradients."""
    linear = 2 * inside(stage, config) * tokens
    return kept(stage, way, config) * tokens + max(linear, scores(stage, config, tokens))


def longest(stage: str, way: str, config: Config, free: float) -> int:
    """The most tokens of one row that fit into so many bytes, in steps of 256; 0 where none do."""
    low, high = 0, 1 << 14
    while low < high:
        middle = (low + high + 1) // 2
        fits = activations(stage, way, config, 256 * middle) <= free
        low, high = (middle, high) if fits else (low, middle - 1)
    return 256 * low


def sent(stage: str, way: str, gpus: int, config: Config, rank: int) -> float:
    """Bytes: gradients summed, in a step; weights gathered twice and gradients summed in parts, in a pass."""
    n = numbers(stage, config, rank)
    return 4 * (gpus - 1) / gpus * (2 * n.learns if way == "ddp" else 2 * n.total - n.outside + n.learns)
