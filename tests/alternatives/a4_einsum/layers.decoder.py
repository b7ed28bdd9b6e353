"""As a loop over the two halves."""


class DecoderLayer:
    def forward(self, x, *, positions, memory=None, mask=None):
        halves = (
            (self.input_layernorm, lambda y: self.self_attn(y, positions=positions, memory=memory, mask=mask)),
            (self.post_attention_layernorm, self.mlp),
        )
        for norm, part in halves:
            x = part(norm(x)).add(x)
        return x
