# %% [markdown]
# # 1 · Linear attention: one product, two brackets
#
# **At the end you can**
#
# - say why attention without its softmax needs one small matrix of memory, however long the text is;
# - write it in three forms, and count what each costs;
# - say what it answers when a key is written twice, which is what the later notebooks mend.
#
# You need matrix products, and what queries, keys and values are. The rhythm is always the same: a
# claim, its equation, the code from `minivl` that does it, an assertion, a picture. Then a line of
# that code is broken, and you watch the assertion notice.

# %%
import torch
from lesson import BLACK, BLUE, GREEN, ORANGE, broken, close, drawing, fails, picture, show
from matplotlib.patches import Rectangle
from torch.utils.flop_counter import FlopCounterMode

from minivl.ops import linear_attention

torch.set_default_dtype(torch.float64)  # so that what is equal is equal to ten digits

# %% [markdown]
# ## Two brackets
#
# Softmax attention compares a query with all keys so far, and takes a weighted mean of their
# values:
#
# $$\text{out}_t = \sum_{j \le t} \frac{e^{q_t \cdot k_j}}{\sum_{i \le t} e^{q_t \cdot k_i}} \; v_j$$
#
# Take the softmax out, and a sum of products is left:
#
# $$\text{out}_t = \sum_{j \le t} (q_t \cdot k_j) \, v_j$$
#
# Forget the condition $j \le t$ for a moment. Then all outputs together are a product of three
# matrices, which have a row for each token. **And a product may be bracketed in two ways:**
#
# $$(Q K^\top) \, V \;=\; Q \, (K^\top V)$$
#
# The brackets on the left hold a number for each *pair of tokens*. Those on the right hold as many
# numbers as a key is wide times as many as a value is wide, and that does not grow with the text.
# Softmax forbids the second way: it has to see all numbers of a row of $Q K^\top$ before $V$ may
# come.

# %%
torch.manual_seed(0)
T, K, V = 64, 8, 8  # tokens, width of a key, width of a value
q, k, v = torch.randn(T, K), torch.randn(T, K), torch.randn(T, V)


def multiplications(product):
    with FlopCounterMode(display=False) as counter:
        product()
    return counter.get_total_flops() // 2  # PyTorch counts a multiplication and an addition as two


assert close((q @ k.mT) @ v, q @ (k.mT @ v))
assert not close((q @ k.mT).softmax(-1) @ v, q @ (k.mT @ v), 0.1)

pairs_first = multiplications(lambda: (q @ k.mT) @ v)
state_first = multiplications(lambda: q @ (k.mT @ v))
assert pairs_first == T * T * (K + V)
assert state_first == 2 * T * K * V
print(f"pairs first: {pairs_first:,} multiplications; keys and values first: {state_first:,}")

# %% [drawing]
figure, panels = drawing(8.6, 4.8, rows=2)


def boxes(axes, title, parts):
    """Matrices drawn to scale, one after the other: (name, rows, columns, colour), or a sign between two of them."""
    place = 0
    for part in parts:
        if isinstance(part, str):
            axes.text(place + 8, 0, part, ha="center", va="center", fontsize=15)
            place += 16
            continue
        name, rows, columns, colour = part
        axes.add_patch(
            Rectangle(
                (place, -rows / 2), columns, rows, facecolor=colour, alpha=0.4, edgecolor="#222222"
            )
        )
        axes.text(
            place + columns / 2,
            -rows / 2 - 3,
            f"{name}\n{rows} × {columns}",
            ha="center",
            va="top",
            fontsize=9,
        )
        place += columns
    axes.set(xlim=(-8, 272), ylim=(-56, 36), aspect="equal", title=title)
    axes.axis("off")


boxes(
    panels[0],
    f"Pairs first: {pairs_first:,} multiplications for 64 tokens, 4 times as many for 128",
    [
        "(",
        ("Q", T, K, BLUE["color"]),
        "·",
        ("Kᵀ", K, T, BLUE["color"]),
        ")  ·",
        ("V", T, V, GREEN["color"]),
        "=",
        ("Q Kᵀ", T, T, ORANGE["color"]),
        "·",
        ("V", T, V, GREEN["color"]),
    ],
)
boxes(
    panels[1],
    f"Keys and values first: {state_first:,} multiplications for 64 tokens, twice as many for 128",
    [
        ("Q", T, K, BLUE["color"]),
        "·  (",
        ("Kᵀ", K, T, BLUE["color"]),
        "·",
        ("V", T, V, GREEN["color"]),
        ")  =",
        ("Q", T, K, BLUE["color"]),
        "·",
        ("Kᵀ V", K, V, ORANGE["color"]),
    ],
)
picture(
    figure,
    "Two rows of boxes, to scale. Bracketed as pairs first, there is a large square of 64 by 64 between Q and V. "
    "Bracketed as keys and values first, a small square of 8 by 8 takes its place.",
    [
        "tokens",
        "pairs first",
        "keys and values first",
        "numbers between the brackets: pairs",
        "keys and values",
    ],
    [
        [f"{t:,}", f"{t * t * (K + V):,}", f"{2 * t * K * V:,}", f"{t * t:,}", K * V]
        for t in (64, 128, 1024)
    ],
)

# %% [markdown]
# ## The past in one matrix
#
# Now bring $j \le t$ back: a token may see itself and what came before. Let $S_t$ be the sum of the
# products so far. Then each token adds one outer product, and one product reads the answer:
#
# $$S_t = S_{t-1} + k_t v_t^\top \qquad\qquad \text{out}_t = \text{scale} \cdot S_t^\top q_t$$
#
# $S$ is called the **state**. It is all that the past leaves behind. This is how `minivl` says it,
# with a batch and heads around it: shapes are `[B, T, H, K]`, and a state is `[B, H, K, V]`.

# %%
show(linear_attention.recurrent)

# %%
B, T, H, K, V = 2, 50, 3, 8, 6
q, k, v = torch.randn(B, T, H, K), torch.randn(B, T, H, K), torch.randn(B, T, H, V)


def is_the_sum(form):
    """form's outputs are Σ_{j ≤ t} (q_t·k_j) v_j, written as two loops."""
    out, state = form(q, k, v)
    for t in range(T):
        expected = sum((q[:, t] * k[:, j]).sum(-1, keepdim=True) * v[:, j] for j in range(t + 1))
        assert close(out[:, t], expected), f"the first wrong output is number {t}"
    assert close(state, torch.einsum("BTHK,BTHV->BHKV", k, v)), (
        "the outputs are right, but the state is not"
    )


is_the_sum(linear_attention.recurrent)

# %% [markdown]
# To see a state work, make the keys simple. Here a key has a single 1, so it owns one row of the
# state: writing under it changes that row, and asking with it reads that row. Six tokens write into
# four rows, and one key comes three times.

# %%
rows_written = [0, 1, 2, 0, 3, 0]
letters = "abcd"
key = torch.eye(4)[rows_written][None, :, None]  # [1, 6, 1, 4]
value = torch.tensor([[1.0, 0, 2], [0, 3, 0], [2, 2, 0], [4, 0, 1], [0, 1, 3], [1, 1, 1]])[
    None, :, None
]
states = [
    linear_attention.recurrent(key[:, :t], key[:, :t], value[:, :t])[1][0, 0] for t in range(1, 7)
]
assert states[-1][0].tolist() == [6.0, 1.0, 4.0]  # the sum of [1, 0, 2], [4, 0, 1] and [1, 1, 1]

# %% [drawing]
figure, panels = drawing(8.6, 2.6, columns=6)
for t, (axes, state) in enumerate(zip(panels, states, strict=True)):
    axes.imshow(state, cmap="Blues", vmin=0, vmax=7)
    for row in range(4):
        for column in range(3):
            number = int(state[row, column])
            axes.text(
                column,
                row,
                number,
                ha="center",
                va="center",
                color="white" if number > 4 else "#222222",
            )
    row = rows_written[t]
    axes.add_patch(
        Rectangle((-0.5, row - 0.5), 3, 1, fill=False, edgecolor=ORANGE["color"], lw=2.5)
    )
    axes.set_title(f"token {t + 1}\nkey {letters[row]}")
    axes.set_xticks(range(3), range(1, 4))
    axes.set_yticks(range(4), letters)
    axes.spines[:].set_visible(False)
panels[0].set_ylabel("key")
figure.supxlabel("channel of the value", fontsize=10)
picture(
    figure,
    "The state after each of six tokens, as a table of four rows, one a key, and three columns. Each token changes one "
    "row. Key a is written three times, and its row ends as the sum of all three values.",
    ["token", "key", "value written", "what the key answers afterwards"],
    [
        [t + 1, letters[row], value[0, t, 0].int().tolist(), states[t][row].int().tolist()]
        for t, row in enumerate(rows_written)
    ],
)

# %% [markdown]
# **Linear attention adds; it can't correct.** The last token wrote 1, 1, 1 under key a, and key a
# answers 6, 1, 4: neither the newest value nor any that was ever written. [The next
# notebook](02_delta_rule.ipynb) mends that.
#
# ## Three forms of one function
#
# The loop does little work, but one token after the other. A GPU would rather do large products.
# Both brackets are in use at once when time is cut into chunks of $C$ tokens. For a token of a
# chunk, the keys up to it are those of the earlier chunks, which $S$ sums up, and those of its own
# chunk, which are compared pair by pair:
#
# $$\text{out} = \text{scale} \cdot \bigl(Q S + \text{tril}(Q K^\top) \, V\bigr) \qquad S \leftarrow S + K^\top V$$
#
# `tril` keeps the lower triangle of a matrix and its diagonal: that is $j \le t$. With one chunk
# for everything, and no state before it, this is `parallel`.

# %%
show(linear_attention.parallel, linear_attention.chunked)

# %%
is_the_sum(linear_attention.parallel)
is_the_sum(linear_attention.chunked)
is_the_sum(
    lambda q, k, v: linear_attention.chunked(q, k, v, chunk=7)
)  # 50 tokens are seven chunks and one token

# and since the state is all of the past, a text may be cut anywhere and continued
first, between = linear_attention.chunked(q[:, :17], k[:, :17], v[:, :17])
second, end = linear_attention.chunked(q[:, 17:], k[:, 17:], v[:, 17:], state=between)
whole, whole_end = linear_attention.recurrent(q, k, v)
assert close(torch.cat([first, second], dim=1), whole)
assert close(end, whole_end)

# %% [markdown]
# ### Break it
#
# A triangle without its diagonal: the token doesn't see itself. Then a carry that keeps only the
# last chunk. Where the first wrong output stands tells which of the two it is.

# %%
strict = broken(linear_attention.parallel, ".tril()", ".tril(-1)")
with fails():
    is_the_sum(strict)

# %%
forgetful = broken(
    linear_attention.chunked, "state = state + k[n].mT @ v[n]", "state = k[n].mT @ v[n]"
)
with fails():
    is_the_sum(lambda q, k, v: forgetful(q, k, v, chunk=7))

# %% [markdown]
# Why number 14, and not 7? The second chunk starts from the state that the first one left, and that
# is still right. The mistake needs a third chunk to show: **a test with two chunks would have
# passed.**
#
# ## What it costs
#
# One head of the released model has keys of width 128 and values of width 256, and 64 is the usual
# chunk.
#
# | form | multiplications | steps, one after the other | remembers |
# |---|---|---|---|
# | recurrent | $T \cdot 2 K V$ | $T$ | $K V$ numbers |
# | parallel | $T^2 (K + V) + T K V$ | 1 | $T (K + V)$ numbers |
# | chunked | $T \cdot (2 K V + C (K + V))$ | $T / C$ | $K V$ numbers |

# %%
K, V, C = 128, 256, 64
count = {
    "recurrent": lambda T: T * 2 * K * V,
    "parallel": lambda T: T * T * (K + V) + T * K * V,
    "chunked": lambda T: T * (2 * K * V + C * (K + V)),
}
T = 1024
q, k, v = torch.randn(1, T, 1, K), torch.randn(1, T, 1, K), torch.randn(1, T, 1, V)
for form in (
    linear_attention.parallel,
    linear_attention.chunked,
):  # PyTorch's counter sees the same
    assert multiplications(lambda form=form: form(q, k, v)) == count[form.__name__](T)

crossing = K * V // (K + V) + 1  # tokens from which on the state is smaller than keys and values
assert (crossing - 1) * (K + V) <= K * V < crossing * (K + V)
print(f"the state is the smaller memory from token {crossing} on")

# %%
lengths = torch.arange(0, 513, 32)

# %% [drawing]
figure, (work, memory) = drawing(8.6, 3.4, columns=2)
for (name, formula), look in zip(count.items(), (BLUE, ORANGE, GREEN), strict=True):
    work.plot(lengths, [formula(int(T)) / 1e6 for T in lengths], markevery=4, label=name, **look)
work.set(
    title="Work", xlabel="tokens", ylabel="million multiplications", xlim=(0, 520), ylim=(0, 110)
)
work.legend()
memory.plot(lengths, lengths * (K + V) / 1e3, markevery=4, label="keys and values", **ORANGE)
memory.plot(lengths, torch.full_like(lengths, K * V) / 1e3, markevery=4, label="the state", **BLUE)
memory.annotate(
    f"equal at {crossing} tokens",
    (crossing, K * V / 1e3),
    xytext=(190, 12),
    arrowprops={"arrowstyle": "->", "color": BLACK["color"]},
)
memory.set(
    title="Memory", xlabel="tokens", ylabel="thousand numbers kept", xlim=(0, 520), ylim=(0, 200)
)
memory.legend(loc="upper left")
picture(
    figure,
    "Left: work against tokens. The recurrent and the chunked form rise as straight lines, close together; the "
    "parallel form curves upwards. Right: keys and values grow with the text, while the state stays the same; the "
    f"lines cross at {crossing} tokens.",
    [
        "tokens",
        *(f"{name}, million" for name in count),
        "keys and values, numbers",
        "state, numbers",
    ],
    [
        [
            f"{T:,}",
            *(f"{formula(T) / 1e6:,.1f}" for formula in count.values()),
            f"{T * (K + V):,}",
            f"{K * V:,}",
        ]
        for T in (64, 512, 8192)
    ],
)

# %% [markdown]
# The chunked form does a little more than the loop, and needs 64 times fewer steps. It is the one
# that prompts and training use; the loop is what a decoder does for each new word; the parallel
# form is for reading.
#
# ## Three questions
#
# **1.** A state has been read into for 1,000 tokens. You double all of the values and read them
# again into an empty state. What happens to the answers? And with softmax attention?
#
# <details><summary>Answer</summary>
#
# Both double. Values enter linearly in both: softmax attention is a weighted mean of values. It is
# *keys and queries* that softmax treats otherwise: doubled keys double linear attention's answers,
# and make softmax sharper.
#
# </details>
#
# **2.** Why may `chunked` fill up its last chunk with zeros?
#
# <details><summary>Answer</summary>
#
# A zero key writes $0 \cdot v^\top$, which is nothing, so the state that is left is right. The
# outputs of the filling are cut off, and under `tril` no earlier token sees them.
#
# </details>
#
# **3.** A key has width 128. How many keys can a state hold so that each of them gets exactly its
# own value back?
#
# <details><summary>Answer</summary>
#
# 128, if they stand at right angles and have length 1: then $S^\top k_i = \sum_j (k_j \cdot k_i) v_j = v_i$.
# There are no more than 128 such directions. Any other key gets a mixture of what its neighbours
# wrote.
#
# </details>
