# %% [markdown]
# # 11 · Three stages: a student of a teacher
#
# **At the end you can**
#
# - write what each stage of training minimises, and say what stands still meanwhile;
# - say why a step's sum is divided once, and which test sees a mean of means;
# - say why a student's layer is given its teacher's input, and what is lost if it isn't;
# - name all that a run must keep so that a kill changes nothing, and say what a stage was worth.
#
# Before it: [the hybrid block](06_hybrid_block.ipynb).

# %%
import contextlib
import dataclasses
import re
import tempfile
from functools import partial
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import torch
from lesson import (
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

import minivl
from minivl.checkpoint import load_model, save_model
from minivl.model import InfiniteVL
from minivl.train import freezing, handing_over, lora, losses, objectives, resuming, stages, trainer
from minivl.train.encoded import with_vectors
from minivl.train.examples import collate
from minivl.train.objectives import AnswerTuning, LayerDistillation, LogitDistillation
from minivl.train.progress import rows
from minivl.train.settings import PAPER, Settings
from minivl.train.sources import Conversations, Shuffled
from minivl.train.student import student_config, student_from
from minivl.train.tiny_world import TinyWorld

home = tempfile.TemporaryDirectory()
place = Path(home.name)

# %% [markdown]
# ## A teacher, and its student
#
# A model that attends to everything, in every layer, has learnt for months. **Its student keeps all
# that it knows but for one thing: in three layers of four, the mixer becomes a Gated DeltaNet.** The
# new mixers know nothing. Three stages teach them, and each starts from what the one before has left.
#
# Here it is done in seconds, with the first block of the tiny model. That is a student already, so we
# make a teacher of it: full attention in all four layers, with the window layer's weights, and then a
# moment of practice with questions about drawn pictures. It is no good teacher, and need not be one:
# a student is to do what its teacher does.

# %%
tiny, processor = minivl.load("tiny", device="cpu", dtype=torch.float32)
world = TinyWorld("train", seed=0, kinds=["colour", "shape", "count", "corner"])
world = Conversations(world, processor)
examples = with_vectors(tiny, [world[number] for number in range(104)])  # frozen eyes look once
data, others = Shuffled(examples[:96]), examples[96:]
lengths = sorted({len(one.ids) for one in others})  # in a batch of one length nothing is filled up
held_out = [
    collate([one for one in others if len(one.ids) == length], tiny.config) for length in lengths
]

layer_types = tiny.config.layer_types[:4]  # its first block, which is quick
windows = [n for n, kind in enumerate(layer_types) if kind == "sliding_attention"]
linear = [n for n, kind in enumerate(layer_types) if kind == "linear_attention"]
full = ("full_attention",) * len(layer_types)
with torch.device("meta"):
    teacher = InfiniteVL(dataclasses.replace(tiny.config, layer_types=full))
mixer, weights = re.compile(r"layers\.\d+\.self_attn"), tiny.state_dict()
weights = {
    name: weights[mixer.sub(f"layers.{windows[0]}.self_attn", name)].clone()
    for name in teacher.state_dict()
}
teacher.load_state_dict(weights, assign=True)
save_model(teacher, place / "start", processor_from="tiny")

cpu = {"device": "cpu", "quiet": True}
practice = Settings(steps=24, batch=8, at_once=8, learning_rate=2e-3)
practised = stages.teach(
    place / "start", data, place / "teacher", practice, learns=("attention mixers",), **cpu
)
teacher = load_model(practised.folder, device="cpu").requires_grad_(False)
student = student_from(teacher, student_config(teacher.config))
print(*student.config.layer_types, sep=", ")
print(
    f"practice: a loss of {fmean(practised.losses[:10]):.2f}, then {fmean(practised.losses[-10:]):.2f}"
)

# %% [markdown]
# Everything else is the teacher's, bit for bit. A window layer *is* the teacher's layer, as long as
# what it reads fits its window.

# %%
given, taken = teacher.state_dict(), student.state_dict()
fresh = {name for name in taken if name not in given or not torch.equal(taken[name], given[name])}
assert {freezing.part_of(name, student.config) for name in fresh} == {"linear mixers"}

# %% [markdown]
# ## The three stages
#
# | stage | minimises | over |
# |---|---|---|
# | 1a | $\frac1L \sum_l \lvert f_l(x_l) - f^\star_l(x_l) \rvert^2 / D$, with $x_l$ the teacher's own input | tokens |
# | 1b | $\tau^2 \text{KL}(\text{softmax}(z^\star / \tau) \Vert \text{softmax}(z / \tau))$ | tokens |
# | 2 and 3 | $-\log \text{softmax}(z)_\text{next}$ | tokens of answers |
#
# A star marks what is the teacher's: $f^\star_l$ its layer $l$, $z^\star$ its scores of the next
# word. A chosen part of the weights learns in each stage, and a frozen weight gets no gradient:

# %%
show(freezing.freeze)

# %%
lines = []
for stage, learns in freezing.LEARNS.items():
    model = student_from(teacher, student_config(teacher.config))
    model = lora.adapt(model, rank=4) if stage == "long" else model
    counts = freezing.freeze(model, learns)
    LogitDistillation(model, teacher)(held_out[0]).backward()
    learning = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert {freezing.part_of(name, model.config) for name in learning} <= set(learns)
    number, whole = sum(count.learns for count in counts), sum(count.numbers for count in counts)
    own = PAPER.get(stage, {})
    told = "everything" if stage == "teacher" else ", ".join(learns)
    paper = f"{own['learning_rate']:g}, {own['batch']}" if own else "—"
    lines.append([stage, told, f"{number:,} ({number / whole:.0%})", paper])
table(["stage", "learns", "numbers that learn here", "the paper's rate and batch"], lines)

# %% [markdown]
# ## 1a: layer by layer
#
# The teacher reads once. **Each of the student's layers gets what the teacher's layer got, and is to
# give what it gave**, residual and feed-forward included. So all layers learn at once, and none
# suffers from what another has not learnt yet.

# %%
show(losses.layer_distance, objectives.layers_at_work, LayerDistillation.forward)

# %% [markdown]
# Watch it. The number is the share of what a teacher's layer does that the student's layer misses,
# on pictures which it has not learnt from.


# %%
@torch.no_grad()
def missed(model, *, alone=False):
    """Of each layer: |student's output − teacher's|² as a share of what the teacher's layer adds to
    its input. `alone`: the model reads on its own, and its errors go from layer to layer."""
    distance, change = torch.zeros(2, len(full))
    for batch, right in zip(held_out, taught, strict=True):
        own = objectives.layers_at_work(model, batch) if alone else None
        for number, (x, out) in enumerate(right):
            layer = model.model.language_model.layers[number]
            found = own[number][1] if alone else layer(x, positions=batch.positions)
            distance[number] += losses.layer_distance(found, out)
            change[number] += losses.layer_distance(x, out)
    return distance / change


def train(objective, name, steps, *, batch=8, seed=0, stepped=lambda step, loss: None):
    freezing.freeze(objective.student, ("linear mixers",))
    rate = {"learning_rate": 2e-3, "warmup": 0.25}
    settings = Settings(steps=steps, batch=batch, at_once=batch, seed=seed, **rate)
    trainer.train(objective, data, place / name, settings, quiet=True, stepped=stepped)


taught = [objectives.layers_at_work(teacher, batch) for batch in held_out]
before, curve = missed(student, alone=True), {0: missed(student)}


def watch(step, loss):
    if step % 4 == 0:
        curve[step] = missed(student)


train(LayerDistillation(student, teacher), "by layer", 16, stepped=watch)
after, steps = missed(student, alone=True), list(curve)
assert all((line[windows] == 0).all() for line in curve.values())  # each reads within its window
assert (curve[16][linear] < 0.5 * curve[0][linear]).all()
assert (after[linear] < before[linear]).all()

# %% [drawing]
figure, (left, right) = drawing(8.6, 3.7, columns=2)
for number, look in zip(linear, (BLUE, ORANGE, GREEN), strict=True):
    left.plot(steps, [curve[step][number] for step in steps], label=f"layer {number}", **look)
left.set(
    title="Each on the teacher's input",
    xlabel="steps of stage 1a",
    xticks=steps,
    ylabel="share missed",
    ylim=(0, None),
)
left.legend()
places = torch.arange(1, len(full))
for shift, label, found, look, hatch in (
    (-0.18, "on the teacher's input", curve[16], GREEN, ""),
    (0.18, "the student on its own", after, PURPLE, "//"),
):
    drawn = {"color": look["color"], "hatch": hatch, "edgecolor": "white"}
    bars = right.bar(places + shift, found[1:], 0.34, label=label, **drawn)
    right.bar_label(bars, fmt="%.2f")
right.set(
    title="After 16 steps",
    xlabel="behind layer",
    ylabel="share missed",
    xticks=places,
    ylim=(0, 1.35 * float(max(after[1:].max(), curve[16][1:].max()))),
)
right.legend(fontsize=9, loc="upper left")
worse = "larger than" if after[-1] > curve[16][-1] else "no larger than"
picture(
    figure,
    f"On the left, what each of {len(linear)} linear layers misses of its teacher's work falls over 16 steps, in all "
    "at once. On the right, bars: what is missed when the student reads on its own, layer after layer. Behind the "
    f"last layer it is {after[-1]:.2f}, {worse} the {curve[16][-1]:.2f} that this layer misses on its teacher's input; "
    f"before training it was {before[-1]:.2f}.",
    ["layer", *(f"step {step}" for step in steps), "alone, before", "alone, after"],
    [
        [
            number,
            *(f"{curve[step][number]:.3f}" for step in steps),
            f"{before[number]:.3f}",
            f"{after[number]:.3f}",
        ]
        for number in range(len(full))
    ],
)

# %% [markdown]
# On the right is what stage 1a doesn't see: on its own, the student gives each layer what the layers
# before made of it, and no layer was ever shown such an input. That is what 1b is for.
#
# That errors stay where they are can be tested. Spoil two layers: the loss grows by what each alone
# would have added, exactly.


# %%
@torch.no_grad()
def errors_stay(form, batch=held_out[0]):
    def loss(*spoilt):
        model = student_from(teacher, student_config(teacher.config)).double()
        for number in spoilt:
            model.model.language_model.layers[number].self_attn.o_proj.weight.mul_(5)
        return form(LayerDistillation(model, exact), batch)

    first, second = linear[:2]
    none, one, other, both = loss(), loss(first), loss(second), loss(first, second)
    excess = float((both - none) / (one - none + other - none))
    assert abs(excess - 1) < 1e-9, (
        f"two spoilt layers cost {excess:.2f} times what they cost one by one"
    )


exact = load_model(practised.folder, device="cpu").double().requires_grad_(False)
errors_stay(LayerDistillation.forward)

# %% [markdown]
# ### Break it
#
# The likeliest mistake: the student's layers feed one another, and only their outputs are compared.

# %%
feeds_itself = broken(
    LayerDistillation.forward,
    "layers_at_work(self.teacher, batch)",
    "student_s_own(self, batch)",
    student_s_own=lambda self, batch: [
        (x, out)
        for (x, _), (_, out) in zip(
            objectives.layers_at_work(self.student, batch),
            objectives.layers_at_work(self.teacher, batch),
            strict=True,
        )
    ],
)
with fails():
    errors_stay(feeds_itself)

# %% [markdown]
# ## 1b: word by word
#
# The student reads on its own, and what it expects next is held against what the teacher expects,
# at every token: not the best word only, but how likely each one is. A student that is sure where its
# teacher isn't costs more than the other way round. A temperature $\tau$ above 1 flattens both, so that
# unlikely words count for more.

# %%
show(losses.divergence)


# %%
def size_of_gradient(form, temperature):
    scores = wanted + 0.1 * torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    scores.requires_grad_(True)
    form(scores, wanted, temperature=temperature).backward()
    return float(scores.grad.norm())


def a_temperature_keeps_the_gradient(form):
    """Where both are flat, a still higher temperature changes nothing."""
    growth = size_of_gradient(form, 400.0) / size_of_gradient(form, 200.0)
    assert 0.9 < growth < 1.1, (
        f"twice the temperature makes the gradient {growth:.2f} times as long"
    )


with torch.no_grad():
    wanted = teacher(held_out[0].ids, **held_out[0].arguments)[0].double()
apart = wanted + torch.randn(wanted.shape, dtype=torch.float64)
p, q = wanted.softmax(-1), apart.softmax(-1)
assert close(losses.divergence(apart, wanted), (p * (p / q).log()).sum())
assert losses.divergence(wanted, wanted) == 0
assert losses.divergence(apart, wanted) > 0
sure, unsure = torch.tensor([[6.0, 0.0, 0.0]]), torch.zeros(1, 3)
assert losses.divergence(sure, unsure) > 2 * losses.divergence(unsure, sure)  # it is no distance
a_temperature_keeps_the_gradient(losses.divergence)

# %% [markdown]
# ### Break it
#
# A gradient through $z/\tau$ is $\tau$ times shorter, and the difference of the two flattened
# distributions is so once more. $\tau^2$ makes up for it. Without it:

# %%
without = broken(losses.divergence, "temperature**2 * ", "")
with fails():
    a_temperature_keeps_the_gradient(without)

# %% [markdown]
# With $\tau = 1$, the paper's choice, the same line would pass every test.
#
# ## A sum, divided once
#
# A step of 64 long examples doesn't fit into memory, so it goes through in passes, on several
# machines. **Whatever the cut, the gradient must be that of the whole step.** So each pass gives a
# *sum*, and the divisor is counted over all passes first:
#
# $$\text{loss} = \frac{\sum_\text{passes} \sum_\text{tokens} \ell}{\sum_\text{passes} \text{tokens}}
# \qquad\text{and not}\qquad \frac{1}{\text{passes}} \sum_\text{passes}
# \frac{\sum_\text{tokens} \ell}{\text{tokens}}$$

# %%
show(trainer.gradients)


# %%
CUTS = {"6 at once": 6, "3 and 3": 3, "2, 2 and 2": 2, "one by one": 1}


def a_cut_changes_nothing(name):
    """One step on the same six examples, answers of 2 and of 3 tokens among them, cut in four ways."""
    lengths = {}
    for cut, at_once in CUTS.items():
        model = load_model(practised.folder, device="cpu").double()
        freezing.freeze(model, ("attention mixers",))
        settings = Settings(steps=1, batch=6, at_once=at_once)
        out = place / f"{name}, {cut}"
        trainer.train(AnswerTuning(model), data, out, settings, quiet=True)
        lengths[cut] = float(rows(out / trainer.LOG)[0]["gradient"])
    table(["passes", "length of the gradient"], [[cut, f"{x:.9f}"] for cut, x in lengths.items()])
    apart = max(lengths.values()) / min(lengths.values()) - 1
    assert apart < 1e-6, f"the gradient's length differs by {apart:.1%} between two cuts"


a_cut_changes_nothing("sums")

# %% [markdown]
# ### Break it
#
# A mean of means, which is what many a training loop has. An answer of two tokens in a pass of its
# own now weighs as much as one of three.

# %%
mean_of_means = broken(
    trainer.gradients, "group.count / units", "group.count / objective.units(batch) / len(batches)"
)
with patch.object(trainer, "gradients", mean_of_means), fails():
    a_cut_changes_nothing("means")

# %% [markdown]
# **A test with answers of one length sees nothing.** Nor does the loss in the log, which is right.
#
# ## What is a stage worth?
#
# Stage 1b could do all of it, since the whole student learns from it. Is 1a worth its steps? One
# curve would tell nothing: a budget must be the same, and there must be more than one seed. So:
# three students with 8 steps of 1a and 8 of 1b, and three with 16 of 1b, each with first weights
# of its own.


# %%
@torch.no_grad()
def surprise(model):
    """KL to the teacher on held-out rows, a token."""
    objective = LogitDistillation(model, teacher)
    return float(sum(map(objective, held_out)) / sum(map(objective.units, held_out)))


SEEDS, BUDGET = 3, 16
ARMS = {"1a, then 1b": (BUDGET // 2, BLUE), "1b only": (0, ORANGE)}
runs = {}
for name, (first, _) in ARMS.items():
    for seed in range(SEEDS):
        model = student_from(teacher, student_config(teacher.config), seed=seed)
        line = {0: surprise(model)}

        def note(step, loss, *, model=model, line=line, offset=0):
            if step % 4 == 0:
                line[offset + step] = surprise(model)

        if first:
            by_layer = LayerDistillation(model, teacher)
            train(by_layer, f"{name}, {seed}, 1a", first, batch=4, seed=seed, stepped=note)
        by_word, later = LogitDistillation(model, teacher), partial(note, offset=first)
        train(by_word, f"{name}, {seed}, 1b", BUDGET - first, batch=4, seed=seed, stepped=later)
        runs[name, seed] = line

ends = {name: [runs[name, seed][BUDGET] for seed in range(SEEDS)] for name in ARMS}
halfway = {name: [runs[name, seed][BUDGET // 2] for seed in range(SEEDS)] for name in ARMS}
with_it, without_it = (fmean(ends[name]) for name in ARMS)
spread = max(max(found) - min(found) for found in ends.values())
assert all(ends[name][seed] < runs[name, seed][0] for name in ARMS for seed in range(SEEDS))
if abs(with_it - without_it) <= spread:
    verdict = "no difference that these seeds could show"
else:
    verdict = f"with 1a it is {'nearer to' if with_it < without_it else 'further from'} the teacher"
print(
    f"difference of the means {without_it - with_it:+.4f}, larger of the two ranges {spread:.4f}: {verdict}"
)

# %% [drawing]
figure, (axes, right) = drawing(8.6, 3.8, columns=2, width_ratios=(3, 2))
for place_of, (name, (_, look)) in enumerate(ARMS.items()):
    for seed in range(SEEDS):
        line = runs[name, seed]
        label = name if seed == 0 else None
        axes.plot(line.keys(), line.values(), label=label, markersize=5, linewidth=1, **look)
    right.plot([place_of] * SEEDS, ends[name], linestyle="", markersize=7, **look)
    right.hlines(fmean(ends[name]), place_of - 0.2, place_of + 0.2, color=look["color"])
axes.axvline(BUDGET / 2, color="#999999", linestyle=":")
axes.set(
    title="Three students with stage 1a, three without",
    xlabel="steps",
    ylabel="KL to the teacher, a token",
    yscale="log",
)
axes.legend()
right.set(
    title="Their ends, and the means",
    ylabel="KL to the teacher, a token",
    xlim=(-0.5, 1.5),
    xticks=range(len(ARMS)),
)
right.set_xticklabels(ARMS)
picture(
    figure,
    "On the left, KL to the teacher against steps for six students; on the right, how they end. After 8 steps it is "
    f"{fmean(halfway['1a, then 1b']):.3f} on average where these were steps of 1a, and {fmean(halfway['1b only']):.3f} "
    f"where they were steps of 1b. After 16 it is {with_it:.3f} and {without_it:.3f}; the larger of the two ranges "
    f"over seeds is {spread:.3f}: {verdict}.",
    ["student", *(f"step {step}" for step in next(iter(runs.values())))],
    [
        [f"{name}, seed {seed}", *(f"{value:.3f}" for value in line.values())]
        for (name, seed), line in runs.items()
    ],
)

# %% [markdown]
# Read it with care. A step of 1a costs less than one of 1b, since nothing goes back through the
# stack. Each stage begins with an empty optimiser and a rate of its own, so that the line may bend, or
# even rise, where the second begins. And 16 steps of a toy can't say what a hundred thousand do; the
# [page on the claims](../docs/claims.md) asks the same question of trained models.
#
# ## 3: long sequences, through thin matrices
#
# Stage 2 is plain: cross-entropy of answers, all mixers learn. For sequences of many thousand tokens
# there is no room for the optimiser's numbers, and little is to change. So each matrix is frozen, and
# a product of two thin ones learns beside it:
#
# $$\text{out} = W x + \tfrac{\text{alpha}}{\text{rank}} \, U (D x) \qquad\qquad \text{merged:}\quad W
# \leftarrow W + \tfrac{\text{alpha}}{\text{rank}} \, U D$$
#
# $U$ starts at zero, so the model starts as it was. **At the end it is a plain model again, which
# says the same.**

# %%
show(lora.Adapted.forward, lora.Adapted.merged)


# %%
def said(model):
    with torch.no_grad():
        return torch.cat([model(batch.ids, **batch.arguments)[0] for batch in held_out[:4]])


def merging_changes_nothing(seed=0):
    model = student_from(exact, student_config(exact.config))
    before, plain = said(model), {name: x.clone() for name, x in model.state_dict().items()}
    lora.adapt(model, rank=4)
    assert torch.equal(said(model), before), "it does not start as it was"
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, x in model.named_parameters():
            if name.endswith("lora_up"):  # as if it had learnt
                x.copy_(0.01 * torch.randn(x.shape, generator=generator, dtype=x.dtype))
    learnt = said(model)
    assert not close(learnt, before, 0.01)
    merged = lora.merge(model)
    assert {name: x.shape for name, x in merged.state_dict().items()} == {
        name: x.shape for name, x in plain.items()
    }
    name = "model.language_model.layers.1.self_attn.q_proj.weight"
    assert torch.linalg.matrix_rank(merged.state_dict()[name] - plain[name]) == 4
    apart = float((said(merged) - learnt).norm() / learnt.norm())
    assert apart < 1e-10, f"merged, it says something that is {apart:.1%} away"


merging_changes_nothing()

# %% [markdown]
# ### Break it
#
# The scale is left out when merging. And then: both thin matrices start at zero, for safety. It
# starts as it was, and it merges; but would it ever learn?

# %%
no_scale = broken(
    lora.Adapted.merged,
    "self.scale * (self.lora_up @ self.lora_down)",
    "self.lora_up @ self.lora_down",
)
with patch.object(lora.Adapted, "merged", no_scale), fails():
    merging_changes_nothing()


# %%
def adapters_can_learn(zero_both=False):
    model = lora.adapt(student_from(exact, student_config(exact.config)), rank=4)
    freezing.freeze(model, freezing.LEARNS["long"])
    if zero_both:
        for x in freezing.learning(model).values():
            x.data.zero_()
    AnswerTuning(model)(held_out[0]).backward()
    assert any(x.grad.any() for x in freezing.learning(model).values()), "every gradient is zero"


adapters_can_learn()
with fails():
    adapters_can_learn(zero_both=True)

# %% [markdown]
# The gradient of one factor is a product with the other. Where both are zero, both stay so.
#
# ## All stages, killed once
#
# Each stage leaves a checkpoint of the released form, with a note of what it is. A run of weeks is
# killed sooner or later. **What comes after a kill must be what would have come without it, bit for
# bit.** For that a checkpoint holds the weights that learn, the optimiser's two averages of each, and
# the states of random numbers; which examples come next, and at which rate, follows from the number
# of the step alone.

# %%
show(resuming.resume)


# %%
class Killed(Exception):
    pass


def die(step, loss):
    if step == 3:
        raise Killed


short = Settings(steps=2, batch=4, at_once=4)
stages.distil_layers(practised.folder, data, place / "1a", short, **cpu)
stages.distil_logits(place / "1a", practised.folder, data, place / "1b", short, **cpu)
run = Settings(steps=5, batch=4, at_once=4, learning_rate=1e-3, save_every=2)
whole = stages.tune(place / "1b", data, place / "2", run, **cpu)
last = stages.tune_long(place / "2", data, place / "3", short, rank=4, **cpu)
assert load_model(last.folder, device="cpu").config == student.config
tuned = load_model(whole.folder, device="cpu").state_dict()
learnt = {
    freezing.part_of(name, student.config)
    for name in given.keys() & tuned.keys()
    if not torch.equal(tuned[name], given[name])
}
assert learnt == set(freezing.LEARNS["tuning"])  # the rest is still the teacher's, bit for bit


def a_kill_changes_nothing(name):
    with contextlib.suppress(Killed):
        stages.tune(place / "1b", data, place / name, run, stepped=die, **cpu)
    again = stages.tune(place / "1b", data, place / name, run, **cpu)  # the same call
    lines = zip(whole.losses, again.losses, strict=True)
    table(
        ["step", "never killed", "killed after step 3"], [[n, *x] for n, x in enumerate(lines, 1)]
    )
    different = [step for step, x in enumerate(again.losses, 1) if x != whole.losses[step - 1]]
    assert not different, f"the losses differ from step {different[0]} on"
    assert handing_over.digest(again.folder) == handing_over.digest(whole.folder), "other weights"


a_kill_changes_nothing("killed")

# %% [markdown]
# The last checkpoint was that of step 2, so step 3 was done again. And a stage that is given what is
# not its predecessor's result says so:

# %%
try:
    stages.tune(place / "1a", data, place / "wrong", short, **cpu)
except ValueError as fault:
    print(str(fault).replace(str(place), "…"))

# %% [markdown]
# ### Break it
#
# The weights come back, but the optimiser's averages do not.

# %%
forgets = broken(resuming.resume, 'put(saved.tensors[f"{which}.{name}"], state[which])', "pass")
with patch.object(trainer, "resume", forgets), fails():
    a_kill_changes_nothing("killed and forgetful")

# %% [markdown]
# Such a run goes on and learns, and nobody would notice from a curve. Step 3 is still right, since a
# loss is known before its own step changes a weight.
#
# ## Three questions
#
# **1.** Why does 1a compare the output of the whole layer, feed-forward included, when only the mixer
# is new?
#
# <details><summary>Answer</summary>
#
# What counts is what the next layer gets. The feed-forward is frozen and the teacher's own, so it
# tells which errors of the mixer matter: those in directions that it amplifies cost more than others.
#
# </details>
#
# **2.** The released code's stage 1a has a factor of a thousand before the loss, and AdamW. What does it
# change?
#
# <details><summary>Answer</summary>
#
# Not AdamW's step, which is a ratio of averages, so that any factor cancels. But the gradient is
# first cut to a length of 1 at most, and a thousand times longer gradient is nearly always cut, a
# short one never. With the factor, steps of odd batches count for less.
#
# </details>
#
# **3.** A colleague shows that her new stage 1c lowers the loss by 2%: one run with it, one without.
# Which three things do you ask for?
#
# <details><summary>Answer</summary>
#
# The same budget for both, since 1c took steps that the other could have had. Several seeds for each,
# since two runs without 1c may differ by 2%, too. And a number that was decided on before, on rows
# that nothing has learnt from.
#
# </details>

# %%
home.cleanup()
