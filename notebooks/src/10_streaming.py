# %% [markdown]
# # 10 · Streaming: watching for ever, asked at any time
#
# **At the end you can**
#
# - say what a stream holds after any number of frames, and work out what keeping all keys and
#   values would have cost;
# - show of any model that its stream can be cut anywhere, asked without a trace, and stopped and
#   gone on with, bit for bit;
# - measure how far back a model remembers, with a control that tells memory from luck.
#
# Before it: [the window and its ring](05_window_and_ring.ipynb), [the hybrid
# block](06_hybrid_block.ipynb) and [positions](08_vision_and_positions.ipynb).

# %%
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from lesson import BLUE, GREEN, ORANGE, broken, close, drawing, fails, picture, show, table
from torch.utils.flop_counter import FlopCounterMode

import minivl
from minivl import Stream, asking
from minivl.asking import Copies, copies
from minivl.config import Config
from minivl.demo.facts import stream_of_facts
from minivl.demo.watching import plain
from minivl.frames import FrameStep, absorb
from minivl.memory import Memory
from minivl.ops.sliding_window import Ring
from minivl.pictures import picture_patches
from minivl.train.splits import HELD_OUT
from minivl.train.tiny_scores import pool_vectors, recall_scores
from minivl.train.tiny_streams import ANSWERS, NOT_SHOWN, StreamSettings, TinyStreams

torch.manual_seed(0)
model, processor = minivl.load("tiny", device="cpu", dtype=torch.float32)
W = model.config.sliding_window
SIDE = 56  # pixels of a frame, each way: 2 × 2 cells, so 4 tokens

# %% [markdown]
# ## One picture that never ends
#
# **Each frame is read into the memory and gone.** To the model a stream is a single picture that
# hasn't ended yet. A question ends it, on a copy:
#
# ```text
# stream     <|vision_start|>  frame  frame  frame …
# question                                     … <|vision_end|>  <|im_start|>system …  answer
# ```
#
# So there is nothing between two frames. Height and width start over with every frame, and only
# time goes on, in whole seconds:
#
# $$\text{time} = 1 + 2 \lfloor \text{seconds} \rfloor \qquad \text{height} = 1 + \text{row} \qquad
# \text{width} = 1 + \text{column}$$

# %%
show(Stream.watch, absorb)

# %%
facts, rounds = stream_of_facts(360, seed=0, window=W)
images = [frame.picture.image for frame in facts.frames]

stream = Stream(model, processor, size=SIDE)
for image, seconds in zip(images[:4], (0, 0.9, 1, 7.5), strict=True):
    stream.watch(image, seconds=seconds)
    place = stream.positions[:, 0]
    assert place[0].tolist() == 4 * [1 + 2 * int(seconds)]
    assert place[1:].tolist() == [[1, 1, 2, 2], [1, 2, 1, 2]]

# %% [markdown]
# Here is a stream of the [tiny world](../docs/tiny-world.md), drawn on the spot, from the part that
# no training has seen. Now and then a box shows what is in it: a letter, and a value. A disc is no
# box; it only looks like one. Later a box may show another value, and then only the newest counts.

# %%
shown = {
    at: fact for at, number in enumerate(facts.numbers) if (fact := facts.pool.fact(int(number)))
}

# %% [drawing]
figure, panels = drawing(7.2, 2.7, rows=2, columns=len(shown))
for axes, at in zip(panels, [*range(len(shown)), *shown], strict=True):
    axes.imshow(images[at], interpolation="nearest")
    fact = f"\n{shown[at][0]} has {shown[at][1]}" if at in shown else ""
    axes.set_title(f"frame {at}{fact}", fontsize=8)
    axes.set_axis_off()
picture(
    figure,
    "Two rows of small frames. Above, the stream's first: letters, coloured shapes, and discs with a letter and a "
    "value. Below, all frames that show a fact: a letter and a value within a rectangle.",
    ["frame", "box", "value"],
    [[at, *fact] for at, fact in shown.items()],
)

# %% [markdown]
# ## Constant to the byte
#
# The memory is made before the first frame. **From then on no tensor grows, moves, or is
# replaced.** A ring holds the newest tokens, number $p$ in slot $p \bmod R$; a state holds what was
# written and hasn't faded. A frame comes as 4 tokens at once, so $R = W - 1 + 4$.


# %%
def nothing_moves(memory, before):
    after = {name: (x.data_ptr(), x.shape) for name, x in memory.tensors().items()}
    assert after == before, "a tensor was moved, or has another size"


def the_ring_holds_the_newest(memory, tokens):
    for layer in (layer for layer in memory.layers if isinstance(layer, Ring)):
        R = layer.keys.shape[1]
        newest = list(range(max(0, tokens - R), tokens))
        held = sorted(number for number in layer.positions[0].tolist() if number >= 0)
        assert held == newest, f"of {tokens} tokens it holds {len(held)}: {held[:3]} … {held[-1]}"
        assert all(layer.positions[0, number % R] == number for number in newest)


def watched(images, looking_on=lambda stream: None):
    """A stream that has watched these, and the bytes and seconds of each frame."""
    stream = Stream(model, processor, size=SIDE)
    places = {name: (x.data_ptr(), x.shape) for name, x in stream.memory.tensors().items()}
    sizes, times = [stream.memory.nbytes], []
    for image in images:
        start = time.perf_counter()
        stream.watch(image)
        times.append(time.perf_counter() - start)
        sizes.append(stream.memory.nbytes)
        looking_on(stream)
    nothing_moves(stream.memory, places)
    return stream, sizes, times


SAID, SIZES = [], []  # questions with their answers; and after each frame, how large the states are


def looking_on(stream):
    """After each third of the stream, four boxes that were shown and one that never was."""
    states = [x for name, x in stream.memory.tensors().items() if name.endswith("state")]
    SIZES.append([x.square().mean().sqrt().item() for x in states])
    for question in rounds.get(stream.frames_seen, ()):
        SAID.append((question.asked, plain(stream.ask(question.asked.messages, max_new_tokens=8))))


stream, sizes, times = watched(images, looking_on)
assert set(sizes) == {stream.memory.nbytes}
the_ring_holds_the_newest(stream.memory, stream.tokens_seen)
assert all(x.isfinite().all() for x in stream.memory.tensors().values())
print(
    f"{stream.frames_seen} frames, {stream.tokens_seen:,} tokens, {stream.tokens_seen / W:.0f} windows"
)
print(f"{stream.memory.nbytes:,} bytes, before the first frame and after the last")

# %% [markdown]
# A cache of keys and values, as a transformer keeps it, has no last slot. Each token leaves in each
# layer a key and a value a head:
#
# $$\text{bytes} = \text{tokens} \cdot 2 \cdot \text{layers} \cdot \text{heads} \cdot K \cdot \text{bytes of a
# number}$$
#
# And each new token looks at all that is in it, while a ring and a state are the same work for
# ever. That is counted here, and not only timed, since a machine may be busy with something else.
# What is *in* a state is another matter than its bytes: frames add to it, fading and overwriting
# take away, and the right panel shows what comes of both.


# %%
def cache_bytes(config, tokens, dtype):
    full = replace(config, layer_types=len(config.layer_types) * ("full_attention",))
    kept = Memory(full, room=tokens, longest_write=1, dtype=dtype, device="meta").tensors()
    found = sum(x.nbytes for name, x in kept.items() if name.endswith(("keys", "values")))
    heads, K = config.num_key_value_heads, config.head_dim
    assert found == tokens * 2 * len(config.layer_types) * heads * K * dtype.itemsize
    return found


def work_after(frames):
    """Multiplications and additions in the matrix products of one more frame, after so many."""
    stream = Stream(model, processor, size=SIDE)
    for image in images[:frames]:
        stream.watch(image)
    with FlopCounterMode(display=False) as counted:
        stream.watch(images[frames])
    return counted.get_total_flops()


work = [work_after(frames) for frames in (0, 20, 60)]
assert len(set(work)) == 1
print(f"{work[0]:,} multiplications and additions, for the first frame and for any other")

# %% [drawing]
figure, (memory, speed, state) = drawing(9.6, 3.3, columns=3)
cells, every = stream.cells, range(0, len(images) + 1, 40)
memory.plot(
    every,
    [cache_bytes(model.config, 1 + cells * n, torch.float32) / 1e6 for n in every],
    label="all keys and values",
    **ORANGE,
)
memory.plot(every, [sizes[n] / 1e6 for n in every], label="this stream", **BLUE)
memory.set(title="Memory", xlabel="frames", ylabel="MB", ylim=(0, None))
memory.legend(fontsize=9)
groups = range(0, len(images), 20)
typical = [1000 * sorted(times[n : n + 20])[10] for n in groups]
speed.plot([n + 10 for n in groups], typical, linestyle="", **BLUE)
speed.set(
    title="Time of a frame, measured",
    xlabel="frames",
    ylabel="milliseconds, median of 20",
    ylim=(0, 2 * max(typical)),
)
linear = [i for i, kind in enumerate(model.config.layer_types) if kind == "linear_attention"]
for number, (layer, look) in enumerate(zip(linear[:3], (BLUE, ORANGE, GREEN), strict=True)):
    line = [sizes_then[number] for sizes_then in SIZES]
    state.plot(range(1, len(line) + 1), line, markevery=60, label=f"layer {layer}", **look)
state.set(title="Size of the first states", xlabel="frames", ylabel="root mean square")
state.set(ylim=(0, 1.4 * max(map(max, SIZES))))
state.legend(fontsize=9, ncols=3, loc="upper center", columnspacing=0.8, handletextpad=0.3)
picture(
    figure,
    "Left: the stream's memory is a flat line from the first frame to the last, and kept keys and values would have "
    "gone past it after some twenty frames, and on along a straight line. Middle and right, as they came in this run: "
    "the milliseconds of a frame, and how large the numbers are in the states of the first three linear layers.",
    [
        "frames",
        "tokens",
        "this stream, bytes",
        "all keys and values, bytes",
        "milliseconds a frame",
        "size of the states",
    ],
    [
        [
            n,
            f"{1 + cells * n:,}",
            f"{sizes[n]:,}",
            f"{cache_bytes(model.config, 1 + cells * n, torch.float32):,}",
            f"{typical[n // 20 - 1]:.1f}",
            ", ".join(f"{size:.3f}" for size in SIZES[n - 1]),
        ]
        for n in (20, 120, 240, 360)
    ],
)

# %% [markdown]
# ### Break it
#
# A flat line alone proves little. The released demo records one frame's work and replays it, with
# the ring's counter as a number in Python, which a recording holds still. So its window layers see
# two frames for ever, in memory that is as flat as can be. Here is a counter that is held still:

# %%
frozen = broken(Ring.write, "self.seen += k.shape[1] if lengths is None else lengths", "pass")
with patch.object(Ring, "write", frozen):
    forgetful, flat, _ = watched(images[:30])
assert set(flat) == set(sizes)
with fails():
    the_ring_holds_the_newest(forgetful.memory, forgetful.tokens_seen)

# %% [markdown]
# ## Any cut gives the same
#
# A stream is cut into frames. **It could be cut anywhere else, or not at all: every token gets the
# same vector.** Here 60 frames are read in one call without a memory, watched one by one, and cut
# in four ways through a memory; in float64, so that nothing hides behind rounding.


# %%
exact, _ = minivl.load("tiny", device="cpu", dtype=torch.float64)
config, few = exact.config, images[:60]


@torch.no_grad()
def any_cut_is_the_same():
    ids = torch.tensor([[config.vision_start_token_id] + 4 * len(few) * [config.image_token_id]])
    cell = [(1 + row, 1 + column) for row in range(2) for column in range(2)]
    places = [(1 + 2 * second, *at) for second in range(len(few)) for at in cell]
    positions = torch.tensor([(0, 0, 0), *places]).T[:, None]
    patches = [picture_patches(image, processor.settings) for image in few]
    pixels, grids = torch.cat([x for x, _ in patches]), torch.tensor([grid for _, grid in patches])
    whole = exact.read(ids, positions=positions, pixels=pixels, grids=grids)

    stream, words = Stream(exact, processor, size=SIDE), torch.tensor([[7, 8, 9]])
    for image in few:
        stream.watch(image)
    free = int(positions.max()) + 1
    after = torch.arange(free, free + 3).expand(3, 1, 3)
    at_once = exact(
        torch.cat([ids, words], dim=1),
        positions=torch.cat([positions, after], dim=2),
        pixels=pixels,
        grids=grids,
    )
    afterwards = exact(words, memory=stream.memory.clone())
    assert close(afterwards, at_once[:, -3:]), (
        "after frames that were watched, words get other scores"
    )

    seen = exact.model.visual(pixels.double(), grids)
    for cut in ([241], [1] + 60 * [4], [1, 2, 3, 100, 99, 36], 241 * [1]):
        memory, out, start = exact.new_memory(longest_write=64), [], 0
        for length in cut:
            piece = slice(start, start + length)
            vectors = seen[max(0, start - 1) : start + length - 1]  # the opening token has none
            call = {"positions": positions[:, :, piece], "memory": memory}
            out.append(exact.read(ids[:, piece], vectors=vectors if len(vectors) else None, **call))
            start += length
        assert close(torch.cat(out, dim=1), whole), f"cut as {cut[:4]} …"


any_cut_is_the_same()

# %% [markdown]
# ### Break it
#
# Time stands still: every frame is placed where the first one was.

# %%
show(FrameStep.__call__)
timeless = broken(FrameStep.__call__, "self.positions[0].fill_(time)", "pass")
with patch.object(FrameStep, "__call__", timeless), fails():
    any_cut_is_the_same()

# %% [markdown]
# ## Asked on a copy
#
# A question is read into the memory like all else; a stream that took it in would go on with a
# question and an answer in its rings and states. **So a question goes to a copy, and leaves no
# trace.** It is about the moment when it was asked, whenever its answer is read.

# %%
show(Copies.of, copies)


# %%
def same(one, other):
    return all(torch.equal(x, other.tensors()[name]) for name, x in one.tensors().items())


def a_question_leaves_no_trace():
    asked, unasked = (Stream(model, processor, size=SIDE) for _ in range(2))
    for number, image in enumerate(images[:20]):
        asked.watch(image)
        unasked.watch(image)
        if number == 9:
            now = "".join(asked.ask("What is in box K?", max_new_tokens=8))
            later = asked.ask("What is in box K?", max_new_tokens=8)  # not read yet
            next(asked.ask("What is in box K?"), None)  # and broken off
        assert same(asked.memory, unasked.memory), f"after frame {number} the memories differ"
    assert "".join(later) == now, "an answer changed while it waited"


a_question_leaves_no_trace()

# %% [markdown]
# ### Break it
#
# The copy is no copy. It still answers, and the answer doesn't tell.

# %%
no_copy = broken(copies, "return memory.clone()", "return memory")
with patch.object(asking, "copies", no_copy), fails():
    a_question_leaves_no_trace()

# %% [markdown]
# ## Stopped, and gone on with
#
# All that a stream is fits in one small file: tensors, a clock, and a fingerprint of the weights,
# under one checksum. **What is resumed is the stream that never stopped, bit for bit.**

# %%
show(Stream.resume)


# %%
def resumed_is_unstopped():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream"
        one = Stream(model, processor, size=SIDE)
        for image in images[:30]:
            one.watch(image)
        one.save(path)
        other = Stream.resume(path, model, processor)
        print(f"{path.stat().st_size:,} bytes in the file")
        for image in images[30:50]:
            one.watch(image)
            other.watch(image)
    assert one.seconds == other.seconds, f"{other.seconds} s on its clock, and not {one.seconds}"
    assert same(one.memory, other.memory)


resumed_is_unstopped()

# %% [markdown]
# ### Break it
#
# The clock isn't taken over. The memory is all there, and every frame from now on comes at a wrong
# time.

# %%
clockless = broken(
    Stream.resume,
    'stream.frames_seen, stream._clock = notes["frames_seen"], tuple(notes["clock"])',
    'stream.frames_seen = notes["frames_seen"]',
)
with patch.object(Stream, "resume", clockless), fails():
    resumed_is_unstopped()

# %% [markdown]
# ## What it remembers
#
# All of that holds for any weights. What a model *knows* of its past is another matter, and can
# only be measured. These were asked while the stream above ran: each box with what it really held,
# and how long ago that was shown. A fact within the window can be looked up in the ring. Any other
# can only be known through the states.


# %%
def ago(asked):
    """Which of three kinds a question is of, and how long ago its answer was shown."""
    if asked.answer == NOT_SHOWN:
        return "never shown", "never"
    kind = "within the window" if asked.passed < W else "beyond the window"
    return kind, f"{facts.windows(asked):.1f} windows ago"


right = {"within the window": [], "beyond the window": [], "never shown": []}
for asked, said in SAID:
    right[ago(asked)[0]].append(said == asked.answer)
table(
    ["question", "truth", "shown", "", "it said", ""],
    [
        [
            asked.question,
            asked.answer,
            *reversed(ago(asked)),
            said or "(nothing)",
            "right" if said == asked.answer else "wrong",
        ]
        for asked, said in SAID
    ],
)
told = [f"{sum(answers)} of {len(answers)} {kind}" for kind, answers in right.items()]
print(f"right in this run: {', '.join(told)}")

# %% [markdown]
# That is an anecdote, and three things are missing: *many* questions at each distance; *chance*,
# which is what a model gets that guesses; and a *control*, the same streams of which the model sees
# nothing but the last window. Where the fact is older than that, a right answer of the control is
# luck. What the model gets beyond the control, its states have carried. At 0 windows both have seen
# the fact just now.
#
# Since any cut gives the same, no stream needs to be watched for that: each is read in one call,
# from vectors that the tower has made once for each picture.

# %%
ASKED, DISTANCES = 24, (0, 1, 4, 16)  # questions for each of these many windows
settings = StreamSettings(looks=1, others=256)
seen = pool_vectors(model, processor, HELD_OUT, settings=settings)
measure = {"number": ASKED, "windows": DISTANCES, "settings": settings, "vectors": seen}
recall = recall_scores(model, processor, HELD_OUT, **measure)
control = recall_scores(model, processor, HELD_OUT, **measure, blind=True)
chance = 1 / len(ANSWERS)

for distance in DISTANCES:  # the truth is right: each fact lies as far back as it should
    streams = TinyStreams(HELD_OUT, 0, replace(settings, distance=(distance * W,) * 2, not_shown=0))
    assert {streams[number].questions[0].passed for number in range(ASKED)} == {distance * W}

# %% [drawing]
figure, (answers, memory) = drawing(8.6, 4.8, rows=2, sharex=True, height_ratios=(3, 2))
places = range(len(DISTANCES))
LINES = {"the model": (-0.06, recall, BLUE), "control:\nlast window only": (0.06, control, ORANGE)}
for name, (shift, found, look) in LINES.items():
    shares = [found[distance].share for distance in DISTANCES]
    ends = [found[distance].bounds for distance in DISTANCES]
    reach = [
        [share - low for share, (low, _) in zip(shares, ends, strict=True)],
        [high - share for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    answers.errorbar([n + shift for n in places], shares, yerr=reach, label=name, capsize=3, **look)
answers.axhline(chance, color="#222222", linestyle=":", linewidth=1)
answers.text(
    1.01, chance, "chance", transform=answers.get_yaxis_transform(), color="#222222", va="center"
)
answers.set(
    title="Answers that are right, by how long ago the fact was shown",
    ylabel="share, with 95% interval",
)
answers.set(ylim=(-0.03, 1.03))
answers.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
needed = [
    cache_bytes(model.config, (distance + 1) * W, torch.float32) / 1000 for distance in DISTANCES
]
memory.semilogy(places, needed, label="keys and values\nback to the fact", **GREEN)
memory.semilogy(places, [sizes[0] / 1000 for _ in places], label="the stream", **BLUE)
memory.set(
    title="Memory", ylabel="KB", xlabel="windows ago", xticks=list(places), xticklabels=DISTANCES
)
memory.set(ylim=(50, 5000))
memory.legend(fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
picture(
    figure,
    "Above, the share of right answers against how many windows ago a fact was shown, for the model and for a control "
    "that sees the last window only, with their intervals and a line for chance; the table has the shares of this run. "
    "Below, what a cache back to the fact would take, growing, and what the stream takes, flat.",
    ["windows ago", "the model", "control", "cache back to the fact, KB", "the stream, KB"],
    [
        [
            distance,
            f"{recall[distance].right} of {ASKED}: {recall[distance]}",
            f"{control[distance].right} of {ASKED}: {control[distance]}",
            f"{needed[place]:,.0f}",
            f"{sizes[0] / 1000:,.0f}",
        ]
        for place, distance in enumerate(DISTANCES)
    ]
    + [
        [
            NOT_SHOWN,
            f"{recall[NOT_SHOWN].right} of {ASKED}: {recall[NOT_SHOWN]}",
            f"{control[NOT_SHOWN].right} of {ASKED}: {control[NOT_SHOWN]}",
            "",
            "",
        ]
    ],
)

# %%
beyond = [
    distance for distance in DISTANCES if recall[distance].bounds[0] > control[distance].bounds[1]
]
print(
    f"chance is {chance:.1%}; a model that always says “{NOT_SHOWN}” gets all of the last row and no other"
)
print(
    f"in this run the model's interval lies wholly above the control's at: {beyond or 'no distance'}"
)

# %% [markdown]
# Read it with care. Where the model lies above the control, states have carried facts past the
# window. Where the intervals overlap, this run shows nothing either way: two dozen questions are
# few. And the last row must be read together with the others, since whoever always says that a box
# was not shown gets it wholly right.
#
# ## The released model
#
# A frame of 448 × 448 pixels is 256 tokens there. At one frame a second, in bfloat16:

# %%
released = Config()
held = Memory(released, longest_write=256, dtype=torch.bfloat16, device="meta").nbytes
table(
    ["watched for", "tokens", "the stream, MB", "all keys and values, MB"],
    [
        [
            name,
            f"{256 * seconds:,}",
            f"{held / 1e6:,.0f}",
            f"{cache_bytes(released, 256 * seconds, torch.bfloat16) / 1e6:,.0f}",
        ]
        for name, seconds in (("a minute", 60), ("an hour", 3600), ("a day", 86_400))
    ],
)

# %% [markdown]
# `python -m minivl stream --model DIR --video film.mp4` does all of this at the command line, for
# any checkpoint, and `python -m minivl demo` for the tiny model. [The stream's
# page](../docs/stream.md) tells how a GPU runs it without waiting.
#
# ## Three questions
#
# **1.** The ring of this stream has 67 slots for a window of 64. What are the other three for, and
# what would happen without them?
#
# <details><summary>Answer</summary>
#
# A frame's four tokens are written before the first of them is attended to. The first still needs
# the 63 tokens before it, so $63 + 4$ must be there at once. Without them the last three of a frame
# would overwrite what the first one needs; the ring refuses such a write.
#
# </details>
#
# **2.** A question is asked while frames go on coming. Its answer takes as long as ten frames. What
# does the model know of those ten in its answer, and what does the stream know of the question?
#
# <details><summary>Answer</summary>
#
# Nothing, both times. The answer comes from the copy, as the memory was at the call. The stream
# takes the frames in as if nobody had asked.
#
# </details>
#
# **3.** A vendor shows that a video model's memory is flat over ten hours. Which two questions are
# left?
#
# <details><summary>Answer</summary>
#
# Does it still take new frames in? The frozen ring above is flat, too. And what can it answer about
# what it saw an hour ago, compared with a model that sees the last minute only? Flat memory and
# right answers, both against distance, say something; either one alone doesn't.
#
# </details>
