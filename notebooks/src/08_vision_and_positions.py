# %% [markdown]
# # 8 · Vision and positions: pictures as words
#
# **At the end you can**
#
# - say how many tokens a picture takes, and which token sees which pixels;
# - write down the three positions of each token of a conversation with pictures and videos;
# - say how far a key turns for each step along an axis, and why a million tokens need float64 for that.
#
# Before it: [the window](05_window_and_ring.ipynb), whose softmax has no order of its own.

# %%
import numpy as np
import torch
from einops import rearrange
from lesson import BLUE, GREEN, ORANGE, broken, close, drawing, fails, picture, show, table
from PIL import Image, ImageDraw

from minivl.config import Config
from minivl.ops import rotary
from minivl.ops.rotary import mrope, rope, rotate
from minivl.pictures import Settings, normalised_patches, picture_patches, resized

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## What the model sees
#
# The decoder reads vectors, so a picture must become some. **It is cut into patches of 14 × 14
# pixels, and 2 × 2 patches make a cell, which is one token to the decoder.** First it is resized,
# so that both sides are whole cells of 28 pixels. With rows and columns counted in cells:
#
# $$\text{tokens} = \text{rows} \cdot \text{columns}$$
#
# The numbers of a patch, for the three colours, are shifted and scaled like the pictures that the
# tower has learned from:
#
# $$\text{patch} = \frac{\text{pixel} / 255 - \text{mean}}{\text{std}}$$

# %%
show(resized, normalised_patches)

# %%
scene = Image.new("RGB", (180, 130), "#f4f1e8")
pen = ImageDraw.Draw(scene)
pen.rectangle((18, 46, 78, 108), fill="#0072b2")
pen.polygon([(12, 46), (48, 16), (84, 46)], fill="#d55e00")
pen.ellipse((112, 18, 146, 52), fill="#e69f00")
pen.line((100, 112, 172, 70), fill="#222222", width=2)
pen.text((104, 60), "MiniVL", fill="#222222")

settings = Settings()
pixels, (times, rows, columns) = picture_patches(scene, settings)
height, width = resized(130, 180, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)
cells = rows // 2, columns // 2
assert (height, width) == (28 * cells[0], 28 * cells[1]) == (140, 168)
assert len(pixels) == times * rows * columns == 4 * cells[0] * cells[1]
print(
    f"{scene.height} × {scene.width} pixels become {height} × {width}: {len(pixels)} patches, {len(pixels) // 4} tokens"
)

# %% [markdown]
# Patches don't come row by row, but *cell by cell*: the four of a cell stand next to each other, so
# that merging them is no more than a reshape. The claim: the four patches number $4n$ to $4n + 3$
# show the pixels of cell $n$.

# %%
frame = np.asarray(scene.resize((width, height), Image.Resampling.BICUBIC))


def back_to_pixels(patches):
    """Patches of one cell [4, 3·2·14·14] to its pixels [28, 28, 3]."""
    shape = {"mh": 2, "c": 3, "time": 2, "ph": 14}
    numbers = rearrange(patches, "(mh mw) (c time ph pw) -> time (mh ph) (mw pw) c", **shape)[0]
    numbers = numbers * torch.tensor(settings.std) + torch.tensor(settings.mean)
    return (255 * numbers).round().clamp(0, 255).byte().numpy()


def token_shows_its_cell(cut):
    patches = cut(np.stack([frame, frame]), settings)  # a still picture is its own second frame
    for token in range(len(patches) // 4):
        row, column = divmod(token, cells[1])
        there = frame[28 * row : 28 * row + 28, 28 * column : 28 * column + 28]
        seen = back_to_pixels(patches[4 * token : 4 * token + 4])
        assert (seen == there).all(), (
            f"token {token} doesn't show the cell in row {row}, column {column}"
        )


token_shows_its_cell(normalised_patches)

# %% [drawing]
figure, (left, right) = drawing(8.6, 3.9, columns=2)
left.imshow(scene)
left.set(title=f"The picture: {scene.width} × {scene.height}", xlabel="pixel", ylabel="pixel")
seen = np.zeros_like(frame)
for token in range(cells[0] * cells[1]):
    row, column = divmod(token, cells[1])
    seen[28 * row : 28 * row + 28, 28 * column : 28 * column + 28] = back_to_pixels(
        pixels[4 * token : 4 * token + 4]
    )
    right.text(
        28 * column + 2,
        28 * row + 8,
        token,
        fontsize=7,
        bbox={"facecolor": "white", "pad": 0.6, "lw": 0},
    )
right.imshow(seen)
for edge in range(0, width + 1, 14):
    right.axvline(edge - 0.5, color="#222222", lw=1.2 if edge % 28 == 0 else 0.3)
for edge in range(0, height + 1, 14):
    right.axhline(edge - 0.5, color="#222222", lw=1.2 if edge % 28 == 0 else 0.3)
right.set(title=f"What the model sees: {cells[0] * cells[1]} cells", xlabel="pixel", ylabel="pixel")
picture(
    figure,
    "Left: a drawing of a house, a sun, a line and a word. Right: the same, put together from what the model gets. "
    "It is a little taller and narrower, cut into 30 numbered cells of 28 pixels, each of four patches.",
    ["picture", "resized", "patches", "tokens"],
    [
        [f"{w} × {h}", f"{b} × {a}", a * b // 196, a * b // 784]
        for w, h in ((180, 130), (448, 448), (1280, 720))
        for a, b in [resized(h, w, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)]
    ],
)

# %% [markdown]
# ### Break it
#
# Patches row by row. All shapes fit, and the tower would merge strangers.

# %%
by_rows = broken(
    normalised_patches,
    '"time (h mh ph) (w mw pw) c -> (h w mh mw)',
    '"time (h mh ph) (w mw pw) c -> (h mh w mw)',
)
with fails():
    token_shows_its_cell(by_rows)

# %% [markdown]
# Between patches and tokens stands the vision tower: 32 layers of attention, most of them within
# windows of 8 × 8 patches. [Its page](../docs/vision.md) goes through them.
#
# ## Turning by position
#
# Softmax attention has no order, so order is turned into queries and keys before they meet.
# Channels $c$ and $c + K/2$ are one plane, and each plane turns at its own speed:
#
# $$\text{angle of plane } c = \text{position} \cdot \theta^{-2c/K}$$
#
# Turning both by the same angle leaves their product as it was, **so a product of turned vectors
# depends on how far apart they stand, and on nothing else.** A visual token has three positions:
# time, row and column. So the planes are shared out. In the released model 16 of 64 planes turn
# with time, 24 with height and 24 with width.

# %%
show(mrope, rotate)

# %%
K, theta, sections = 128, 1e6, (16, 24, 24)
q, k = torch.randn(1, 1, 1, K), torch.randn(1, 1, 1, K)


def turned(x, time, row, column, mrope=mrope):
    positions = torch.tensor([time, row, column])[:, None, None]
    return rotate(x, *mrope(positions, width=K, theta=theta, sections=sections)).flatten()


def only_the_distance_counts(mrope):
    near = turned(q, 7, 5, 9, mrope) @ turned(k, 3, 4, 2, mrope)
    far = turned(q, 1007, 2005, 3009, mrope) @ turned(k, 1003, 2004, 3002, mrope)
    assert abs(near - far) < 1e-8, "moving both along all axes changes their product"


def text_is_plain(mrope):
    text = torch.arange(10).expand(3, 1, -1)
    three = mrope(text, width=K, theta=theta, sections=sections)
    one = rope(text[0], width=K, theta=theta)
    assert all(torch.equal(a, b) for a, b in zip(three, one, strict=True)), (
        "text isn't turned as by one axis"
    )


def each_axis_has_its_planes(mrope):
    start = 0
    for axis, planes in enumerate(sections):
        step = torch.zeros(3, 1, 1, dtype=torch.int64)
        step[axis] = 1
        _, sin = mrope(step, width=K, theta=theta, sections=sections)
        found = sin[0, 0, : K // 2].nonzero().flatten().tolist()
        should = list(range(start, start + planes))
        name = ("time", "height", "width")[axis]
        assert found == should, f"planes {found[0]} to {found[-1]} turn with {name}"
        start += planes


for claim in (only_the_distance_counts, text_is_plain, each_axis_has_its_planes):
    claim(mrope)

# %% [markdown]
# ### Break it
#
# The axes in the wrong order. Text has the same number on all three, so two of the three claims
# still hold: **tests with text alone can't see it.**

# %%
swapped = broken(mrope, "axes = zip(positions, sections", "axes = zip(positions.flip(0), sections")
only_the_distance_counts(swapped)
text_is_plain(swapped)
with fails():
    each_axis_has_its_planes(swapped)

# %% [markdown]
# ## How far each cell turns
#
# A picture of 4 × 6 cells. Here is the angle of each cell, beside that of the first one, in the
# fastest plane of each axis; and the speed of every plane.

# %%
frequency = theta ** (-2 * torch.arange(K // 2) / K)
row, column = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
cell = torch.stack([torch.zeros_like(row), row, column]).flatten(1)[:, None]  # [3, 1, 24]
_, sin = mrope(cell, width=K, theta=theta, sections=sections)
angles = sin[0, :, : K // 2].asin().view(4, 6, -1)  # all are small, so the sine tells the angle
first = {"time": 0, "height": 16, "width": 40}
assert close(angles[3, 5, 16], 3 * frequency[16])
assert close(angles[3, 5, 40], 5 * frequency[40])
assert (angles[..., :16] == 0).all()

# %% [drawing]
figure, panels = drawing(8.6, 4.9, rows=2, columns=3, height_ratios=(2, 2.4))
for axes, (name, plane) in zip(panels[:3], first.items(), strict=True):
    shown = 1000 * angles[..., plane]
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1.5 * max(shown.max(), 0.1))
    for r, c in torch.cartesian_prod(torch.arange(4), torch.arange(6)).tolist():
        axes.text(c, r, f"{shown[r, c]:.2g}", ha="center", va="center", fontsize=7)
    axes.set(title=f"{name}: plane {plane}, in mrad", xlabel="column", ylabel="row")
    axes.spines[:].set_visible(False)
grid = panels[3].get_gridspec()
for axes in panels[3:]:
    axes.remove()
speeds = figure.add_subplot(grid[1, :])
start = 0
for (name, planes), look in zip(
    zip(first, sections, strict=True), (BLUE, ORANGE, GREEN), strict=True
):
    here = slice(start, start + planes)
    speeds.plot(range(start, start + planes), frequency[here], markersize=4, label=name, **look)
    start += planes
speeds.set(title="Radians a step", xlabel="plane", ylabel="radians (log scale)", yscale="log")
speeds.legend()
picture(
    figure,
    "Above, three maps of 4 by 6 cells, in thousandths of a radian. Time's plane turns no cell, since a picture has "
    "one time. Height's turns each row by about 32 more. Width's turns each column by about 0.18 more. Below, the "
    "speeds of the 64 planes fall along one straight line on a log scale: time has the fast ones, width the slow ones.",
    ["axis", "planes", "radians a step, fastest", "slowest"],
    [
        [
            name,
            f"{start} to {start + planes - 1}",
            f"{frequency[start]:.2g}",
            f"{frequency[start + planes - 1]:.2g}",
        ]
        for name, start, planes in zip(first, (0, 16, 40), sections, strict=True)
    ],
)

# %% [markdown]
# The axes are no equals: a column is a far smaller turn than a moment. The released model has
# learned with that.
#
# ## A conversation's positions
#
# - Text counts up, alike on all axes.
# - A picture at position $p$ has time $p$, height $p$ + row, width $p$ + column.
# - What follows goes on from the largest number so far, plus 1.
#
# A word, a picture of 2 × 3 cells, a word:

# %%
config = Config()
word, pad = 1, config.image_token_id
ids = torch.tensor([[word, *[pad] * 6, word]])
grids = torch.tensor([[1, 4, 6]])  # times, rows and columns in patches
found, after = rotary.positions(ids, grids, config=config)
assert found[:, 0].tolist() == [
    [0, 1, 1, 1, 1, 1, 1, 4],
    [0, 1, 1, 1, 2, 2, 2, 4],
    [0, 1, 2, 3, 1, 2, 3, 4],
]
assert after.tolist() == [5]
names = ["word", *["cell"] * 6, "word"]
table(["", *names], [[axis, *found[i, 0].tolist()] for i, axis in enumerate(first)])

# %% [markdown]
# Eight tokens, and the next position is 5. So a memory keeps two counts: tokens seen, by which the
# ring's slots go, and the next position, by which angles go.
#
# **A video has a clock.** Two of its frames make one slice, and a slice's time goes by whole
# seconds, twice as fast:

# %%
ids = torch.tensor([[word, *[config.video_token_id] * 8, word]])
grids = torch.tensor([[4, 2, 4]])  # four slices of 1 × 2 cells
clocks = {}
for seconds in (0.5, 1.0, 1.9, 3.0):
    found, _ = rotary.positions(ids, grids, config=config, seconds_per_grid=seconds)
    clocks[seconds] = found[0, 0].tolist()
assert (
    clocks[1.0] == clocks[1.9] == [0, 1, 1, 3, 3, 5, 5, 7, 7, 8]
)  # seconds are cut off, not rounded
assert clocks[0.5] == [0] + [1] * 8 + [3]  # under a second a slice, time stands still
table(
    ["seconds a slice", "word", *(f"slice {i // 2 + 1}" for i in range(8)), "word"],
    [[seconds, *clock] for seconds, clock in clocks.items()],
)

# %% [markdown]
# ## A million tokens
#
# A stream's positions never stop growing, and float32 has seven digits in all. So angles are made
# in float64, and only their cosine and sine are narrowed:

# %%
position = torch.arange(0, 1_000_001, 997)
exact = position[:, None] * frequency
narrow = (position.float()[:, None] * frequency.float()).double()
worst = (exact - narrow).abs().max()
print(f"the largest error of a float32 angle up to position 1,000,000: {worst:.2f} radians")
assert 0.01 < worst < 0.07
assert worst > frequency[15]  # more than a step of time's slowest plane

# %% [markdown]
# ## Three questions
#
# **1.** How many tokens is a frame of 448 × 448 pixels, and how many positions does it take up on
# the axis that text counts by?
#
# <details><summary>Answer</summary>
#
# 16 × 16 = 256 tokens, but only 16 positions: the largest number it uses is $p + 15$.
#
# </details>
#
# **2.** Why can a key be stored turned, and why must it not be turned by the slot it is stored in?
#
# <details><summary>Answer</summary>
#
# A product of turned vectors depends on the difference of positions, so a key turned at its own
# absolute position is right for all later queries. A slot is the position modulo the number of
# slots: right until the ring wraps, and wrong ever after.
#
# </details>
#
# **3.** A picture is mirrored along its diagonal, rows for columns. Which assertion of this
# notebook would notice, if the code did that by mistake?
#
# <details><summary>Answer</summary>
#
# `token_shows_its_cell` for the pixels, and the table of positions for the angles. The count of
# tokens would not: the mirrored picture has just as many.
#
# </details>
