# %% [markdown]
# # 3 · Gating: a state that fades
#
# **At the end you can**
#
# - say what the gate α does that the strength β can't;
# - work out how long a fact survives under a given trace of α and β;
# - say in which order decay, prediction and write must come, and which test would miss a wrong order.
#
# Before it: [the delta rule](02_delta_rule.ipynb), which forgets only what it overwrites.

# %%
import math

import torch
from lesson import BLUE, GREEN, ORANGE, PURPLE, broken, close, drawing, fails, picture, show, table

from minivl.config import DecoderConfig
from minivl.layers.gated_deltanet import GatedDeltaNet
from minivl.ops import delta_rule, gated_delta_rule

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## One factor more
#
# A state that only the delta rule changes never empties: a fact goes when another key overwrites
# it, and not before. **The gate multiplies the whole state by $\alpha_t$ before each token.** It
# decays first, and the prediction is read from the decayed state:
#
# $$S'_t = \alpha_t S_{t-1} \qquad \delta_t = \beta_t \, (v_t - S_t'^\top k_t) \qquad S_t = S'_t + k_t \delta_t^\top$$
#
# $\alpha_t$ lies from 0 to 1: near 1 it is a slow leak, at 0 a fresh start. Code passes its
# logarithm, `log_decay`, which is 0 or below, since products of decays are then sums. This is the
# memory of 27 of the released model's 36 layers.

# %%
show(gated_delta_rule.recurrent)

# %% [markdown]
# Two claims. With $\alpha = 1$ it is the delta rule. And with $\beta = 1$ a key answers its newest
# value, *whatever has faded*, because the token writes what is missing from the faded answer.


# %%
def along_time(*numbers):
    """A number a token, as [B, T, H]."""
    return torch.tensor(numbers)[None, :, None]


def newest_value_comes_back(form, alpha):
    key = torch.tensor([1.0, 0.0]).expand(1, 2, 1, 2)
    value, beta = along_time(1.0, 5.0)[..., None], along_time(1.0, 1.0)
    log_decay = along_time(alpha, alpha).log()
    answers = form(key, key, value, log_decay=log_decay, beta=beta)[0].flatten()
    answers = [round(answer, 9) for answer in answers.tolist()]
    assert answers == [1.0, 5.0], (
        f"1 and then 5 were written under one key, and it answers {answers}"
    )


newest_value_comes_back(gated_delta_rule.recurrent, alpha=0.5)

T, K, V = 40, 8, 5
q, k, v = torch.randn(1, T, 1, K), delta_rule.unit(torch.randn(1, T, 1, K)), torch.randn(1, T, 1, V)
beta = torch.rand(1, T, 1)
gated, gated_end = gated_delta_rule.recurrent(q, k, v, log_decay=torch.zeros(1, T, 1), beta=beta)
plain, plain_end = delta_rule.recurrent(q, k, v, beta=beta)
assert close(gated, plain)
assert close(gated_end, plain_end)

# %% [markdown]
# ### Break it
#
# The most usual mistake swaps two lines: predict first, decay afterwards.

# %%
decay = "state = log_decay[:, t, :, None, None].exp() * state"
predict = 'found = torch.einsum("BHKV,BHK->BHV", state, k[:, t])'
line = "\n        "
late = broken(gated_delta_rule.recurrent, decay + line + predict, predict + line + decay)
with fails():
    newest_value_comes_back(late, alpha=0.5)

# %% [markdown]
# The second token found 1, where only 0.5 was going to be left. It wrote 4, and 0.5 + 4 is 4.5.
# **And a test without decay sees nothing:**

# %%
newest_value_comes_back(late, alpha=1.0)

# %% [markdown]
# ## One fact's survival
#
# A fact is written at token 0, with $\beta = 1$. Then come 120 other tokens, with random unit keys
# of width 32, and we ask for the fact after each of them. Four ways to set the gates:
#
# - **everything is written**: $\alpha = 1$, and $\beta = 1$ for the other tokens too;
# - **everything fades**: $\alpha = 0.98$, and the others write nothing;
# - **chosen**: $\alpha = 1$, and the others are judged unimportant, $\beta = 0.03$;
# - **chosen, then a new scene**: the same, but $\alpha = 0$ at token 80.

# %%
T, K, trials = 121, 32, 100
key = torch.nn.functional.normalize(torch.randn(trials, T, 1, K), dim=-1)
value = torch.zeros(trials, T, 1, 1)
value[:, 0] = 1  # the fact; what the others write is no concern of this channel
ask = key[:, :1].expand(-1, T, -1, -1)  # every token asks for the fact


def traces(alpha, beta, reset=None):
    alpha, beta = torch.full((T,), alpha), torch.full((T,), beta)
    beta[0] = 1.0
    if reset is not None:
        alpha[reset] = 0.0
    return alpha, beta


WAYS = {
    "everything is written": (*traces(1.0, 1.0), BLUE),
    "everything fades": (*traces(0.98, 0.0), ORANGE),
    "chosen": (*traces(1.0, 0.03), GREEN),
    "chosen, then a new scene": (*traces(1.0, 0.03, reset=80), PURPLE),
}


def survival(form, alpha, beta):
    """How much of the fact is recalled after each token, a mean over the trials."""
    gates = {"log_decay": alpha.log(), "beta": beta}
    gates = {name: gate[None, :, None].expand(trials, -1, 1) for name, gate in gates.items()}
    return form(ask, key, value, **gates)[0].mean((0, 2, 3))


recalled = {name: survival(gated_delta_rule.chunked, *way[:2]) for name, way in WAYS.items()}

# %% [drawing]
figure, panels = drawing(8.6, 6.4, rows=3, sharex=True, height_ratios=(2, 2, 4))
for offset, (name, (alpha, beta, look)) in enumerate(WAYS.items()):
    for axes, trace in zip(panels, (alpha, beta, recalled[name]), strict=True):
        axes.plot(trace, markevery=(5 * offset, 20), markersize=5, label=name, **look)
panels[0].set(title="α, how much of the state is kept", ylabel="α", ylim=(-0.08, 1.1))
panels[1].set(title="β, how much is written", ylabel="β", ylim=(-0.08, 1.1))
panels[2].set(
    title="What is left of the fact", xlabel="token", ylabel="recalled, of 1", ylim=(-0.04, 1.05)
)
panels[2].legend(loc="upper right", bbox_to_anchor=(1, 0.72))
picture(
    figure,
    "Three panels over 120 tokens: α, β, and how much of the fact is recalled, for four ways. Where everything is "
    "written, the fact is gone after some hundred tokens. Where everything fades, it goes as smoothly. Where the "
    "others hardly write, most of it stays. A single α of 0 at token 80 ends it at once.",
    ["recalled after", *WAYS],
    [
        [f"{t} tokens", *(f"{recalled[name][t].abs():.2f}" for name in WAYS)]
        for t in (0, 20, 60, 79, 80, 120)
    ],
)

# %% [markdown]
# Each curve is a product that can be written down. A decay multiplies the fact by $\alpha_t$,
# exactly. A write under a random key erases, on average, the share $\beta_t / 32$ of it, because a
# unit key has $1/32$ of its squared length in any one direction.


# %%
def survives_as_predicted(form):
    for name, (alpha, beta, _) in WAYS.items():
        kept = alpha * (1 - beta / K)
        kept[0] = 1.0  # the token that writes the fact
        far = (survival(form, alpha, beta) - kept.cumprod(0)).abs().max()
        assert far < 0.05, f"{name}: the recall is {far:.2f} away from the product"


survives_as_predicted(gated_delta_rule.chunked)
fading = recalled["everything fades"]
assert close(fading, 0.98 ** torch.arange(T))  # no write, so the product is exact
assert (recalled["chosen, then a new scene"][80:] == 0).all()  # α = 0 leaves nothing at all
assert recalled["chosen"][120] > 0.85

# %% [markdown]
# ### Break it
#
# The exponential forgotten, so that $\log \alpha$ multiplies the state. Would the first assertion
# see it? It doesn't, since the newest value comes back whatever the state was. This one does.

# %%
wrong = broken(
    gated_delta_rule.recurrent,
    "log_decay[:, t, :, None, None].exp() * state",
    "log_decay[:, t, :, None, None] * state",
)
newest_value_comes_back(wrong, alpha=0.5)
with fails():
    survives_as_predicted(wrong)

# %% [markdown]
# ## What the gate is for
#
# β alone can keep a fact. Then why α? A state that is full of an old scene is in the way of a new
# one. Here 32 facts of an old scene are followed by 24 of a new one, all with $\beta = 1$. Asked
# for the new ones, with and without one token that starts afresh:

# %%
old, new = 32, 24
key, T = delta_rule.unit(torch.randn(300, old + new, 1, K)), old + new
label = torch.randint(64, (300, T))
value = torch.nn.functional.one_hot(label, 64).double()[:, :, None]
results = {}
for name, alpha in (("kept", 1.0), ("faded to a tenth", 0.1), ("forgotten", 0.0)):
    log_decay = torch.zeros(300, T, 1)
    log_decay[:, old] = math.log(alpha) if alpha else -torch.inf
    _, state = gated_delta_rule.chunked(
        key, key, value, log_decay=log_decay, beta=torch.ones(300, T, 1)
    )
    answer = torch.einsum("BHKV,BTHK->BTHV", state, key[:, old:])[:, :, 0]
    error = (answer - value[:, old:, 0]).norm(dim=-1).mean().item()
    results[name] = (answer.argmax(-1) == label[:, old:]).double().mean().item(), error

table(
    ["the old scene is", "new facts recalled", "error of the answers"],
    [[name, f"{right:.2f}", f"{error:.2f}"] for name, (right, error) in results.items()],
)
assert results["forgotten"][1] < results["kept"][1]
assert results["forgotten"][0] > results["kept"][0]

# %% [markdown]
# A write must correct what old facts answer under its key, and each correction spills over to its
# neighbours. With the old scene gone there is less to correct.
#
# ## The layer's own gates
#
# In the layer each token chooses its gates, one pair for each head:
#
# $$\beta_t = \sigma(W_b x_t) \qquad\qquad \log \alpha_t = -e^{A} \cdot \text{softplus}(W_a x_t + b)$$

# %%
show(GatedDeltaNet.gates)

# %% [markdown]
# A fact halves every $\ln 2 / {-\log \alpha}$ tokens, and small differences near 1 are everything.
# When a full-attention teacher is distilled, $W_a$, $W_b$ and $A$ start at 0, and $b$ is such that
# its softplus is 0.001:

# %%
layer = GatedDeltaNet(DecoderConfig())
with torch.no_grad():
    for parameter in (layer.a_proj.weight, layer.b_proj.weight, layer.A_log):
        parameter.zero_()
    layer.dt_bias.fill_(math.log(math.expm1(0.001)))
    gates = layer.gates(torch.randn(1, 1, 2048))
alpha, half_life = (
    gates["log_decay"][0, 0, 0].exp().item(),
    math.log(2) / -gates["log_decay"][0, 0, 0].item(),
)
assert (gates["beta"] == 0.5).all()
assert round(half_life) == 693

print(f"a distilled layer starts with α = {alpha:.4f}: a fact halves every {half_life:.0f} tokens")
table(
    ["α", "a fact halves every … tokens", "left after 100 tokens", "left after 8,192"],
    [
        [alpha, f"{math.log(2) / -math.log(alpha):,.1f}", f"{alpha**100:.1e}", f"{alpha**8192:.1e}"]
        for alpha in (0.9, 0.99, 0.999, 0.9999)
    ],
)

# %% [markdown]
# ## Three questions
#
# **1.** A head has $\alpha = 0.99$ at each token. A fact was written 69 tokens ago with $\beta =
# 1$, and nothing since. What does it answer?
#
# <details><summary>Answer</summary>
#
# Half of its value: the table says that it halves every 69.0 tokens.
#
# </details>
#
# **2.** Can a layer tell by its answer alone whether a fact faded, or was written with a small β?
#
# <details><summary>Answer</summary>
#
# No. Both leave the same direction, shorter. That is one reason why the layer norms what it reads:
# the length carries no reliable message, the direction does.
#
# </details>
#
# **3.** You want to test an implementation of this rule. Which four things must your input have so
# that a wrong order, a lost exponential and a lost state can't hide?
#
# <details><summary>Answer</summary>
#
# α well below 1, and different from token to token; β below 1; a starting state that isn't zero;
# and keys that come again. With α = 1 the wrong order passed, with one chunk and a zero state a
# lost state would, and with keys that never meet nothing is ever predicted.
#
# </details>
