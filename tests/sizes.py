"""What README and docs may say of counts and sizes today: each number from the thing itself, and the table of claims.

A claim is a sentence of a page, as a pattern whose groups are its numbers, and what gives them today. Sizes are those
of the released model, of which only the shapes are made, on PyTorch's meta device.
"""

import ast
import functools
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minivl import demo
from minivl.config import Config
from minivl.course.manifest import ASSIGNMENTS
from minivl.layers.merged import merged
from minivl.model import InfiniteVL
from minivl.train import fonts
from minivl.train.splits import ALPHABET
from notebooks import build

from .pages import ROOT

WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
BF16, FLOAT32 = (torch.finfo(dtype).bits // 8 for dtype in (torch.bfloat16, torch.float32))
LINEAR, WINDOW = (Config().layer_types.count(kind) for kind in ("linear_attention", "sliding_attention"))


@functools.cache
def model() -> InfiniteVL:
    """The released model without its numbers."""
    with torch.device("meta"):
        return InfiniteVL(Config()).to(torch.bfloat16)


def parameters() -> int:
    return sum(x.numel() for x in model().parameters())


def mixer(kind: str) -> torch.nn.Module:
    return model().model.language_model.layers[Config().layer_types.index(kind)].self_attn


def projections(kind: str) -> Tensor:
    """What a layer of this kind multiplies its input by, merged."""
    mixers = {"linear_attention": "qkvgab", "sliding_attention": "qkv"}
    if kind in mixers:
        return merged(*(getattr(mixer(kind), f"{name}_proj") for name in mixers[kind])).weight
    feed_forward = model().model.language_model.layers[0].mlp
    return merged(feed_forward.gate_proj, feed_forward.up_proj).weight


def rows(weight: Tensor) -> str:
    return f"{len(weight):,}"


def megabytes(weight: Tensor) -> str:
    size = weight.numel() * BF16 / 1e6
    return f"{size:.0f}" if size >= 100 else f"{size:.1f}"


def read_by_a_token() -> int:
    """Bytes of all matrices that a token is multiplied by, the words' table once."""
    decoder = model().model.language_model
    matrices = sum(x.numel() for x in decoder.layers.parameters() if x.ndim == 2)
    return BF16 * (matrices + decoder.embed_tokens.weight.numel())


def text(*path: str) -> str:
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def lines_of_code(page: str, heading: str) -> str:
    """Statements of the first block under a heading, imports not counted."""
    block = text("docs", page).split(f"{heading}\n")[1].split("```python\n")[1].split("```")[0]
    return WORDS[sum(bool(line.strip()) and not line.startswith(("from ", "import ")) for line in block.splitlines())]


def spilled() -> tuple[str, str]:
    """Bytes that kernels of the rule may spill, by the test that holds them to it: by Triton 3.7 and by 3.6."""
    limits = r"= \((\d+), \d+\) if triton.__version__.startswith\(\"3\.6\.\"\) else \((\d+), "
    older, newer = re.search(limits, text("tests", "kernels", "test_kernels_resources.py")).groups()
    return newer, older


def shared_memory() -> str:
    """What an RTX 4090 gives a block, in bytes. (Read, since kernels can't be imported where there is no triton.)"""
    table = re.search(r"^SHARED_MEMORY = (\{.*?\})", text("kernels", "resources.py"), re.MULTILINE)[1]
    return f"{ast.literal_eval(table)[89]:,}"


def floor_of_bytes(T: int) -> str:
    names: dict = {"__name__": "bench_report"}
    exec(compile(text("kernels", "bench_report.py"), "bench_report.py", "exec"), names)
    return f"{names['floors'](T)[0]:.2f}"


def frames_in_the_decoder() -> tuple[str, str]:
    """With matrices in 8 bits and in bf16, after as many tokens: milliseconds of the run in docs."""
    found = json.loads(text("docs", "streaming-speed.json"))
    whole = next(row for row in found["readings"] if row["context"] == found["int8"]["context"])
    return tuple(f"{row['decoder_frame_ms']:.2f}" for row in (found["int8"], whole))


def assignments() -> str:
    return WORDS[len(ASSIGNMENTS)]


@dataclass(frozen=True)
class Claim:
    """Wherever the pattern is found on the page, its groups say what `today` gives; and it is found."""

    page: str
    pattern: str
    today: Callable[[], str | int | tuple]

    @property
    def expected(self) -> tuple[str, ...]:
        found = self.today()
        return tuple(map(str, found if isinstance(found, tuple) else (found,)))


CLAIMS = [
    Claim("README.md", r"a (\d+)B\s+vision-language model", lambda: f"{parameters() / 1e9:.0f}"),
    Claim("README.md", r"watches\s+(\d+) frames", lambda: demo.SHOWS["watching"]["frames"]),
    Claim("README.md", r"and (\d+) GB of disk", lambda: math.ceil(BF16 * parameters() / 1e9)),
    Claim("README.md", r"\[(\w+) assignments and a grader", assignments),
    Claim("docs/README.md", r"(\w+) assignments made from this source", assignments),
    Claim("docs/course.md", r"(\w+) assignments are made from this very source", lambda: assignments().capitalize()),
    Claim("docs/neighbours.md", r"(\w+) assignments, graded", assignments),
    Claim("notebooks/README.md", r"a minute of time or (\d+) KB", lambda: build.LARGEST // 1000),
    Claim("docs/24-gb-card.md", r"a download of ([\d.]+) GB", lambda: f"{2 * parameters() / 1e9:.1f}"),
    Claim("docs/24-gb-card.md", r"the weights' ([\d.]+) GB", lambda: f"{2 * parameters() / 1e9:.2f}"),
    Claim("docs/24-gb-card.md", r"in all (\d+) linear layers", lambda: LINEAR),
    Claim("docs/gated-delta-rule.md", r"(\d+) of InfiniteVL's (\d+) layers", lambda: (LINEAR, LINEAR + WINDOW)),
    Claim("docs/stream.md", r"in each of the (\w+) window layers", lambda: WORDS[WINDOW]),
    Claim("docs/stream.md", r"the (\d+) states of the linear layers", lambda: LINEAR),
    Claim("docs/streaming-speed.md", r"the (\d+) Gated DeltaNet layers", lambda: LINEAR),
    Claim("docs/processor.md", r"A tokenizer in (\w+) lines", lambda: lines_of_code("processor.md", "in five lines")),
    Claim("docs/processor.md", r"some ([\d,]+) words", lambda: f"{round(Config().vocab_size, -4):,}"),
    Claim("docs/kernels.md", r"K · V · (\d+) bytes a head", lambda: 2 * FLOAT32),
    Claim("docs/kernels.md", r"\(4 C = (\d+) bytes a token", lambda: 2 * 32 * BF16),
    Claim("docs/kernels.md", r"`erased` and `q_in` \((\d+) bytes\)", lambda: 2 * 128 * BF16),
    Claim("docs/kernels.md", r"floors are ([\d.]+) ms for bytes", lambda: floor_of_bytes(8192)),
    Claim("docs/kernels.md", r"of the ([\d,]+) bytes\s+that an RTX 4090 allows", shared_memory),
    Claim("docs/kernels.md", r"spill at most (\d+) bytes a thread[^(]*\((\d+) by Triton 3\.6", spilled),
    Claim("docs/ring-kernel.md", r"bytes of the ([\d,]+) that an RTX 4090 gives a block", shared_memory),
    Claim("docs/layer-kernels.md", r"q, k, v, g, a, b \| ([\d,]+) \|", lambda: rows(projections("linear_attention"))),
    Claim("docs/layer-kernels.md", r"with biases \| ([\d,]+) \|", lambda: rows(projections("sliding_attention"))),
    Claim("docs/layer-kernels.md", r"gate, up \| ([\d,]+) \|", lambda: rows(projections("feed-forward"))),
    Claim("docs/layer-kernels.md", r"time is that of ([\d.]+) GB", lambda: f"{read_by_a_token() / 1e9:.1f}"),
    Claim("docs/layer-kernels.md", r"The chain of all\s+(\d+)\s+products", lambda: 4 * (LINEAR + WINDOW) + 1),
    Claim(
        "docs/layer-kernels.md",
        r"W_in of a DeltaNet layer, with norm \| ([\d.]+) \|",
        lambda: megabytes(projections("linear_attention")),
    ),
    Claim(
        "docs/layer-kernels.md",
        r"W_in of a window layer, with norm and bias \| ([\d.]+) \|",
        lambda: megabytes(projections("sliding_attention")),
    ),
    Claim(
        "docs/layer-kernels.md",
        r"W_o of a DeltaNet layer, with the sum \| ([\d.]+) \|",
        lambda: megabytes(mixer("linear_attention").o_proj.weight),
    ),
    Claim(
        "docs/layer-kernels.md",
        r"W_gate and W_up, with norm and SiLU \| ([\d.]+) \|",
        lambda: megabytes(projections("feed-forward")),
    ),
    Claim(
        "docs/layer-kernels.md",
        r"W_down, with the sum \| ([\d.]+) \|",
        lambda: megabytes(model().model.language_model.layers[0].mlp.down_proj.weight),
    ),
    Claim(
        "docs/layer-kernels.md",
        r"all words' scores, with norm \| ([\d.]+) \|",
        lambda: megabytes(model().model.language_model.embed_tokens.weight),
    ),
    Claim("docs/int8.md", r"part in the decoder took ([\d.]+) ms instead of ([\d.]+)", frames_in_the_decoder),
    Claim("docs/tiny-world.md", r"(\d+) fonts, 15 to 32 pixels", lambda: len(fonts.SEEN) + len(fonts.UNSEEN)),
    Claim("docs/tiny-world.md", r"a line of 8 random characters out of (\d+)", lambda: len(ALPHABET)),
    Claim("docs/training-4b.md", r"What learns has (\d+) bytes for each number", lambda: FLOAT32),
]
