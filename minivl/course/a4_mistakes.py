"""What goes wrong in assignment 4: small wrong versions of the right source, and what the grader says to each."""

from .tasks import mistake

CONV, LAYER = "ops.short_conv.short_conv", "layers.gated_deltanet.GatedDeltaNet"
ROTARY, WINDOW = "ops.rotary", "layers.window_attention.WindowAttention"
NAMES = "checkpoint_names"

SHORT_CONV = (
    mistake("the tail is taken after SiLU", "The tail holds what comes after SiLU: it is the convolution's inputs.",
            CONV, "return out, past[:, T:]", "return out, F.silu(past[:, T:])"),
    mistake("the tail holds outputs", "The tail holds outputs: it is the last three inputs.",
            CONV, "return out, past[:, T:]", "return out, torch.cat([tail, out], 1)[:, T:]"),
    mistake("the kernel is flipped", "The kernel is flipped: the last tap, i = 3, is the token itself.",
            CONV, "past.mT, weight,", "past.mT, weight.flip(-1),"),
    mistake("the tail is ignored", "The given tail is ignored: it stands before x_0.",
            CONV, "torch.cat([tail, x], dim=1)", "torch.cat([torch.zeros_like(tail), x], dim=1)"),
    mistake("a short call's tail forgets the older one",
            "Right for long calls only: after a call of one token the tail still holds two older inputs.",
            CONV, "return out, past[:, T:]", "return out, F.pad(x, [0, 0, max(carried - T, 0), 0])[:, -carried:]"),
    mistake("the future is convolved", "Outputs change when later tokens do: the past stands before x, not after it.",
            CONV, "torch.cat([tail, x], dim=1)", "torch.cat([x, tail], dim=1)"),
)  # fmt: skip

DELTANET = (
    mistake("the gate comes before the norm", "The read-out is gated before it is normed: norm first, then gate.",
            "layers.norm.GatedRMSNorm.forward", "unit_mean_square(x, self.eps)",
            "unit_mean_square(x * F.silu(gate), self.eps) / F.silu(gate)"),
    mistake("the gate is a sigmoid", "The gate of the read-out is SiLU, x σ(x), not σ(x).",
            "layers.norm.GatedRMSNorm.forward", "F.silu(gate", "torch.sigmoid(gate"),
    mistake("the scale is applied twice", "The scale stands twice: K^−½ once, on the read-out.",
            f"{LAYER}.rule", "q.shape[-1] ** -0.5", "q.shape[-1] ** -1.0"),
    mistake("keys are not normalised", "q and k are not brought to length 1.",
            f"{LAYER}.rule", "normalize_qk=True", "normalize_qk=False"),
    mistake("softplus is missing", "softplus is missing: the time step is softplus(a + dt_bias).",
            f"{LAYER}.gates", "F.softplus(self.a_proj(x).to(wide) + self.dt_bias.to(wide))",
            "self.a_proj(x).to(wide) + self.dt_bias.to(wide)"),
    mistake("the bias stands outside", "dt_bias belongs inside softplus.",
            f"{LAYER}.gates", "F.softplus(self.a_proj(x).to(wide) + self.dt_bias.to(wide))",
            "F.softplus(self.a_proj(x).to(wide)) + self.dt_bias.to(wide)"),
    mistake("A is not exponentiated", "A_log is a logarithm: the rate is its exponential.",
            f"{LAYER}.gates", "-self.A_log.to(wide).exp() *", "-self.A_log.to(wide) *"),
    mistake("β is not squashed", "β is not brought between 0 and 1: sigmoid.", f"{LAYER}.gates", ".sigmoid()", ""),
    mistake("the SiLU after the convolution is missing", "q, k and v go through SiLU after the convolution.",
            "layers.gated_deltanet.ShortConv.forward", "F.silu(out)", "out"),
    mistake("q continues with k's tail", "q's convolution goes on from k's tail: each has its own.",
            f"{LAYER}.mix", "self.q_proj(x), tails[0]", "self.q_proj(x), tails[1]"),
    mistake("the state is not handed on", "The state is not handed on: start from the memory's.",
            f"{LAYER}.mix", "None if memory is None else memory.start()", "None"),
    mistake("nothing is stored", "The memory is read but never told the new state and tails.",
            f"{LAYER}.mix", "memory.store(state, q_tail, k_tail, v_tail)", "pass"),
)  # fmt: skip

BLOCK = (
    mistake("the axes are swapped", "The axes are swapped: sections belong to time, height and width, in this order.",
            f"{ROTARY}.mrope", "zip(positions, sections", "zip(positions[[1, 0, 2]], sections"),
    mistake("height and width are swapped", "Height and width are swapped: time, height, width is the order.",
            f"{ROTARY}.mrope", "zip(positions, sections", "zip(positions[[0, 2, 1]], sections"),
    mistake("the frequencies take K/2 for K", "The frequency of plane c is theta^(−2c/K), K all channels.",
            f"{ROTARY}.mrope", "device=positions.device) / width)", "device=positions.device) / (width // 2))"),
    mistake("it turns the other way", "It turns the other way: half_turn(a, b) is (−b, a).",
            f"{ROTARY}.half_turn", "[-b, a]", "[b, -a]"),
    mistake("pairs are neighbours", "Planes are pairs (c, c + K/2), halves of the channels, and not neighbours.",
            f"{ROTARY}.half_turn", "x.chunk(2, dim=-1)", "x[..., ::2], x[..., 1::2]"),
    mistake("keys are stored before they are turned",
            "Keys are stored unturned: turn them at their absolute positions, then store.",
            f"{WINDOW}.mix", "q, k = rotate(q, cos, sin), rotate(k, cos, sin)", "q = rotate(q, cos, sin)"),
    mistake("each call turns from its own start", "Positions start over with each call: they are absolute.",
            f"{WINDOW}.mix", "mrope(positions,", "mrope(positions - positions[:, :, :1],"),
    mistake("the first residual is missing", "The mixer's output replaces x: add it to x.",
            "layers.decoder.DecoderLayer.forward", "x + self.self_attn(", "self.self_attn("),
    mistake("the second residual is missing", "The feed-forward's output replaces x: add it to x.",
            "layers.decoder.DecoderLayer.forward", "return x + self.mlp(", "return self.mlp("),
    mistake("the norm is on the residual", "The residual is the unnormed x: norm only what goes into the mixer.",
            "layers.decoder.DecoderLayer.forward", "x = x + self.self_attn(self.input_layernorm(x)",
            "x = self.input_layernorm(x)\n        x = x + self.self_attn(x"),
)  # fmt: skip

LOADING = (
    mistake("a transposed matrix is taken",
            "A matrix that lies transposed is taken in silence: compare shapes in order.",
            f"{NAMES}.match", "elif stored.shape != shapes[name]:",
            "elif sorted(stored.shape) != sorted(shapes[name]):"),
    mistake("the tied head is ignored", "A head that differs from the embedding is ignored: they are tied, so it is a "
            "contradiction.", f"{NAMES}.match", "if head is not None and", "if False and"),
    mistake("every head is a fault", "A head equal to the embedding is no fault: released files may have one.",
            f"{NAMES}.match", "not _same(head[0], fitting[EMBEDDING].stored)", "head"),
    mistake("what is missing is ignored", "A parameter that no tensor is stored for is a fault, and keeps its zeros.",
            f"{NAMES}.match", 'faults.add("missing", *', '("missing", *'),
    mistake("the tower keeps its old name", "`visual.` of the older style is `model.visual.` in the newer.",
            f"{NAMES}.new_style", 'return f"model.{name}"', "return name"),
    mistake("a new name is translated again", "A name of the new style is translated once more: leave it alone.",
            f"{NAMES}.new_style", 'if name.startswith("model.") and not name.startswith(NEW_STYLE):',
            'if name.startswith("model."):'),
    mistake("the tower stays new", "In the older style the tower is `visual.`, without `model.`.",
            f"{NAMES}.old_style",
            'return name.removeprefix("model.") if name.startswith("model.visual.") else name', "return name"),
)  # fmt: skip
