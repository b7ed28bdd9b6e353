# %% [markdown]
# # 6 · The hybrid block: one window, three states
#
# **At the end you can**
#
# - say what a window can do that a state can't, and the other way round;
# - name everything that a stream must remember between two calls, and what goes wrong without each part;
# - work out the memory of the released model at any length.
#
# Before it: [the window](05_window_and_ring.ipynb) and [gating](03_gating.ipynb).

# %%
from dataclasses import replace
from unittest.mock import patch

import torch
from lesson import BLUE, GREEN, ORANGE, PURPLE, broken, close, drawing, fails, picture, show, table

from minivl.config import Config, DecoderConfig
from minivl.layers.decoder import DecoderLayer, HybridBlock
from minivl.layers.gated_deltanet import GatedDeltaNet
from minivl.memory import LinearState, Memory
from minivl.ops import delta_rule

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Why both
#
# **A window is exact, and then blank. A state reaches back without end, and blurs.** See it with 64
# facts, written once each under random keys of width 32, and asked for at the end:
#
# - a **window** of the last 32 tokens, with one more place to look at when nothing fits: a softmax always
#   adds up to 1, and without such a place it would name a wrong fact as loudly as a right one;
# - a **state** with $\beta = 1$ for every fact, which is a table of 32 rows that 64 facts have to share;
# - a **state that chooses**: $\beta = 1$ for the first eight facts, 0.02 for all others;
# - **both**: the answers of the window and of the state that chooses, added up, as the layers of a block do.

# %%
trials, facts, K, W = 200, 64, 32, 32
key = torch.nn.functional.normalize(torch.randn(trials, facts, 1, K), dim=-1)
value = torch.eye(facts).expand(trials, -1, -1)[:, :, None]  # the label of fact i is i


def state_answers(beta):
    _, state = delta_rule.chunked(key, key, value, beta=beta.expand(trials, facts)[..., None])
    return torch.einsum("BHKV,BTHK->BTV", state, key)


def window_answers():
    scores = 50 * torch.einsum("BiHK,BjHK->Bij", key, key)  # a sharp softmax, asked from the end
    scores[:, :, : facts - W] = -torch.inf
    nothing_fits = torch.full((trials, facts, 1), 35.0)  # where to look if no product reaches 0.7
    weights = torch.cat([scores, nothing_fits], dim=-1).softmax(-1)
    return weights[..., :-1] @ value[:, :, 0]


choosing = torch.full((facts,), 0.02)
choosing[:8] = 1.0
ANSWERS = {
    "window": (window_answers(), BLUE),
    "state": (state_answers(torch.ones(facts)), ORANGE),
    "state that chooses": (state_answers(choosing), PURPLE),
}
ANSWERS["both"] = (ANSWERS["window"][0] + ANSWERS["state that chooses"][0], GREEN)


def recalled(answers):
    """The share of right answers for each eight facts, newest first."""
    right = (answers.argmax(-1) == torch.arange(facts)).double().mean(0)
    return right.view(8, 8).mean(1).flip(0)


recall = {name: recalled(answers) for name, (answers, _) in ANSWERS.items()}
assert (recall["window"][:4] == 1).all()
assert (recall["window"][4:] == 0).all()
assert recall["state"][0] > 0.98
assert recall["state"][-1] < 0.15
assert recall["both"][-1] > 0.95

# %% [drawing]
figure, axes = drawing(7.6, 3.8)
ago = torch.arange(8) * 8 + 3.5
for offset, (name, (_, look)) in enumerate(ANSWERS.items()):
    axes.plot(ago, recall[name] + 0.012 * offset, label=name, **look)  # a little apart, to be seen
axes.axvline(W - 0.5, color="#999999", linestyle=":")
axes.text(W + 0.2, 0.92, "the window\nends here", color="#666666")
axes.set(
    title="Recall of a fact, by how long ago it was",
    xlabel="tokens ago",
    ylabel="share recalled",
    ylim=(-0.05, 1.1),
)
axes.legend(loc="upper left", bbox_to_anchor=(0.66, 0.99), fontsize=9)
picture(
    figure,
    "Recall against distance. The window recalls everything up to 32 tokens ago and nothing beyond. The state recalls "
    "the newest nearly always and sinks to almost nothing for the oldest. The state that chooses recalls the eight "
    "oldest facts only. Both together recall the newest 32 and the eight oldest.",
    ["tokens ago", *recall],
    [
        [f"{8 * i} to {8 * i + 7}", *(f"{share[i]:.2f}" for share in recall.values())]
        for i in range(8)
    ],
)

# %% [markdown]
# Look at the line of squares: **a state is not a long memory by itself.** Each fact that is written
# costs the older ones something, and the oldest are gone. What makes it long is choosing, and
# choosing is what β and α are for. Nobody can choose well at once what only later turns out to
# matter; that is what the window is for. So the block is one window layer and then three linear
# ones, and the released model is nine such blocks.
#
# ## The frame
#
# All layers share one frame, and only the *mixer* differs, attention or the rule:
#
# $$x \leftarrow x + \text{mixer}(\text{norm}(x)) \qquad\qquad x \leftarrow x + \text{feed-forward}(\text{norm}(x))$$

# %%
show(DecoderLayer.forward)

# %%
config = DecoderConfig(
    hidden_size=24,
    intermediate_size=40,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    sliding_window=6,
    mrope_section=(2, 1, 1),
    num_linear_heads=3,
    linear_head_dim=4,
)
block = HybridBlock(config)
for parameter in block.parameters():
    if parameter.ndim > 1:
        torch.nn.init.normal_(parameter, std=0.3)  # large enough for each part to matter
kinds = [type(layer.self_attn).__name__ for layer in block.layers]
assert kinds == ["WindowAttention", "GatedDeltaNet", "GatedDeltaNet", "GatedDeltaNet"]

T = 24
x = torch.randn(2, T, config.hidden_size)
positions = torch.arange(T).expand(3, 2, T)
by_hand = x
for layer in block.layers:
    by_hand = by_hand + layer.self_attn(layer.input_layernorm(by_hand), positions=positions)
    by_hand = by_hand + layer.mlp(layer.post_attention_layernorm(by_hand))
assert close(block(x), by_hand)

# %% [markdown]
# And this is the linear layer's mixer. Each of q, k and v goes through a projection, a *short
# convolution* (a token and the three before it) and SiLU; then the rule; then a norm of what was
# read, gated by the token.

# %%
show(GatedDeltaNet.mix)

# %% [markdown]
# ## What must be remembered
#
# Between two calls a stream keeps, and nothing else:
#
# | where | what | why |
# |---|---|---|
# | window layer | a ring of keys and values | the near past |
# | linear layer | a state | everything |
# | linear layer | three tails of three tokens, for q, k and v | the short convolutions look back |
# | once | how many tokens, and the next position | slots go by the one, angles by the other |
#
# **Then any way to cut a text into calls gives the same answers, in constant memory:**

# %%
show(LinearState.store)


# %%
@torch.no_grad()
def any_cut_is_the_same(block):
    right = block(x)
    for cut in ([1] * T, [11, 1, 9, 3], [23, 1]):
        memory = block.new_memory(2, longest_write=8)
        empty = memory.nbytes
        out = torch.cat([block(piece, memory=memory) for piece in x.split(cut, dim=1)], dim=1)
        for t in range(T):
            place = f"cut as {cut[:4]} …, the first wrong output is token {t}"
            assert close(out[:, t], right[:, t]), place
        assert memory.nbytes == empty, "the memory has grown"
        assert memory.tokens_seen == T


any_cut_is_the_same(block)

# %% [markdown]
# ### Break it
#
# One tail of three isn't kept. Then positions that start over in each call.

# %%
no_tail = broken(LinearState.store, "self.k_tail.copy_(k_tail)", "pass")
with patch.object(LinearState, "store", no_tail), fails():
    any_cut_is_the_same(block)

# %%
start_over = broken(
    HybridBlock.forward, "start = memory.next_position if memory is not None else ", "start = "
)
with patch.object(HybridBlock, "forward", start_over), fails():
    any_cut_is_the_same(block)

# %% [markdown]
# Both are wrong from token 1 on when tokens come singly: the first token of a stream needs no past.
# **A test that reads a whole text in one call sees neither.**
#
# ## What it costs
#
# The released model's memory, beside that of its teacher: the same decoder with full attention in
# all of its 36 layers, which keeps every key and value.

# %%
full = replace(Config(), layer_types=("full_attention",) * 36)
hybrid_bytes = Memory(Config(), dtype=torch.bfloat16, device="meta").nbytes
parts = Memory(Config(), dtype=torch.bfloat16, device="meta").tensors()


def full_bytes(tokens):
    return Memory(full, room=tokens, longest_write=1, dtype=torch.bfloat16, device="meta").nbytes


def multiplications(kind, t):
    """In the mixer, for token number t of one layer; projections left out."""
    if kind == "linear":
        return 16 * 3 * 128 * 256  # heads · (predict, write and read) · K · V
    return (
        16 * 2 * min(t, 8192 if kind == "window" else t) * 128
    )  # query heads · (scores and values) · keys · K


tokens = torch.arange(0, 65_537, 4096)

# %% [drawing]
figure, (memory, work) = drawing(8.6, 3.6, columns=2)
shown = [int(n) for n in tokens]
memory.plot(
    tokens / 1000,
    [full_bytes(n) / 1e6 if n else 0 for n in shown],
    markevery=4,
    label="36 × full attention",
    **ORANGE,
)
memory.plot(
    tokens / 1000,
    [hybrid_bytes / 1e6 for _ in shown],
    markevery=4,
    label="9 × (window + 3 linear)",
    **BLUE,
)
memory.set(title="Memory", xlabel="thousand tokens", ylabel="MB", xlim=(0, 67), ylim=(0, None))
memory.legend(fontsize=9)
blocks = {
    "36 × full attention": ([36 * multiplications("full", n) / 1e6 for n in shown], ORANGE),
    "9 × (window + 3 linear)": (
        [
            9 * (multiplications("window", n) + 3 * multiplications("linear", n)) / 1e6
            for n in shown
        ],
        BLUE,
    ),
}
for name, (line, look) in blocks.items():
    work.plot(tokens / 1000, line, markevery=4, label=name, **look)
work.set(
    title="Work of the mixers, a token",
    xlabel="thousand tokens before it",
    ylabel="million multiplications",
)
work.set(xlim=(0, 67), ylim=(0, None))
work.legend(fontsize=9)
picture(
    figure,
    "Two panels against the length of the text. With full attention, memory and the work for one more token grow in "
    "proportion to the text. With hybrid blocks memory is the same from the start, and work is constant once "
    "the window is full.",
    [
        "tokens",
        "memory, full, MB",
        "memory, hybrid, MB",
        "work, full, million",
        "work, hybrid, million",
    ],
    [
        [
            f"{n:,}",
            f"{full_bytes(n) / 1e6:,.0f}",
            f"{hybrid_bytes / 1e6:,.0f}",
            f"{36 * multiplications('full', n) / 1e6:,.0f}",
            f"{9 * (multiplications('window', n) + 3 * multiplications('linear', n)) / 1e6:,.0f}",
        ]
        for n in (8192, 65536, 1_000_000)
    ],
)


# %%
def megabytes(*names):
    return (
        sum(x.numel() * x.element_size() for name, x in parts.items() if name.endswith(names)) / 1e6
    )


kept = {
    "27 states": megabytes("state"),
    "81 tails": megabytes("tail"),
    "9 rings": megabytes("keys", "values", "positions"),
}
table(["of the hybrid's memory", "MB"], [[name, f"{size:,.1f}"] for name, size in kept.items()])
assert abs(sum(kept.values()) - hybrid_bytes / 1e6) < 0.001

# %% [markdown]
# ## Three questions
#
# **1.** A fact was shown twenty thousand tokens ago, and the window holds 8,192. Through which part
# of the memory can an answer know it?
#
# <details><summary>Answer</summary>
#
# Only through the states, if a layer chose to write it with a large β and no gate has let it fade
# since. (There is one detour: later tokens whose own keys and values were made from a state that
# knew it, and which are still in the window.)
#
# </details>
#
# **2.** All three tails are set to zero after each call. Which tokens come out wrong?
#
# <details><summary>Answer</summary>
#
# The first three tokens of each call, directly: their convolutions miss some of the past. And
# through what they wrote into states and rings, everything after them.
#
# </details>
#
# **3.** Why are states kept in float32, when rings are in bfloat16?
#
# <details><summary>Answer</summary>
#
# A key in the ring is written once and read as it is: it is rounded once. A state is read, changed
# and written for every token: it would be rounded a million times, and a small write to a large
# entry would vanish.
#
# </details>
