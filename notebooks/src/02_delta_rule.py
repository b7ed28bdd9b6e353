# %% [markdown]
# # 2 · The delta rule: write only what is missing
#
# **At the end you can**
#
# - write the rule in one line, and say what it answers when a key is written again;
# - say what a factor I − β k kᵀ does to a vector, without multiplying anything out;
# - say why keys must have length 1, and what a memory of this kind is good for and what not.
#
# Before it: [linear attention](01_linear_attention.ipynb), which adds up whatever is written under
# a key.

# %%
import math

import torch
from lesson import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    broken,
    close,
    drawing,
    fails,
    picture,
    show,
    table,
)

from minivl.ops import delta_rule, gated_delta_rule, linear_attention

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Read first, then write
#
# Linear attention writes $v_t$ on top of what its state already answers for $k_t$. **The delta rule
# first reads that answer, and writes only what is missing from it:**
#
# $$\delta_t = \beta_t \, (v_t - S_{t-1}^\top k_t) \qquad\qquad S_t = S_{t-1} + k_t \, \delta_t^\top$$
#
# The strength $\beta_t$, from 0 to 1, is chosen by each token: with 1 it replaces the old value,
# with 0 it leaves it alone. Reading is what it was: $\text{out}_t = \text{scale} \cdot S_t^\top
# q_t$.

# %%
show(delta_rule.recurrent)


# %%
def along_time(*numbers):
    """A number a token, as [B, T, H]."""
    return torch.tensor(numbers)[None, :, None]


def same_key(times, length=1.0):
    """One key of this length, `times` tokens long, as [B, T, H, K]."""
    return torch.tensor([length, 0.0]).expand(1, times, 1, 2)


def newest_value_comes_back(form):
    key, value, beta = same_key(2), along_time(1.0, 5.0)[..., None], along_time(1.0, 1.0)
    answers = form(key, key, value, beta=beta)[0].flatten().tolist()
    assert answers == [1.0, 5.0], (
        f"1 and then 5 were written under one key, and it answers {answers}"
    )


newest_value_comes_back(delta_rule.recurrent)

# %% [markdown]
# With $\beta = 0.5$ each write goes half of the way. The value 1, written four times:

# %%
key, ones = same_key(4), torch.ones(1, 4, 1, 1)
answers, _ = delta_rule.recurrent(key, key, ones, beta=along_time(0.5, 0.5, 0.5, 0.5))
assert answers.flatten().tolist() == [0.5, 0.75, 0.875, 0.9375]

# %% [markdown]
# ### Break it
#
# Leave out what was found, and the rule is linear attention again:

# %%
adding = broken(delta_rule.recurrent, "(v[:, t] - found)", "v[:, t]")
with fails():
    newest_value_comes_back(adding)

# %% [markdown]
# ## It is learning
#
# The state should answer $v_t$ when it is asked with $k_t$. Its squared error is $\frac12 |S^\top
# k_t - v_t|^2$, and one step downhill from $S$, of size $\beta_t$, *is* the delta rule. So such a
# layer learns while it reads: its state is a small linear model, trained on the pairs of keys and
# values as they come.

# %%
K, V = 8, 4
state = torch.randn(K, V, requires_grad=True)
key, value = torch.nn.functional.normalize(torch.randn(K), dim=0), torch.randn(V)
(slope,) = torch.autograd.grad(0.5 * (state.mT @ key - value).square().sum(), state)

token = (x[None, None, None] for x in (key, key, value))
_, after = delta_rule.recurrent(*token, beta=along_time(0.7), state=state.detach()[None, None])
assert close(after[0, 0], state.detach() - 0.7 * slope)

# %% [markdown]
# ## Keys that are overwritten
#
# Eight keys, each written four times, with a new value every time; asked for the newest one. The
# keys are random, 32 wide, so they disturb each other a little. The third rule in the picture is
# the one of the [next notebook](03_gating.ipynb): the delta rule with a state that also fades, here
# by a hundredth a token.

# %%
RULES = {
    "linear": (linear_attention.recurrent, {}, BLUE),
    "delta": (delta_rule.recurrent, {"beta": 1.0}, ORANGE),
    "gated delta": (gated_delta_rule.recurrent, {"beta": 1.0, "log_decay": math.log(0.99)}, GREEN),
}


def ask(rule, key, value):
    """Write all pairs [trials, T, 1, …]; then ask the final state with each key."""
    form, gates, _ = RULES[rule]
    gates = {name: torch.full(key.shape[:3], number) for name, number in gates.items()}
    _, state = form(key, key, value, **gates)
    return torch.einsum("BHKV,BTHK->BTHV", state, key)[:, :, 0]


def experiment(keys, times, trials=200, width=32, labels=32):
    """Random keys, each written `times` times with a random label. For each rule, of the newest labels: how often each
    key's is the largest entry of its answer, and how far the answer is from it."""
    key = delta_rule.unit(torch.randn(trials, keys, 1, width)).repeat(1, times, 1, 1)
    label = torch.randint(labels, (trials, keys * times))
    value = torch.nn.functional.one_hot(label, labels).double()[:, :, None]
    found = {}
    for rule in RULES:
        answer, newest = ask(rule, key, value)[:, -keys:], slice(-keys, None)
        right = (answer.argmax(-1) == label[:, newest]).double().mean(0)
        error = (answer - value[:, newest, 0]).norm(dim=-1).mean().item()
        found[rule] = right, error
    return found


one_key = delta_rule.unit(torch.randn(1, 8, 1, 32)).repeat(1, 4, 1, 1)
numbers = torch.randint(1, 10, (1, 32, 1, 1)).double()
overwritten = experiment(keys=8, times=4)

# %% [drawing]
figure, (left, right) = drawing(8.6, 3.6, columns=2)
place = torch.arange(1, 9)
newest = numbers[0, -8:, 0, 0]
left.plot(
    place, newest, linestyle="none", markersize=11, markeredgewidth=2, label="newest value", **BLACK
)
answers = {rule: ask(rule, one_key, numbers)[0, -8:, 0] for rule in RULES}
for rule, (_, _, look) in RULES.items():
    left.plot(place, answers[rule], linestyle="none", label=rule, **look)
    right.plot(place, overwritten[rule][0], label=rule, **look)
left.set(
    title="One example: what each key answers", xlabel="key, in the order written", ylabel="value"
)
right.set(
    title="200 examples: newest label recalled",
    xlabel="key, in the order written",
    ylabel="share",
    ylim=(0, 1.05),
)
right.legend(loc="center right", bbox_to_anchor=(1, 0.5))
left.legend(loc="upper left", ncols=2, fontsize=8)
left.set_ylim(0, 1.45 * answers["linear"].max())
picture(
    figure,
    "Left: for each of eight keys, its newest value and three answers. Linear attention answers the sum of all four "
    "values and parts of other keys', which is far off. The delta rule answers close to the newest value, and so "
    "does the gated one. Right: how often the newest label is recalled. Linear attention does so rarely, the others "
    "nearly always.",
    ["key", "newest value", *RULES, *(f"{rule}: recalled" for rule in RULES)],
    [
        [key, f"{newest[key - 1]:.0f}"]
        + [f"{answers[rule][key - 1]:.1f}" for rule in RULES]
        + [f"{overwritten[rule][0][key - 1]:.2f}" for rule in RULES]
        for key in (1, 4, 8)
    ],
)
# %%
assert overwritten["linear"][0].mean() < 0.4
assert overwritten["delta"][0].mean() > 0.97

# %% [markdown]
# Now the opposite: 32 facts, each written once. Look at both numbers of a rule, since they don't
# rank the rules alike.

# %%
once = experiment(keys=32, times=1)
table(
    ["", *(f"{rule}: {what}" for rule in RULES for what in ("recalled", "error"))],
    [
        [name, *(f"{x:.2f}" for rule in RULES for x in (found[rule][0].mean(), found[rule][1]))]
        for name, found in (("8 keys, 4 times", overwritten), ("32 keys, once", once))
    ],
)
assert (
    once["linear"][0].mean() > once["delta"][0].mean()
)  # by what is recalled, linear attention is better here,
assert once["linear"][1] > once["delta"][1]  # and by error, worse

# %% [markdown]
# **Storing ever more facts once is not what the rule is for.** Each correct write disturbs the
# older neighbours, and a plain sum, whose label stands out of the noise, recalls better. What the
# rule is for is *overwriting*. Say what a memory is to be good at before you measure it, and show
# error beside accuracy.
#
# ## The factor that erases
#
# Put $\delta_t$ into the write and collect what stands before $S_{t-1}$:
#
# $$S_t = (I - \beta_t k_t k_t^\top) \, S_{t-1} + \beta_t k_t v_t^\top$$
#
# The first term erases, the second writes. $I - \beta k k^\top$ is a *generalised Householder
# factor*. Along $k$ it multiplies by $1 - \beta |k|^2$, and at right angles to $k$ it does nothing.
# That is all there is to know about erasing.

# %%
show(delta_rule.householder)

# %%
key = torch.nn.functional.normalize(torch.randn(K), dim=0)
for beta in (0.0, 0.5, 1.0, 2.0):
    eigenvalues = torch.linalg.eigvalsh(delta_rule.householder(key, torch.tensor(beta)))
    assert close(eigenvalues, torch.tensor([1 - beta] + [1.0] * (K - 1)))  # in rising order

# %%
angle = math.radians(40)
key, x = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(angle), math.sin(angle)])
circle = torch.linspace(0, 2 * math.pi, 100)
circle = torch.stack([circle.cos(), circle.sin()])


def turned(image):
    """By how many degrees the factor turns x."""
    return math.degrees(math.atan2(image[1], image[0]) - angle)


# %% [drawing]
figure, panels = drawing(8.6, 2.7, columns=4)
betas = (0.5, 1.0, 2.0)
effects = ("along k it shrinks", "along k it is erased", "out of reach: a mirror")
for axes, beta, effect in zip(panels, betas, effects, strict=False):
    factor = delta_rule.householder(key, torch.tensor(beta))
    image = factor @ x
    axes.plot(*circle, color="#999999", linestyle=":")
    axes.plot(*(factor @ circle), color=BLUE["color"], lw=2.5)
    axes.annotate("", x, (0, 0), arrowprops={"arrowstyle": "->", "color": "#777777"})
    axes.annotate(
        "", image, (0, 0), arrowprops={"arrowstyle": "->", "color": ORANGE["color"], "lw": 2}
    )
    axes.text(*(1.12 * x), "x", color="#777777")
    axes.text(1.25, -0.12, "k")
    axes.plot([-1.2, 1.2], [0, 0], color="#222222", lw=0.8)
    axes.set(title=f"β = {beta:g}\n{effect}", aspect="equal", xlim=(-1.45, 1.5), ylim=(-1.3, 1.3))
    axes.axis("off")
grid = torch.linspace(0, 1, 21)
images = [delta_rule.householder(key, beta) @ x for beta in grid]
panels[3].plot(
    grid, [turned(image) / 90 for image in images], markevery=5, label="turned, of 90°", **ORANGE
)
panels[3].plot(grid, [image.norm() for image in images], markevery=5, label="length", **BLUE)
panels[3].set(title="x, for β from 0 to 1", xlabel="β", ylabel="share", ylim=(0, 1.6))
panels[3].legend(fontsize=8, loc="upper left")
picture(
    figure,
    "The unit circle, and a vector x at 40 degrees from the key k, under the factor. At β of a half the circle is an "
    "ellipse, half as long along k. At 1 it is a line at right angles to k. At 2 it is a circle again, mirrored, which "
    "no β up to 1 reaches. So as β grows to 1, x turns away from k and becomes shorter.",
    ["β", "eigenvalue along k", "length of x afterwards", "x is turned by"],
    [
        [f"{beta:g}", f"{1 - beta:g}", f"{image.norm():.3f}", f"{turned(image):.1f}°"]
        for beta in (0.0, 0.5, 1.0)
        for image in [delta_rule.householder(key, torch.tensor(beta)) @ x]
    ],
)

# %% [markdown]
# **With β from 0 to 1 nothing ever reflects.** The model's β is a sigmoid: it shrinks or erases. A
# text multiplies one factor a token, later ones further left. With keys of length 1 no such product
# makes anything longer, however long the text, so the state can't blow up. That is why the model
# divides its keys by their length:

# %%
show(delta_rule.unit)


# %%
def nothing_grows(unit):
    key, beta = unit(torch.randn(500, K)), torch.rand(500)
    growth = torch.linalg.matrix_norm(delta_rule.householder_product(key, beta), 2)
    assert growth <= 1, f"after 500 tokens some direction is {growth:.1e} times as long"


nothing_grows(delta_rule.unit)

# %% [markdown]
# ### Break it
#
# The division left out. Keys of eight random numbers have a squared length of about 8.

# %%
raw = broken(delta_rule.unit, "torch.rsqrt(wide.square().sum(-1, keepdim=True) + 1e-6)", "1")
with fails():
    nothing_grows(raw)

# %% [markdown]
# A key that is too long overshoots, each time further than the last. Here is the value 1, written
# again and again under one key with $\beta = 0.5$. What counts is the eigenvalue $1 - \beta |k|^2$:

# %%
steps, recalls = 20, {}
for squared in (1, 3, 4, 8):
    key = same_key(steps, squared**0.5)
    answers, _ = delta_rule.recurrent(
        key, key, torch.ones(1, steps, 1, 1), beta=along_time(*[0.5] * steps)
    )
    recalls[squared] = answers.flatten()
assert recalls[8][:4].round().tolist() == [4, -8, 28, -80]
assert f"{recalls[8][-1]:.1e}" == "-3.5e+09"

# %% [drawing]
figure, axes = drawing(7, 3.6)
for (squared, answers), look in zip(recalls.items(), (BLUE, GREEN, PURPLE, ORANGE), strict=True):
    name = f"|k|² = {squared}: eigenvalue {1 - 0.5 * squared:g}"
    axes.plot(range(1, steps + 1), answers, markersize=5, label=name.replace("-", "−"), **look)
axes.set_yscale("symlog", linthresh=2)
axes.set(
    title="Recall of the value 1, written 20 times",
    xlabel="writes",
    ylabel="answer (log scale beyond ±2)",
)
axes.set_xticks([1, 5, 10, 15, 20])
axes.set_yticks([-1e9, -1e6, -1e3, 0, 1e3, 1e6, 1e9])
axes.legend(loc="lower left", fontsize=8)
picture(
    figure,
    "Recall against the number of writes. With a squared length of 1 the answer creeps up to 1. With 3 it swings and "
    "settles at 1. With 4 it jumps between 2 and 0 for ever. With 8 it swings ever further, beyond a thousand million.",
    ["squared length of k", "eigenvalue", "after 1 write", "2", "3", "4", "20"],
    [
        [squared, f"{1 - 0.5 * squared:g}", *(f"{answers[i - 1]:.4g}" for i in (1, 2, 3, 4, 20))]
        for squared, answers in recalls.items()
    ],
)

# %% [markdown]
# ## Three questions
#
# **1.** Keys are unit vectors, $\beta = 1$. Token 7 writes under a key at right angles to all
# others. Which answers does it change?
#
# <details><summary>Answer</summary>
#
# Its own only. Writing under $k$ changes the answer to $k'$ by $(k' \cdot k)$ times what is
# written, and that is 0 at right angles.
#
# </details>
#
# **2.** $\beta = 0.5$ at every token. How many times must a value be written under a unit key until
# less than a hundredth of it is missing?
#
# <details><summary>Answer</summary>
#
# 7 times. Each write halves what is missing: $0.5^6$ is 1/64, and $0.5^7$ is 1/128.
#
# </details>
#
# **3.** Someone lets β go up to 2, "since eigenvalues of −1 don't grow either". What could such a
# layer do that this one can't?
#
# <details><summary>Answer</summary>
#
# Swap. With $\beta = 2$ the factor mirrors: what stood at $k$ comes back with the other sign,
# nothing is lost, and mirroring again undoes it. A factor with β up to 1 can only keep or lose.
# Counting whether something came an even or an odd number of times needs the mirror. The released
# model does without.
#
# </details>
