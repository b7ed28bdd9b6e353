# %% [markdown]
# # 7 · The Triton kernel, in the interpreter
#
# **At the end you can**
#
# - read a Triton kernel beside its twin in PyTorch, and say which line does what;
# - say for each line how many bytes it moves, and why the kernel moves less;
# - say which products of the loop wait for each other, and how one of them was taken out of it.
#
# Before it: [chunks and the WY form](04_chunks_and_wy.ipynb). No GPU is needed: Triton's
# interpreter runs each program of a kernel in NumPy. It is slow, and right. It needs Linux, since
# Triton exists for nothing else.

# %%
import os

os.environ["TRITON_INTERPRET"] = "1"  # Triton asks once, when a kernel is defined

# %%
import inspect
import sys
from collections import Counter
from unittest.mock import patch

import torch
from lesson import (
    BLUE,
    ORANGE,
    broken_module,
    close,
    drawing,
    fails,
    needs,
    picture,
    show,
    table,
)
from torch.utils._python_dispatch import TorchDispatchMode

from minivl.ops import gated_delta_rule as twin
from minivl.ops.delta_rule import unit

needs("triton", "It exists for Linux only; a container, WSL2 or a notebook service has it.")

# %%
from triton.runtime.interpreter import InterpreterBuilder

from kernels import chunked as kernel

torch.manual_seed(0)
TOLERANCE = 1e-5  # relative, in float32

# %% [markdown]
# ## One program, one tile
#
# A kernel is written for one *program*. It finds out which one it is (`tl.program_id`), loads its
# tiles from memory, works on them in registers, and stores what comes out. A *grid* of programs
# runs side by side, in no order, and they can't talk. So whatever must happen in order stands in a
# loop within one program.
#
# The rule has both kinds of work. `gram`, `mix` and `scores` of a chunk don't depend on the state:
#
# $$\text{mix} = (I + \text{gram})^{-1} \, \text{diag}(\beta)$$
#
# $$\text{scores} = \text{scale} \cdot \text{decay} \circ Q K^\top$$
#
# `chunk_kernel` makes them with one program for each chunk and head. The rest walks from state to
# state, in a loop; `state_kernel` has one program for each head and slice of the values' columns,
# since columns never meet.
#
# The loop is what takes time, because its products wait for one another. The twin has three in a
# row: $K S$, then `mix` times the residual, then $K^\top$ times that. **Multiply out, and one of
# them leaves the loop:**
#
# $$\text{delta} = \text{mix} \, (V - K_{\text{in}} S) = \text{mix} \, V + \text{erased} \, S$$
#
# $$\text{erased} = -\text{mix} \, K_{\text{in}}$$
#
# `erased` doesn't depend on the state. `chunk_kernel` can make it beforehand.

# %%
show(kernel.chunk_kernel)

# %%
show(kernel.state_kernel)

# %% [markdown]
# The kernel holds the state transposed, `[V, K]`, for the sake of the GPU's registers; its names
# are the twin's. It must give what the twin gives, from a state that isn't zero, for a number of
# tokens that fills no chunk:


# %%
def inputs(T=70, H=2, K=16, V=32, dtype=torch.float32):
    """q, k, v, log_decay, beta and state, on the CPU, with nothing friendly about them."""
    q, k, v = torch.randn(1, T, H, K), unit(torch.randn(1, T, H, K)), torch.randn(1, T, H, V)
    log_decay = torch.nn.functional.logsigmoid(3 * torch.randn(1, T, H) + 3)
    return [x.to(dtype) for x in (q, k, v)] + [
        log_decay,
        torch.rand(1, T, H),
        torch.randn(1, H, K, V),
    ]


def run_twin(q, k, v, log_decay, beta, state):
    wide = [x.double() for x in (q, k, v, log_decay, beta, state)]
    return twin.chunked(*wide[:3], log_decay=wide[3], beta=wide[4], state=wide[5])


def run_kernel(module, q, k, v, log_decay, beta, state):
    return module.forward(q, k, v, log_decay, beta, state, 1.0, False)


given = inputs()
right, right_end = run_twin(*given)


def equals_the_twin(module):
    out, end = run_kernel(module, *given)
    for t in range(out.shape[1]):
        place = f"the first wrong output is token {t % 16} of chunk {t // 16}"
        assert close(out[:, t].double(), right[:, t], TOLERANCE), place
    assert close(end.double(), right_end, TOLERANCE), (
        "all outputs are right, but the final state is wrong"
    )


equals_the_twin(kernel)

# %% [markdown]
# With 16-bit inputs the products take 16-bit numbers, and the error is that of rounding them.
# (float16 here: in NumPy, and so in the interpreter, there is no bfloat16.)

# %%
narrow = inputs(dtype=torch.float16)
out, end = run_kernel(kernel, *narrow)
expected, expected_end = run_twin(*narrow)
errors = [
    ((a.double() - b).norm() / b.norm()).item() for a, b in ((out, expected), (end, expected_end))
]
print(f"float16: error of the outputs {errors[0]:.0e}, of the state {errors[1]:.0e}")
assert max(errors) < 1e-2

# %% [markdown]
# ### Break it
#
# Three mistakes, each of them usual: the old state isn't faded; a token doesn't see its own write;
# a level of the inverse is left out. Guess from the kernel where each of them shows first.

# %%
unfaded = broken_module(kernel, "fade * S, PRECISION)", "S, PRECISION)")
with fails():
    equals_the_twin(unfaded)

# %%
strict = broken_module(kernel, "past = token[:, None] >= token", "past = token[:, None] > token")
with fails():
    equals_the_twin(strict)

# %% [markdown]
# ## The inverse by halves
#
# `mix` needs the inverse of a triangular matrix. Solving row by row would be a loop of $C$ steps
# that wait for each other. Cut the matrix into halves instead. Once its two diagonal blocks are
# inverted, two products give the rest, *exactly*:
#
# $$\begin{pmatrix} A & 0 \\ M & D \end{pmatrix}^{-1} =
# \begin{pmatrix} A^{-1} & 0 \\ -D^{-1} M A^{-1} & D^{-1} \end{pmatrix}$$
#
# So blocks of 1, which are their own inverses, give those of 2, then 4, 8, 16, and so on: $\log_2
# C$ levels.

# %%
show(kernel.halves, kernel.unit_triangular_inverse)


# %%
def levels(gram):
    """The same in PyTorch, and the largest error after each level."""
    C = len(gram)
    inverse, block, exact = (
        torch.eye(C),
        torch.arange(C),
        torch.linalg.inv(torch.eye(C) + gram.double()),
    )
    found = []
    while block.any():
        quarter = (block[:, None] == block[None, :] + 1) & (block[:, None] % 2 == 1)
        inverse = inverse - inverse @ torch.where(quarter, gram, 0) @ inverse
        block = block // 2
        found.append((inverse - exact).abs().max().item())
    return found


key = unit(torch.randn(16, 16))
left = levels((0.9 * key @ key.mT).tril(-1))
table(
    ["blocks of", *(2 ** (i + 1) for i in range(len(left)))],
    [["largest error", *(f"{x:.0e}" for x in left)]],
)
assert left[-1] < 1e-6 < left[-2]

# %% [markdown]
# Now the third mistake. Without the level that makes blocks of 16 from blocks of 8, tokens 0 to 7
# of a chunk are right: they find only each other. Token 8 is the first that should find someone in
# the other half.

# %%
shallow = broken_module(kernel, "tl.static_range(1, 4)", "tl.static_range(1, 3)")
with fails():
    equals_the_twin(shallow)

# %% [markdown]
# ## What each line moves
#
# A GPU computes far faster than it reads memory, so bytes are what to count. The interpreter lets
# us: each load and store goes through it, and the line of the kernel that asked can be looked up.
# For the twin, each of PyTorch's operations reads its inputs from memory and writes its output
# there.


# %%
def asking(names, frame):
    """The line of the kernel or twin on behalf of which this happens."""
    while frame is not None:
        if frame.f_code.co_name in names and frame.f_globals["__name__"] in (
            kernel.__name__,
            twin.__name__,
        ):
            return frame.f_code.co_name, frame.f_lineno
        frame = frame.f_back
    return None


def kernel_bytes(run):
    moved = Counter()
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store

    def count(pointers, mask):
        place = asking(("chunk_kernel", "state_kernel"), sys._getframe(2))
        moved[place] += int(mask.data.sum()) * pointers.get_element_ty().primitive_bitwidth // 8

    def counted_load(self, pointers, mask, *rest):
        count(pointers, mask)
        return load(self, pointers, mask, *rest)

    def counted_store(self, pointers, value, mask, *rest):
        count(pointers, mask)
        return store(self, pointers, value, mask, *rest)

    with (
        patch.object(InterpreterBuilder, "create_masked_load", counted_load),
        patch.object(InterpreterBuilder, "create_masked_store", counted_store),
    ):
        run()
    return moved


class TwinBytes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.moved = Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        out = operation(*arguments, **(options or {}))
        tensors = [
            x
            for x in torch.utils._pytree.tree_leaves((arguments, out))
            if isinstance(x, torch.Tensor)
        ]
        storages = {x.untyped_storage().data_ptr() for x in tensors}
        if len(storages) > 1 or not arguments:  # a view moves nothing
            self.moved[asking(("chunked",), sys._getframe(1))] += sum(
                x.numel() * x.element_size() for x in tensors
            )
        return out


T, H, K, V = 256, 1, 64, 128
q, k, v, log_decay, beta, state = inputs(T, H, K, V, torch.float16)
by_kernel = kernel_bytes(lambda: run_kernel(kernel, q, k, v, log_decay, beta, state))
with TwinBytes() as counted:
    twin.chunked(q, k, v, log_decay=log_decay, beta=beta, state=state, chunk=32)
by_twin = counted.moved

floor = (
    2 * T * H * (2 * K + 2 * V) + 2 * 4 * T * H + 2 * 4 * H * K * V
)  # each input and output once
totals = {"kernel": sum(by_kernel.values()), "twin": sum(by_twin.values())}
assert floor < totals["kernel"] < totals["twin"]


# %%
def code_at(module, line):
    text = inspect.getsource(module).splitlines()[line - 1].strip()
    return text if len(text) <= 58 else text[:57] + "…"


# %% [drawing]
figure, panels = drawing(8.6, 8.4, rows=2, height_ratios=(19, 13), sharex=True)
SHOWN = (
    (panels[0], kernel, by_kernel, BLUE, "The kernel's lines"),
    (panels[1], twin, by_twin, ORANGE, "The twin's lines"),
)
rows = []
for axes, module, moved, look, title in SHOWN:
    lines = sorted((place for place in moved if place), key=lambda place: place[1])
    labels = [code_at(module, line) for _, line in lines]
    sizes = [moved[place] / 1024 for place in lines]
    axes.barh(
        range(len(lines)),
        sizes,
        color=look["color"],
        hatch="//" if module is twin else None,
        edgecolor="white",
    )
    axes.set_yticks(range(len(lines)), labels, fontsize=7, family="monospace")
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_title(f"{title}: {sum(sizes):,.0f} KiB in all", fontsize=10)
    largest = sorted(zip(sizes, labels, strict=True), reverse=True)[:6]
    rows += [[title, f"`{label}`", f"{size:.0f}"] for size, label in largest]
panels[1].set_xlabel("KiB moved, for 256 tokens, one head, keys of 64 and values of 128")
picture(
    figure,
    "Bars: how much each line of the kernel moves, and below each line of the twin. The kernel's largest lines are "
    "those that load a chunk's tiles in the loop. In the twin the loop's lines that read and write the state move "
    "most; in all it moves several times as much.",
    ["", "its six largest", "KiB"],
    rows,
)

# %% [markdown]
# Where the difference comes from:
#
# - **The state never leaves the registers.** In the twin each chunk reads it several times and writes it anew.
# - **What is made in a program is used there.** `decay`, `gram` and the steps of the inverse are never stored.
# - **Inputs stay in 16 bits**, and are widened in registers.

# %%
table(
    ["", "KiB", "times the floor"],
    [
        ["each input and output once: the floor", f"{floor / 1024:,.0f}", "1.0"],
        *([name, f"{size / 1024:,.0f}", f"{size / floor:.1f}"] for name, size in totals.items()),
    ],
)

# %% [markdown]
# What the kernel moves beyond the floor stands between its two halves: `mix`, `scores`, `erased`
# and `q_in` are stored once, and loaded once for each slice of V, mostly from the cache. That is
# the price for doing most of the work out of order.
#
# ## On a GPU
#
# Timings in the interpreter mean nothing. [The kernels, line by line](../docs/kernels.md) has
# measured ones, and `python -m minivl bench kernels` measures yours, if there is one.
#
# ## Three questions
#
# **1.** Why is `decay` masked before the exponential, `exp(where(past, between, −∞))`, and not
# after?
#
# <details><summary>Answer</summary>
#
# Above the diagonal the sums are positive, and their exponential may be infinite. Infinity times
# the mask's 0 is not a number. Masked first, it is exp(−∞) = 0.
#
# </details>
#
# **2.** 16 heads, V = 256, slices of 64. How many programs walk through the chunks, and why not one
# for each chunk?
#
# <details><summary>Answer</summary>
#
# 16 · 256 / 64 = 64. Each chunk needs the state that the one before it leaves, and programs can't
# wait for each other, so the chunks of a slice are a loop in one program.
#
# </details>
#
# **3.** You halve the chunk. What happens to the bytes of `mix` and `scores`, and to the loop?
#
# <details><summary>Answer</summary>
#
# A token has C numbers in each of them, so they halve. The loop has twice as many steps, each with
# smaller products. Which is faster has to be measured: on an H200 it is 32 for the forward pass and
# 64 for the gradient.
#
# </details>
