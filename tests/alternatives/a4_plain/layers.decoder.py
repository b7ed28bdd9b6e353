"""In four steps."""


class DecoderLayer:
    def forward(self, x, *, positions, memory=None, mask=None):
        normed = self.input_layernorm(x)
        added = self.self_attn(normed, positions=positions, memory=memory, mask=mask)
        after = x + added
        return after + self.mlp(self.post_attention_layernorm(after))
