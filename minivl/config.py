"""What a decoder is made of, in the released config.json's own names. The defaults are one InfiniteVL block.

The decoder is a free list of layer types, so one configuration expresses InfiniteVL (nine times one window layer and
three Gated DeltaNet layers), any other ratio, and the full-attention teacher. `mixer` picks the rule of the linear
layers, which is how the rungs of the ladder are compared inside the same model.
"""

from dataclasses import dataclass

LAYER_TYPES = ("sliding_attention", "linear_attention", "full_attention")
MIXERS = ("linear", "delta", "gated_delta")


@dataclass(frozen=True)
class DecoderConfig:
    layer_types: tuple[str, ...] = ("sliding_attention", "linear_attention", "linear_attention", "linear_attention")
    mixer: str = "gated_delta"
    hidden_size: int = 2048
    intermediate_size: int = 11008
    rms_norm_eps: float = 1e-6
    # window and full attention
    num_attention_heads: int = 16
    num_key_value_heads: int = 2
    head_dim: int = 128
    sliding_window: int = 8192
    rope_theta: float = 1e6
    mrope_section: tuple[int, ...] = (16, 24, 24)
    # linear layers
    num_linear_heads: int = 16
    linear_head_dim: int = 128
    expand_v: float = 2
    conv_size: int = 4
    norm_eps: float = 1e-5

    def __post_init__(self):
        # Lists, as they come from a config.json, are kept as tuples: a configuration can be compared and hashed.
        object.__setattr__(self, "layer_types", tuple(self.layer_types))
        object.__setattr__(self, "mrope_section", tuple(self.mrope_section))
        for name in WHOLE_NUMBERS:
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ValueError(f"{name} is {number!r}; it should be a whole number of at least 1")
        if not self.layer_types:
            raise ValueError("layer_types is empty; it should name at least one layer")
        for layer_type in self.layer_types:
            if layer_type not in LAYER_TYPES:
                raise ValueError(f"layer_types has {layer_type!r}; each should be one of {', '.join(LAYER_TYPES)}")
        if self.mixer not in MIXERS:
            raise ValueError(f"mixer is {self.mixer!r}; it should be one of {', '.join(MIXERS)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads is {self.num_attention_heads}; "
                f"it should be a multiple of num_key_value_heads, {self.num_key_value_heads}"
            )
        if len(self.mrope_section) != 3 or 2 * sum(self.mrope_section) != self.head_dim:
            raise ValueError(
                f"mrope_section is {self.mrope_section}; "
                f"it should be three numbers that sum to half of head_dim, {self.head_dim}"
            )
        if self.expand_v * self.linear_head_dim != self.linear_value_dim or self.linear_value_dim < 1:
            raise ValueError(
                f"expand_v is {self.expand_v}; times linear_head_dim, {self.linear_head_dim}, "
                f"it should give a whole number of value channels"
            )

    @property
    def linear_value_dim(self) -> int:
        """V, the width of a value in a linear layer's state."""
        return int(self.expand_v * self.linear_head_dim)


WHOLE_NUMBERS = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
    "num_linear_heads",
    "linear_head_dim",
    "conv_size",
)
