"""What a token of a stage costs in arithmetic: products forwards, backwards, and once more where layers run twice.

A weight that learns costs three products of one size: its output, its gradient, and its input's gradient. A frozen one
costs two, since the gradient of its input still has to pass to what learns below; and below the lowest layer that
learns, only the first. Two operations, a product and a sum, for each number of a matrix:

    forward(layer)  = 2 (into + out + mlp) + inner
    backward(layer) = 2 (mlp + out (1 + learns) + into (learns + below)) + 2 inner

    code     what
    into     numbers in the matrices that read a layer's input; of a mixer
    out      numbers in the matrix that ends the mixer
    mlp      numbers in the feed-forward's three
    inner    operations without weights: attention, or the gated delta rule, chunk by chunk
    learns   1 where the mixer learns, else 0
    below    1 where anything below the layer learns, else 0
"""

from dataclasses import dataclass, replace

from ..config import Config

CHUNK = 64
STAGES = ("layers", "logits", "tuning", "long")
LEARN = {  # the types of layers whose mixers learn
    "layers": ("linear_attention",),
    "logits": ("linear_attention",),
    "tuning": ("linear_attention", "sliding_attention"),
    "long": (),
}


@dataclass(frozen=True)
class Layer:
    """One decoder layer's work for one token, in numbers of matrices and in operations."""

    into: int
    out: int
    mlp: int
    inner: float

    @property
    def forward(self) -> float:
        return 2 * (self.into + self.out + self.mlp) + self.inner

    def backward(self, *, learns: bool, below: bool) -> float:
        return 2 * (self.mlp + self.out * (1 + learns) + self.into * (learns + below)) + 2 * self.inner


def layer(config: Config, layer_type: str, tokens: int) -> Layer:
    """A layer of this type in a row of so many tokens."""
    D, H, mlp = config.hidden_size, config.num_linear_heads, 3 * config.hidden_size * config.intermediate_size
    if layer_type == "linear_attention":
        keys, values = H * config.linear_head_dim, H * config.linear_value_dim
        into = D * (2 * keys + 2 * values + 2 * H) + config.conv_size * (2 * keys + values)
        return Layer(into, values * D, mlp, rule(config))
    heads, shared = (count * config.head_dim for count in (config.num_attention_heads, config.num_key_value_heads))
    seen = mean_seen(tokens, tokens if layer_type == "full_attention" else config.sliding_window)
    return Layer(D * (heads + 2 * shared), heads * D, mlp, 4 * heads * seen)


def mean_seen(tokens: int, window: int) -> float:
    """How many keys a query sees, on average: all before it and itself, at most a window of them."""
    growing = min(tokens, window)
    return (growing * (growing + 1) / 2 + (tokens - growing) * window) / tokens


def rule(config: Config) -> float:
    """A chunk's products, for one token: five with C·K or C·V, and three with the state."""
    K, V = config.linear_head_dim, config.linear_value_dim
    return 2 * config.num_linear_heads * (CHUNK * (3 * K + 2 * V) + 3 * K * V)


def decoder(config: Config, tokens: int) -> float:
    """All layers, forwards, for one token."""
    return sum(layer(config, layer_type, tokens).forward for layer_type in config.layer_types)


def tower(config: Config, patches: int = 1024) -> float:
    """The vision tower and the merger, forwards, for one cell; a picture has `patches`, 448 × 448 pixels by default."""
    vision = config.vision
    D, cell = vision.hidden_size, vision.spatial_merge_size**2
    window = (vision.window_size // vision.patch_size) ** 2
    seen = [patches if block in vision.fullatt_block_indexes else window for block in range(vision.depth)]
    blocks = sum(2 * (4 * D * D + 3 * D * vision.intermediate_size) + 4 * D * keys for keys in seen)
    merger = 2 * cell * D * (cell * D + vision.out_hidden_size)
    return cell * (2 * D * vision.patch_width + blocks) + merger


def work(stage: str, config: Config, tokens: int, *, adapters: int = 0) -> tuple[float, float]:
    """Operations for one token of the decoder, layers run twice, and for one cell of a picture beside it.

    `adapters`: numbers in all adapters. Words are scored at every token: in "tuning" and "long" that is the most.
    """
    layers = [layer(config, layer_type, tokens) for layer_type in config.layer_types]
    learns = [layer_type in LEARN[stage] for layer_type in config.layer_types]
    student, teacher = sum(x.forward for x in layers), decoder(as_teacher(config), tokens)
    words = 2 * config.vocab_size * config.hidden_size
    if stage == "layers":  # each layer by itself: nothing is below it, and one that is frozen has no gradient
        back = sum(
            x.forward + x.backward(learns=True, below=False) for x, own in zip(layers, learns, strict=True) if own
        )
        return teacher + student + back, tower(config)
    lowest = 0 if stage == "long" else learns.index(True)
    back = sum(
        x.forward + x.backward(learns=own, below=number > lowest)
        for number, (x, own) in enumerate(zip(layers, learns, strict=True))
        if number >= lowest
    )
    total = student + back + 3 * words + 4 * 2 * adapters  # forwards, again, and two gradients
    if stage == "logits":  # the teacher's words are made again with the student's, piece by piece
        return total + teacher + 2 * words, 2 * tower(config)
    return total, tower(config)


def as_teacher(config: Config) -> Config:
    """The same with full attention in every layer."""
    return replace(config, layer_types=("full_attention",) * len(config.layer_types))
