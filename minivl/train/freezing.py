"""What learns in each stage, and what is frozen: one table, and a count of what it comes to.

Every parameter belongs to one part. A frozen one asks for no gradient, gets none, and has no state in the optimiser.

    stage     learns
    teacher   everything
    layers    the linear mixers                          1a   layer by layer, on the teacher's inputs
    logits    the linear mixers                          1b   the whole student, on the teacher's words
    tuning    all mixers                                 2    on answers; the feed-forward stays frozen
    long      the adapters, low-rank and merged after    3    on long sequences
"""

from dataclasses import dataclass

from torch import nn

from ..config import Config

PARTS = (
    "eyes",  # patches and blocks of the vision tower
    "merger",  # its end, which speaks the decoder's language
    "words",  # the table of words, and the one that scores them where that is another
    "linear mixers",
    "attention mixers",  # window layers, and a teacher's full attention
    "feed-forwards",
    "norms",  # of layers' inputs and of the last output; a mixer's own norm belongs to the mixer
    "adapters",  # see lora.py
)
LEARNS = {
    "teacher": tuple(part for part in PARTS if part != "adapters"),
    "layers": ("linear mixers",),
    "logits": ("linear mixers",),
    "tuning": ("linear mixers", "attention mixers"),
    "long": ("adapters",),
}
ADAPTER = ".lora_"


@dataclass(frozen=True)
class Count:
    """How many numbers of a part learn, and how many there are."""

    part: str
    learns: int
    numbers: int


def part_of(name: str, config: Config) -> str:
    """The part that a parameter of this name belongs to."""
    if ADAPTER in name:
        return "adapters"
    if name.startswith("model.visual."):
        return "merger" if name.startswith("model.visual.merger.") else "eyes"
    if "embed_tokens" in name or name.startswith("lm_head."):
        return "words"
    if ".self_attn." in name:
        layer = int(name.removeprefix("model.language_model.layers.").split(".")[0])
        return "linear mixers" if config.layer_types[layer] == "linear_attention" else "attention mixers"
    return "feed-forwards" if ".mlp." in name else "norms"


def freeze(model: nn.Module, learns: tuple[str, ...]) -> list[Count]:
    """Let these parts learn, and nothing else; what that comes to, part by part."""
    if unknown := [part for part in learns if part not in PARTS]:
        raise ValueError(
            f"there is no part {', '.join(map(repr, unknown))} that could learn; there are {', '.join(PARTS)}"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name, model.config) in learns)
        parameter.grad = None
    counts = counted(model)
    if not any(count.learns for count in counts):
        raise ValueError(f"nothing would learn: the model has no {' and no '.join(learns) or 'part that was named'}")
    return counts


def counted(model: nn.Module) -> list[Count]:
    """What learns now, of each part that the model has."""
    learns, numbers = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        part = part_of(name, model.config)
        numbers[part] += parameter.numel()
        learns[part] += parameter.numel() * parameter.requires_grad
    return [Count(part, learns[part], numbers[part]) for part in PARTS if numbers[part]]


def told(counts: list[Count]) -> str:
    """The counts as lines of a table."""
    width = max(len(count.part) for count in counts)
    return "\n".join(f"{count.part:{width}}  {count.learns:>13,} of {count.numbers:>13,} learn" for count in counts)


def learning(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
