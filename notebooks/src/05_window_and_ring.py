# %% [markdown]
# # 5 · The window and its ring
#
# **At the end you can**
#
# - say exactly which keys a query sees in a window of W, and what a window of 1 or of everything is;
# - say in which slot of a ring token 1,000,003 lies, and why nobody ever sorts the slots;
# - work out how many slots a ring needs for writes of a given length.
#
# Before it: [gating](03_gating.ipynb). A state blurs what it keeps. So the softmax comes back, for
# the near past.

# %%
import torch
import torch.nn.functional as F
from lesson import BLUE, ORANGE, broken, close, drawing, fails, picture, show, table
from matplotlib.patches import Rectangle

from minivl.ops.sliding_window import Ring, banded, ring, visible

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Who sees whom
#
# **A token sees itself and the $W - 1$ tokens before it.** Key $j$ is visible to query $i$ if and
# only if
#
# $$0 \le i - j < W$$
#
# and then it is softmax attention as ever, $\text{out}_i = \sum_j \text{softmax}_j(\text{scale}
# \cdot q_i \cdot k_j) \, v_j$ over the visible $j$. Work and memory a token are those of $W$ keys,
# however long the text is.

# %%
show(visible, banded)

# %%
B, T, Hq, Hkv, K, W = 2, 23, 6, 2, 8, 5
q, k, v = torch.randn(B, T, Hq, K), torch.randn(B, T, Hkv, K), torch.randn(B, T, Hkv, K)
time = torch.arange(T)


def sees_the_newest(visible):
    for i, row in enumerate(visible(time, time, W)):
        seen = row.nonzero().flatten().tolist()
        newest = list(range(max(0, i - W + 1), i + 1))
        assert seen == newest, f"query {i} should see {newest}, and sees {seen}"


sees_the_newest(visible)

# %% [markdown]
# The two ends are easy to know. A window of everything is full causal attention. A window of 1
# leaves each token alone with its own value, whatever it asks. (There are fewer key heads than
# query heads, to keep less: query head $h$ reads key head $h$ // 3 here, so neighbours share.
# `repeat_interleave` says the same.)

# %%
shared_k, shared_v = (x.repeat_interleave(Hq // Hkv, dim=2) for x in (k, v))
heads_first = (x.transpose(1, 2) for x in (q, shared_k, shared_v))
full = F.scaled_dot_product_attention(*heads_first, is_causal=True).transpose(1, 2)
assert close(banded(q, k, v, window=T), full)
assert close(banded(q, k, v, window=1), shared_v)

# %% [markdown]
# ### Break it
#
# The usual mistake is one key too many. The first $W$ tokens don't show it.

# %%
wide = broken(visible, "(distance < window)", "(distance <= window)")
with fails():
    sees_the_newest(wide)

# %% [markdown]
# ## The ring
#
# A stream needs only the newest keys. Moving all of them one place for each new token would copy
# the whole window every time. **A ring moves nothing: token number $p$ goes to slot $p \bmod R$,**
# over token $p - R$. Each slot also keeps the number of its token; an empty one has $-1$. The
# number decides what a query may see, and never the slot.

# %%
show(Ring.write)


# %%
def slots_after(tokens, *, slots, window, ring_class=Ring):
    """The number in each slot after each of so many tokens: [tokens, slots]."""
    memory = ring_class(1, slots, 1, 1, window=window, dtype=torch.float64)
    rows = []
    for _ in range(tokens):
        memory.write(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
        rows.append(memory.positions[0].clone())
    return torch.stack(rows)


R, W, tokens = 5, 3, 13
held = slots_after(tokens, slots=R, window=W)
assert held[-1].tolist() == [
    10,
    11,
    12,
    8,
    9,
]  # twice round: token 10 is the second one after token 0 in slot 0

# %% [drawing]
figure, (band, slots) = drawing(8.6, 5.6, columns=2, width_ratios=(13, 6))
time = torch.arange(tokens)
band.imshow(visible(time, time, W), cmap="Blues", vmax=2.2)
band.set(
    title=f"The band: W = {W}",
    xlabel="key",
    ylabel="query, the newest token",
    xticks=time,
    yticks=time,
)
seen = torch.stack([visible(time[i : i + 1], held[i], W)[0] for i in range(tokens)])
slots.imshow(seen, cmap="Blues", vmax=2.2, aspect="auto")
for i in range(tokens):
    for slot in range(R):
        number = held[i, slot].item()
        weight = "bold" if seen[i, slot] else "normal"
        slots.text(slot, i, number if number >= 0 else "·", ha="center", va="center", weight=weight)
    slots.add_patch(
        Rectangle((i % R - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=ORANGE["color"], lw=2)
    )
slots.set(title=f"The ring: {R} slots", xlabel="slot", xticks=range(R), yticks=time)
for axes in (band, slots):
    axes.spines[:].set_visible(False)
picture(
    figure,
    "Left: a band of three keys along the diagonal, for 13 queries. Right: which token's number lies in each of the "
    "five slots after each token. The newest one, framed, goes round: it is in slot 0 at tokens 0, 5 and 10. The three "
    "visible ones are bold and shaded; two more slots hold tokens out of the window, or nothing yet.",
    ["after token", *(f"slot {slot}" for slot in range(R)), "visible"],
    [
        [i, *(x if x >= 0 else "–" for x in held[i].tolist()), sorted(held[i][seen[i]].tolist())]
        for i in (0, 3, 5, 9, 10, 12)
    ],
)

# %% [markdown]
# ## Never sorted
#
# The slots lie in a strange order, and that is all right: softmax attention is a sum over keys, and
# a sum has no order. What order a key has was turned into it before it was stored
# ([positions](08_vision_and_positions.ipynb) says how).

# %%
order = torch.randperm(T)
weights = (q[0, -1, 0] @ k[0, :, 0].mT).softmax(-1)
shuffled = (q[0, -1, 0] @ k[0, order, 0].mT).softmax(-1)
assert close(shuffled @ v[0, order, 0], weights @ v[0, :, 0])

# %% [markdown]
# So attending to the ring as it lies must give what `banded` gives, for any way to cut the text
# into calls:

# %%
show(ring)


# %%
def equals_the_band(ring_class, W=5, R=11):
    right = banded(q, k, v, window=W)
    for split in ([1] * 23, [7, 1, 1, 7, 7], [2, 6, 1, 7, 7]):
        memory, start = ring_class(B, R, Hkv, K, window=W, dtype=torch.float64), 0
        for length in split:
            piece = slice(start, start + length)
            out = ring(q[:, piece], k[:, piece], v[:, piece], memory=memory)
            for i in range(length):
                place = f"the first wrong output is token {start + i}, cut as {split}"
                assert close(out[:, i], right[:, start + i]), place
            start += length


equals_the_band(Ring)

# %% [markdown]
# ### Break it
#
# A ring that wraps at the window instead of at its number of slots. Then one whose empty slots may
# be seen.


# %%
class WrapsTooEarly(Ring):
    write = broken(Ring.write, "number % self.keys.shape[1]", "number % self.window")


with fails():
    equals_the_band(WrapsTooEarly)


# %%
class EmptySlotsCount(Ring):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.positions.fill_(0)  # instead of −1


with fails():
    equals_the_band(EmptySlotsCount)

# %% [markdown]
# The first is right as long as tokens come one at a time, and fails in the first call that brings
# several: they overwrite what their own first token still needs. The second is wrong at the start
# of every stream, since zero keys draw a part of the softmax, and right later on.
#
# A wrong *offset*, on the other hand, isn't a mistake at all. Shift every slot by one, and nothing
# changes:


# %%
class Shifted(Ring):
    write = broken(Ring.write, "number % self.keys.shape[1]", "(number + 1) % self.keys.shape[1]")


equals_the_band(Shifted)

# %% [markdown]
# ## How many slots
#
# When $T$ tokens come in one call, all are written before the first is attended to. Number $s$, the
# first, still needs the $W - 1$ tokens before it; number $s + T - 1$, the last, overwrites number
# $s + T - 1 - R$. So
#
# $$s + T - 1 - R < s - (W - 1) \qquad \Longleftrightarrow \qquad R \ge W - 1 + T$$
#
# One more token would quietly lose the oldest of the window. So it is an error:

# %%
memory = Ring(1, 6, 1, 1, window=3, dtype=torch.float64)
assert memory.longest_write == 6 - 3 + 1
try:
    ring(*[torch.zeros(1, 5, 1, 1)] * 3, memory=memory)
except ValueError as error:
    print(str(error).replace("; split", ";\nsplit"))

# %% [markdown]
# ## What it costs
#
# The released model: windows of 8,192 tokens, keys and values of width 128 in 2 heads, 2 bytes a
# number, 9 such layers, and room for writes of 4,096 tokens.

# %%
W, write, layers = 8192, 4096, 9
with torch.device("meta"):  # shapes without numbers
    memory = Ring(1, W - 1 + write, 2, 128, window=W, dtype=torch.bfloat16)
ring_bytes = layers * sum(x.numel() * x.element_size() for x in memory.tensors().values())
token_bytes = layers * 2 * 2 * 128 * 2  # keys and values of one token
lengths = torch.arange(0, 65_537, 4096)

# %% [drawing]
figure, axes = drawing(6.5, 3.4)
axes.plot(
    lengths / 1000,
    lengths * token_bytes / 1e6,
    markevery=4,
    label="all keys and values kept",
    **ORANGE,
)
axes.plot(
    lengths / 1000,
    torch.full_like(lengths, ring_bytes) / 1e6,
    markevery=4,
    label="nine rings",
    **BLUE,
)
axes.set(
    title="Memory of the nine window layers",
    xlabel="thousand tokens",
    ylabel="MB",
    xlim=(0, 67),
    ylim=(0, None),
)
axes.legend()
picture(
    figure,
    "Memory against tokens. Kept in full, keys and values grow along a straight line. The rings take the same at any "
    "length.",
    ["tokens", "kept in full, MB", "nine rings, MB"],
    [
        [f"{n:,}", f"{n * token_bytes / 1e6:,.0f}", f"{ring_bytes / 1e6:,.0f}"]
        for n in (8192, 65536, 1_000_000)
    ],
)

# %% [markdown]
# ## Three questions
#
# **1.** A ring has 12,287 slots. Where does token 1,000,003 lie, and which token did it overwrite?

# %%
table(["slot", "overwrote token"], [[f"{1_000_003 % 12_287:,}", f"{1_000_003 - 12_287:,}"]])

# %% [markdown]
# <details><summary>Answer</summary>
#
# In slot 1,000,003 mod 12,287, over token 1,000,003 − 12,287: the cell above has worked both out.
#
# </details>
#
# **2.** A stream brings one token at a time, for ever. What is the smallest ring for a window of
# $W$?
#
# <details><summary>Answer</summary>
#
# $R = W$: with $T = 1$, $R \ge W - 1 + 1$. The token overwrites exactly the one that has just left
# the window.
#
# </details>
#
# **3.** Why does a slot keep its token's number, when the number could be worked out from the slot
# and the count of all tokens?
#
# <details><summary>Answer</summary>
#
# It could, for one stream without padding. In a batch each row has its own count, padding isn't
# counted, and a slot may be empty. A number in each slot says all of that in one comparison, and a
# kernel or a saved file can read it without knowing how it came about.
#
# </details>
