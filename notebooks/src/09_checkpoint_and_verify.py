# %% [markdown]
# # 9 · The checkpoint and verify: is it whole, and does every form agree?
#
# **At the end you can**
#
# - say what lies in a checkpoint's folder, and count the released model's tensors, parameters and
#   bytes from its config.json alone;
# - say which faults of a checkpoint are found when it is loaded, and which it takes a run to find;
# - hold your own form of a layer against its recurrence in float64, on the layer's own numbers, and
#   say what no such check can see.
#
# Before it: [chunks and the WY form](04_chunks_and_wy.ipynb) and [the hybrid
# block](06_hybrid_block.ipynb).

# %%
import json
import math
import shutil
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch
from lesson import BLACK, BLUE, GREEN, ORANGE, broken, close, drawing, fails, picture, show, table
from safetensors.torch import load_file, save_file

import minivl
from minivl import checkpoint, load_model, load_processor
from minivl.checkpoint import checkpoint_folder
from minivl.checkpoint_names import match, new_style, old_style
from minivl.commands.verify import check_model
from minivl.config import Config
from minivl.fake_weights import in_shards, specs_of, tiny_config, write_fake
from minivl.model import InfiniteVL
from minivl.ops import gated_delta_rule
from minivl.ops.sliding_window import Ring
from minivl.safetensors_reading import header
from minivl.verify.files import check_files, fault_of
from minivl.verify.layers import Probe
from minivl.verify.prompt import TEXT, prompt
from minivl.verify.report import Report, relative_error
from minivl.verify.whole import read_at_once

torch.manual_seed(0)
scratch = tempfile.TemporaryDirectory()  # gone with the notebook
home = Path(scratch.name)

# %% [markdown]
# ## A folder
#
# A checkpoint is a folder. The smallest one that there is to look at is the project's own tiny
# model.

# %%
ABOUT = {
    "config.json": "what the model is made of: widths, layers, special tokens",
    "model.safetensors": "its weights",
    "tokenizer.json": "words to numbers",
    "preprocessor_config.json": "pictures to patches",
    "training.json": "how it was trained; nobody needs it to load the model",
}
model, processor = minivl.load("tiny", device="cpu", dtype=torch.float32)
tiny = checkpoint_folder("tiny")
files = sorted(tiny.iterdir())
table(
    ["file", "bytes", "what"],
    [[file.name, f"{file.stat().st_size:,}", ABOUT.get(file.name, "")] for file in files],
)

# %% [markdown]
# **The file of weights is a length, a header, and bare numbers.** The length takes 8 bytes. The
# header is JSON, and says of each tensor its name, dtype, shape, and where it starts and ends.
# Nothing in such a file can run. A pickled one could, and is never opened.
#
# $$\text{bytes of the file} = 8 + \text{length} + \sum_{\text{tensors}} \text{bytes of a number}
# \cdot \prod \text{shape}$$
#
# So it can be read with no library for it at all:

# %%
content = (tiny / "model.safetensors").read_bytes()
length = int.from_bytes(content[:8], "little")
entries = json.loads(content[8 : 8 + length])
entries.pop("__metadata__", None)
WIDTH = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
DTYPE = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}

numbers = sum(WIDTH[entry["dtype"]] * math.prod(entry["shape"]) for entry in entries.values())
assert len(content) == 8 + length + numbers

for name, parameter in model.state_dict().items():
    entry = entries[name]
    start, end = entry["data_offsets"]
    bare = bytearray(content[8 + length + start : 8 + length + end])
    by_hand = torch.frombuffer(bare, dtype=DTYPE[entry["dtype"]]).view(entry["shape"])
    assert torch.equal(by_hand.to(parameter.dtype), parameter), name
print(f"{len(entries)} tensors, {length:,} bytes of header, {numbers:,} bytes of numbers")

# %% [markdown]
# The project reads the header in the same way, and lets the safetensors library check first that
# the file is sound. The numbers are then *mapped*, one tensor after the other, so that a checkpoint
# of any size goes through little memory.

# %%
show(header)

# %% [markdown]
# ## Two styles of names
#
# The model's parameters have the released names of the new style. transformers still writes an
# older one, with other prefixes. **Both must find the same parameters,** here all those of the
# released model, which is built on the *meta* device: shapes without numbers.

# %%
show(new_style, old_style)

# %%
released = Config()  # every default is the released 4B model's
with torch.device("meta"):
    shapes = {name: tuple(x.shape) for name, x in InfiniteVL(released).state_dict().items()}


def every_name_comes_home(new_style):
    for name in shapes:
        for stored in (name, old_style(name)):
            assert new_style(stored) == name, f"{stored} becomes {new_style(stored)}"


every_name_comes_home(new_style)
example = ("model.visual.merger.ln_q.weight", "model.language_model.layers.1.self_attn.A_log")
table(["new style", "old style"], [[f"`{name}`", f"`{old_style(name)}`"] for name in example])

# %% [markdown]
# ### Break it
#
# In both styles many names begin with `model.`, and they don't mean the same by it.

# %%
hasty = broken(new_style, " and not name.startswith(NEW_STYLE)", "")
with fails():
    every_name_comes_home(hasty)

# %% [markdown]
# ## Count the 4B
#
# The released weights are many gigabytes, and their shapes follow from a few numbers in
# config.json. With the letters of all notebooks ($D$ model width, $H$ heads, $K$ and $V$ widths of
# a key and a value), the mixer of a linear layer has
#
# $$\underbrace{2DHK}_{q,\,k} + \underbrace{3DHV}_{v,\ \text{gate},\ \text{out}} + \underbrace{2DH}_{\alpha,\,\beta}
# + \underbrace{4\,(2HK + HV)}_{\text{convolutions}} + \underbrace{2H + V}_{A_{\log},\ \text{time
# step},\ \text{norm}}$$
#
# parameters. The other parts are counted in the same way, and must come out as what the model
# really has:


# %%
def counted(config):
    """part: (how many there are, parameters of one), from the configuration alone."""
    D, H, layers = config.hidden_size, config.num_linear_heads, len(config.layer_types)
    K, V = config.linear_head_dim, config.linear_value_dim
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    window = D * queries + queries + 2 * (D * keys + keys) + queries * D
    matrices, convolutions = 2 * D * H * K + 3 * D * H * V, config.conv_size * H * (2 * K + V)
    linear = matrices + 2 * D * H + convolutions + 2 * H + V
    tower = config.vision
    width, inner, cell = tower.hidden_size, tower.intermediate_size, 4 * tower.hidden_size
    block = 2 * width + 4 * (width * width + width) + 3 * width * inner + 2 * inner + width
    merger = width + cell * cell + cell + cell * D + D
    return {
        "table of words": (1, config.vocab_size * D),
        "window mixers": (config.layer_types.count("sliding_attention"), window),
        "linear mixers": (config.layer_types.count("linear_attention"), linear),
        "feed-forwards": (layers, 3 * D * config.intermediate_size),
        "norms": (2 * layers + 1, D),
        "vision: patches": (1, tower.patch_width * width),
        "vision: blocks": (tower.depth, block),
        "vision: merger": (1, merger),
    }


PIECES = {  # the first one that is in a name tells what the parameter belongs to
    "visual.patch_embed": "vision: patches",
    "visual.blocks": "vision: blocks",
    "visual.merger": "vision: merger",
    "embed_tokens": "table of words",
    "mlp": "feed-forwards",
    "self_attn": "mixers",
    "norm": "norms",
}


def part_of(name, config):
    part = next(part for piece, part in PIECES.items() if piece in name)
    if part != "mixers":
        return part
    kind = config.layer_types[int(name.split(".")[3])]
    return {"sliding_attention": "window mixers", "linear_attention": "linear mixers"}[kind]


def counts_are_right(config, shapes):
    found = dict.fromkeys(counted(config), 0)
    for name, shape in shapes.items():
        found[part_of(name, config)] += math.prod(shape)
    assert found == {part: many * each for part, (many, each) in counted(config).items()}


counts_are_right(released, shapes)
counts_are_right(model.config, {name: x.shape for name, x in model.state_dict().items()})

parts = counted(released)
total = sum(many * each for many, each in parts.values())
table(
    ["part", "how many", "parameters of one", "in bfloat16, GB", "share"],
    [
        [part, many, f"{each:,}", f"{2 * many * each / 1e9:.3f}", f"{many * each / total:.1%}"]
        for part, (many, each) in parts.items()
    ],
)
print(f"in all {len(shapes)} tensors and {total:,} parameters")
print(f"in bfloat16 {2 * total:,} bytes, or {2 * total / 2**30:.2f} GiB")

# %% [markdown]
# Look where the weights are: more than half lie in the feed-forwards, and the linear mixers, which
# are what is new, take a fifth. A checkpoint of random weights in the released form (`python -m
# minivl fake-checkpoint DIR`) is planned from the same shapes. These would be its files, cut in
# two:

# %%
specs = specs_of(released, torch.bfloat16)
shards = in_shards(specs, 2)
assert sum(math.prod(shape) for _, shape in specs.values()) == total
table(
    ["shard", "tensors", "bytes of numbers", "the last of them"],
    [
        [
            number,
            len(shard),
            f"{sum(2 * math.prod(shape) for _, shape in shard.values()):,}",
            f"`{next(reversed(shard))}`",
        ]
        for number, shard in enumerate(shards, start=1)
    ],
)

# %% [markdown]
# **One table, used twice.** No `lm_head.weight` is in the list. The table that turns a word into a
# vector also scores what comes next, and config.json says so: `tie_word_embeddings`. Forwards and
# backwards,
#
# $$\text{scores} = \text{norm}(x) \, E^\top$$

# %%
assert not any("lm_head" in name for name in [*shapes, *entries])
words = processor([{"role": "user", "content": "What is in box K?"}]).ids
with torch.no_grad():
    x = model.read(words)
    decoder = model.model.language_model
    assert close(model.score(x), decoder.norm(x) @ decoder.embed_tokens.weight.mT, tolerance=1e-6)

# %% [markdown]
# ## What loading finds
#
# Names, shapes and dtypes are held against config.json, and every number is looked at once. **All
# faults are told in one sentence, and there is a model only if there are none.** Here are some,
# each planted into a copy of the tiny model:


# %%
def planted(name, changed):
    """A copy of the tiny model's folder with the tensors that `changed` makes of its own."""
    folder = home / name.replace(" ", "-")
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    save_file(changed(load_file(tiny / "model.safetensors")), folder / "model.safetensors")
    return folder


def loaded(folder):
    return load_model(folder, device="cpu", dtype=torch.float32)


def refused(folder):
    """The error's sentence, or None where the model is loaded."""
    try:
        loaded(folder)
    except (ValueError, OSError) as fault:
        return str(fault).replace(f"{folder}", "the folder")


LAYER = "model.language_model.layers.{}.{}"
GATE, NORM = LAYER.format(1, "mlp.gate_proj.weight"), LAYER.format(2, "input_layernorm.weight")
A_LOG, TABLE = LAYER.format(3, "self_attn.A_log"), "model.language_model.embed_tokens.weight"


def without(tensors, name):
    return {other: tensor for other, tensor in tensors.items() if other != name}


def with_nan(tensor):
    return tensor.index_fill(0, torch.tensor([3]), torch.nan)


FAULTS = {
    "a tensor is missing": lambda x: without(x, A_LOG),
    "a matrix is transposed": lambda x: x | {GATE: x[GATE].T.contiguous()},
    "a stranger": lambda x: x | {LAYER.format(4, "mlp.gate_proj.weight"): torch.ones(2, 2)},
    "a number is NaN": lambda x: x | {NORM: with_nan(x[NORM])},
    "whole numbers": lambda x: x | {NORM: x[NORM].int()},
    "a second table": lambda x: x | {"lm_head.weight": x[TABLE].roll(1, 0)},
    "names of both styles": lambda x: without(x, NORM) | {old_style(NORM): x[NORM]},
    "three at once": lambda x: without(
        x | {GATE: x[GATE].T.contiguous(), NORM: with_nan(x[NORM])}, A_LOG
    ),
}
sentences = {name: refused(planted(name, changed)) for name, changed in FAULTS.items()}
start = "the folder does not fit its config.json, or is damaged. "
assert all(said.startswith(start) for said in sentences.values())
table(
    ["planted", f"“{start}…”"],
    [[name, said.removeprefix(start)] for name, said in sentences.items()],
)

# %% [markdown]
# Where no header can be read, there is only one thing to tell:


# %%
def cut_off(weights):
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])


def only_pickled(weights):
    weights.rename(weights.with_name("pytorch_model.bin"))


for harm in (cut_off, only_pickled):
    folder = planted(harm.__name__, dict)
    harm(folder / "model.safetensors")
    print(refused(folder), end="\n\n")

# %% [markdown]
# And these are no faults: names of the old style, all of them, and a second table that is the
# first.

# %%
same = {
    "old style": lambda x: {old_style(name): tensor for name, tensor in x.items()},
    "the same table": lambda x: x | {"lm_head.weight": x[TABLE].clone()},
}
for name, changed in same.items():
    other = loaded(planted(name, changed)).state_dict()
    assert all(torch.equal(x, other[key]) for key, x in model.state_dict().items())

# %% [markdown]
# This is where the files' names meet the model's. Nothing stops at the first fault:

# %%
show(match)

# %% [markdown]
# ### Break it
#
# The second table isn't compared with the first. Then it is left aside, whatever it says, and its
# words are never used.


# %%
def two_truths_are_refused():
    said = refused(home / "a-second-table")
    assert said is not None, "of two different tables one was taken, and not a word said"


two_truths_are_refused()
trusting = broken(match, " and not _same(head[0], fitting[EMBEDDING].stored)", " and False")
with patch.object(checkpoint, "match", trusting), fails():
    two_truths_are_refused()

# %% [markdown]
# ## What only verify finds
#
# All that was about form. A layer whose gate is gone, a tower that was never written, a kernel that
# rounds where it shouldn't: such a model is loaded without a word, and speaks, only worse. That is
# what `python -m minivl verify --model DIR` is for. It looks at files, at layers, and at the whole.
#
# **1. The files, once more.** A matrix that is one number everywhere, or has the same row again and
# again, was never trained; nor was a norm of zeros. And how much longer or shorter a matrix makes
# its input tells a wrong scale:
#
# $$\text{size} = \text{rms of the numbers} \cdot \sqrt{\text{inputs}}$$

# %%
show(fault_of)

# %% [markdown]
# **2. Every layer, on its own numbers.** The model reads a picture and a text. Where a layer calls
# its rule, a *probe* stands in between: it takes the very q, k, v and gates that the layer has
# computed, runs them through the recurrence in float64, and holds every fast form against it. On a
# GPU the Triton kernel is one of them.
#
# $$\text{error} = \frac{|\text{form} - \text{recurrence in float64}|}{|\text{recurrence in float64}|}$$

# %%
show(Probe.errors_of)

# %% [markdown]
# **3. The whole.** The prompt is read at once and as a stream, and the vision tower as it was
# loaded and fused; another picture must make a difference.
#
# Here are the three on the tiny model, in float32, as the command prints them:


# %%
def verify(folder, show=lambda line: None):
    """What `python -m minivl verify --model folder --tokens 256 --dtype float32` does; its report."""
    report = Report(show)
    inputs = prompt(load_processor(folder), images=[], text=TEXT, tokens=256)
    if check_files(folder, report, dtype=torch.float32):
        with torch.no_grad():
            check_model(loaded(folder), inputs, report)
    return report


report = verify(tiny, show=print)
assert report.passed

# %% [markdown]
# ### Break it
#
# Now lines are broken, and verify has to say in which layers. First in the chunked form: the state
# isn't faded on its way from one chunk to the next.


# %%
def sound(folder=tiny):
    reasons = verify(folder).reasons
    layers = sorted({reason.split(":")[0] for reason in reasons if reason.startswith("layer ")})
    assert not reasons, f"{', '.join(layers)}. Reasons: {len(reasons)}, the first: {reasons[0]}"


unfaded = broken(
    gated_delta_rule.chunked,
    "state = decay_in[n, ..., -1:, :] * state + k_out.mT @ delta",
    "state = state + k_out.mT @ delta",
)
with patch.object(gated_delta_rule, "chunked", unfaded), fails():
    sound()

# %% [markdown]
# It names layer 1 and all linear layers after it: **a fault in every layer is the form's own.** A
# quick test on random numbers would have been content, since they fill one chunk only:


# %%
def quick_test(form):
    q, k, v = torch.randn(3, 1, 64, 4, 32).unbind()
    gates = {"log_decay": -torch.rand(1, 64, 4), "beta": torch.rand(1, 64, 4)}
    out, _ = form(q, k, v, **gates, normalize_qk=True)
    right, _ = gated_delta_rule.recurrent(q, k, v, **gates, normalize_qk=True)
    assert close(out, right, tolerance=1e-6)


quick_test(unfaded)

# %% [markdown]
# Next in the window's ring, which wraps at the window instead of at its number of slots. Only
# window layers have one, and of the tiny model's four layers, that is layer 0:

# %%
too_early = broken(Ring.write, "number % self.keys.shape[1]", "number % self.window")
with patch.object(Ring, "write", too_early), fails():
    sound()

# %% [markdown]
# And in the weights: layer 2 gets a decay so strong that it forgets everything at every token. No
# number is out of place, and the model is loaded as ever.

# %%
FADING = LAYER.format(2, "self_attn.A_log")
folder = planted("forgetful", lambda x: x | {FADING: torch.full_like(x[FADING], 30.0)})
assert refused(folder) is None
with fails():
    sound(folder)

# %% [markdown]
# ## Error against floor
#
# How small should an error be? A number that is rounded once is off by at most $2^{-53}$ of its
# size in float64, $2^{-24}$ in float32, and $2^{-9}$ in bfloat16. Call that the *floor*. A form
# that sums in float32 and rounds to bfloat16 once, at its end, lies just below it. One that
# computes in float32 or float64 all the way rounds many times, and lies a little above. verify's
# *bounds* are higher, so that sound layers pass, and far below what a wrong line does, like the one
# from above.
#
# Four layers make a poor plot. So here is a checkpoint of random weights, narrow, but with the 36
# layers of the released model.

# %%
deep = home / "deep"
deep.mkdir()
write_fake(deep, tiny_config(layer_types=released.layer_types))
inputs = prompt(load_processor(deep), images=[], text=TEXT, tokens=256)


@torch.no_grad()
def probed(dtype):
    """verify's second part alone: a row for each layer."""
    probe = Probe(load_model(deep, device="cpu", dtype=dtype), Report(lambda line: None))
    with probe.attached():
        read_at_once(probe.model, inputs)
    return probe.rows


LOOKS = {torch.float64: GREEN, torch.float32: BLUE, torch.bfloat16: ORANGE}
FLOORS = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-9}


def worst(row, dtype):
    """The largest error of a layer's forms in this dtype, and its bound."""
    name = str(dtype).removeprefix("torch.")
    own = [found for form, found in row["errors"].items() if form.endswith(name)]
    return max((found["output"], found["bounds"][0]) for found in own)


ERRORS = {dtype: [worst(row, dtype) for row in probed(dtype)] for dtype in LOOKS}
with patch.object(gated_delta_rule, "chunked", unfaded):
    rows = probed(torch.float32)
WRONG_LINE = {
    row["layer"]: worst(row, torch.float32)[0] for row in rows if row["type"] == "linear_attention"
}
for dtype, found in ERRORS.items():
    assert all(error <= bound for error, bound in found)
    assert max(error for error, _ in found) < 64 * FLOORS[dtype]
assert min(WRONG_LINE.values()) > 100 * 1e-5  # a hundred times the bound

# %% [drawing]
figure, axes = drawing(8.6, 4.2)
for dtype, look in LOOKS.items():
    name = str(dtype).removeprefix("torch.")
    errors, bounds = zip(*ERRORS[dtype], strict=True)
    axes.semilogy(range(36), errors, linestyle="", markersize=4, label=name, **look)
    axes.axhline(FLOORS[dtype], color=look["color"], linewidth=1)
    axes.step(range(36), bounds, where="mid", color=look["color"], linewidth=1, linestyle=":")
axes.plot(
    WRONG_LINE.keys(),
    WRONG_LINE.values(),
    linestyle="",
    markersize=5,
    label="float32, a line wrong",
    **BLACK,
)
for layer in range(0, 36, 4):
    axes.axvspan(layer - 0.5, layer + 0.5, color="#eeeeee", zorder=0)
axes.set(
    title="Each layer's largest error, its floor (line) and its bound (dots)",
    xlabel="layer; window layers are shaded",
    ylabel="relative error",
    xlim=(-1, 36),
    ylim=(1e-17, 3),
)
axes.legend(ncols=4, loc="center", bbox_to_anchor=(0.5, 0.33), fontsize=9)
picture(
    figure,
    "Errors of 36 layers in three dtypes, on a log scale. Each dtype's errors lie on a level of their own, next to "
    "the line of its floor, from the first layer to the last, and below the dotted line of its bound: just below in "
    "bfloat16, far below in float32 and float64. Crosses show float32 with a wrong line, all far above the bounds.",
    ["dtype", "floor", "smallest", "largest", "bounds"],
    [
        [
            str(dtype).removeprefix("torch."),
            f"{FLOORS[dtype]:.0e}",
            f"{min(error for error, _ in found):.0e}",
            f"{max(error for error, _ in found):.0e}",
            ", ".join(f"{bound:.0e}" for bound in sorted({bound for _, bound in found})),
        ]
        for dtype, found in ERRORS.items()
    ]
    + [
        [
            "float32, a line wrong",
            "–",
            *(f"{end(WRONG_LINE.values()):.0e}" for end in (min, max)),
            "1e-05",
        ]
    ],
)

# %% [markdown]
# ## Why a layer's own numbers
#
# The decay between two tokens of a chunk, $\Gamma_{ij} = e^{G_i - G_j}$, invites a shortcut that
# many a kernel has taken: one factor for the query's token, one for the key's, and then a single
# product of matrices.
#
# $$\Gamma_{ij} = e^{G_i} \cdot e^{-G_j}$$

# %%
factored = broken(
    gated_delta_rule.chunk_decays,
    "decay = between.exp().tril()",
    "total = log_decay.cumsum(-1); "
    "decay = (total.exp()[..., :, None] * (-total).exp()[..., None, :]).tril()",
)
with patch.object(gated_delta_rule, "chunk_decays", factored):
    quick_test(gated_delta_rule.chunked)
    rows = []
    for name, folder in {"tiny": tiny, "36 layers of random weights": deep}.items():
        reasons = verify(folder).reasons
        rows.append([name, "FAILED" if reasons else "passed", *(reasons or ["–"])[:1]])
table(["checkpoint", "verdict", "first reason"], rows)
assert rows[1][1] == "FAILED"

# %% [markdown]
# The quick test is content, and a checkpoint may be, too; on another the same line gives NaN. One
# of the factors is larger than 1 now, and float32 ends at $e^{88.7}$. So the shortcut holds as long
# as no chunk forgets more than that, which is a matter of a layer's gates. We can see it: take each
# layer's numbers, as a probe does, and hold both lines against the recurrence.

# %%
TAKEN = []


def taking(q, k, v, **options):
    """Stands where the chunked form does, and keeps what it is given."""
    TAKEN.append(((q, k, v), options))
    return chunked(q, k, v, **options)


chunked = gated_delta_rule.chunked
with patch.object(gated_delta_rule, "chunked", taking), torch.no_grad():
    read_at_once(loaded(deep), inputs)
assert len(TAKEN) == released.layer_types.count("linear_attention")


def forgets(options):
    """How far log α falls within a chunk of 64, in the head and chunk where it falls most."""
    return min(chunk.sum(1).min().item() for chunk in options["log_decay"].split(64, dim=1))


def errors_with(chunk_decays):
    with patch.object(gated_delta_rule, "chunk_decays", chunk_decays):
        return [
            relative_error(
                chunked(*qkv, **options)[0],
                gated_delta_rule.recurrent(*(x.double() for x in qkv), **options)[0],
            )
            for qkv, options in TAKEN
        ]


fallen = [forgets(options) for _, options in TAKEN]
as_it_is, shortcut = errors_with(gated_delta_rule.chunk_decays), errors_with(factored)
END = -math.log(torch.finfo(torch.float32).max)  # −88.7
assert max(as_it_is) < 1e-6
for fall, error in zip(fallen, shortcut, strict=True):
    assert math.isfinite(error) == (fall > END)

# %% [drawing]
figure, axes = drawing(7.6, 3.8)
axes.axvline(END, color="#999999", linestyle=":")
axes.text(END - 1, 3e-3, "float32\nends here", color="#666666", ha="right", va="top")
axes.semilogy(fallen, as_it_is, linestyle="", label="as it is", **BLUE)
finite = [math.isfinite(error) for error in shortcut]
shown = [error if here else 1e-2 for error, here in zip(shortcut, finite, strict=True)]
axes.semilogy(fallen, shown, linestyle="", label="in two factors", markerfacecolor="none", **ORANGE)
axes.axhspan(4e-3, 2.5e-2, color="#f4f4f4", zorder=0)
axes.text(-2, 1e-2, "not a number", color="#666666", ha="right", va="center")
axes.axhline(1e-5, color="#222222", linewidth=1, linestyle=":")
axes.text(-2, 1.2e-5, "verify's bound", color="#222222", ha="right", va="bottom")
axes.set(
    title="The error of a layer, by how much it forgets in a chunk",
    xlabel="how far log α falls within a chunk of 64",
    ylabel="relative error in float32",
    ylim=(5e-8, 4e-2),
)
axes.legend(loc="center left")
order = sorted(range(len(fallen)), key=fallen.__getitem__)
picture(
    figure,
    "Errors of 27 layers. The decays as they are stay at the floor, however much a layer forgets. In two factors they "
    "are just as good as long as log α falls by less than 88.7 within a chunk, and not a number beyond.",
    ["log α falls by", "as it is", "in two factors"],
    [
        [f"{-fallen[i]:.1f}", f"{as_it_is[i]:.0e}", f"{shortcut[i]:.0e}"]
        for i in (*order[:3], *order[len(order) // 2 :: 6], order[-1])
    ],
)

# %% [markdown]
# Friendly gates would have passed the shortcut for ever. So put your form where the probes look, at
# `minivl.ops.gated_delta_rule.chunked`, or `triton_chunked` for a kernel, and run verify on the
# checkpoint that it is for. [Its page](../docs/verify.md) shows how, and has the bounds.
#
# ## What it can't see
#
# **Every check of verify holds for any weights that are alive.** It has no second model to compare
# with. Here are checkpoints that are wrong, and what verify says; beside it, how far the scores of
# the next word are from the right ones:


# %%
def exchanged(tensors):
    """Two linear layers change places."""
    one, other = (LAYER.format(number, "") for number in (1, 2))
    return {
        (name.replace(one, other) if name.startswith(one) else name.replace(other, one)): tensor
        for name, tensor in tensors.items()
    }


def one_sign(tensors):
    """The largest number of a matrix changes its sign."""
    matrix = tensors[GATE].clone()
    matrix.view(-1)[matrix.abs().argmax()] *= -1
    return tensors | {GATE: matrix}


def other_angles(folder):
    """Another rope_theta in config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": 1000.0}))
    return folder


SQUARE = LAYER.format(3, "self_attn.q_proj.weight")
WRONG = {
    "two layers exchanged": planted("exchanged", exchanged),
    "the table's rows in another order": planted(
        "order", lambda x: x | {TABLE: x[TABLE].roll(1, 0)}
    ),
    "a square matrix transposed": planted(
        "square", lambda x: x | {SQUARE: x[SQUARE].T.contiguous()}
    ),
    "one number's sign": planted("sign", one_sign),
    "another rope_theta": other_angles(planted("angles", dict)),
}


@torch.no_grad()
def scores(folder):
    asked = prompt(processor, images=[], text=TEXT, tokens=256)
    return read_at_once(loaded(folder), asked)[1]


right = scores(tiny)
differ = {name: relative_error(scores(folder), right) for name, folder in WRONG.items()}
assert all(verify(folder).passed for folder in WRONG.values())
assert all(differ.values())
table(
    ["wrong", "verify", "the scores are off by"],
    [[name, "passed", f"{off:.1g}"] for name, off in differ.items()],
)

# %% [markdown]
# Against these there are published checksums, questions with known answers (`python -m minivl
# eval`), and the tests of the code itself. Nor does verify know whether a model is any good.
#
# ## Three questions
#
# **1.** A checkpoint has `lm_head.weight`, and config.json ties the table. What happens?
#
# <details><summary>Answer</summary>
#
# If it equals the table, it is ignored. If it differs, loading fails: two truths are in the folder,
# and the wrong one would give words without any error.
#
# </details>
#
# **2.** verify finds that one form is off in layer 17 alone, by a thousand times its bound. In all
# other layers it is right. Is it the weights, or the form?
#
# <details><summary>Answer</summary>
#
# The form. The weights of layer 17 give numbers that the recurrence in float64 handles and the form
# doesn't: gates near 0, or keys that are nearly alike. A wrong line would be wrong in every layer;
# wrong weights are wrong in both forms alike, and no comparison of the two sees them.
#
# </details>
#
# **3.** Why are the layers compared on what the model itself computes, when random q, k, v and
# gates are so much easier to come by?
#
# <details><summary>Answer</summary>
#
# Because errors depend on the numbers. Random gates of a friendly test stay where every form is
# right; a trained layer's stand near 0 or 1, and its keys resemble one another from token to token.
# The shortcut of this notebook passes a quick test, and gives NaN on a checkpoint.
#
# </details>
