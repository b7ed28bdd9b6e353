"""`python -m minivl demo --ladder`: the whole ladder on a CPU in under a minute, with no weights to fetch.

First each rung's fast form is held against its naive one. Then 8 keys are written 4 times each, and linear attention,
the delta rule and the gated delta rule say what they remember. Then a stream runs through one small hybrid block: its
memory stays as large as it was, and so does the time a token takes. The weights are random: nothing here speaks, and
nothing here needs to, since every line is about a property that holds for any weights. A check that fails is printed
as FAILED and makes the exit code 1.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import torch
from tqdm import tqdm

from ..bench.files import make_ready
from ..bench.ladder import LADDER, Inputs, relative_error
from ..bench.measure import interleaved
from ..config import DecoderConfig
from ..layers.decoder import HybridBlock
from ..ops import delta_rule, gated_delta_rule, linear_attention
from ..ops.delta_rule import unit

WINDOW, PIECE = 64, 256
CONFIG = DecoderConfig(
    hidden_size=64,
    intermediate_size=128,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    sliding_window=WINDOW,
    mrope_section=(2, 3, 3),
    num_linear_heads=2,
    linear_head_dim=16,
)


class Checks:
    """Prints each check as it is made, and counts those that failed."""

    def __init__(self):
        self.made = self.failed = 0

    def __call__(self, holds: bool, line: str) -> None:
        self.made += 1
        self.failed += not holds
        print(f"  {'ok    ' if holds else 'FAILED'} {line}", flush=True)


def climb(check: Checks) -> None:
    """Each rung: the fast form's error against the naive one in float64, and how much faster it is."""
    x = Inputs.random(T=512, H=4, K=32, V=64, window=WINDOW)
    print("\n1. The ladder: the fast form of each rung against its naive one, 512 tokens, relative errors")
    for name, rung in LADDER.items():
        oracle = rung.naive(x.double())[0]
        error64 = relative_error(rung.fast(x.double())[0], oracle)
        error32 = relative_error(rung.fast(x)[0], oracle)
        forms = {"naive": lambda rung=rung: rung.naive(x), "fast": lambda rung=rung: rung.fast(x)}
        seconds = interleaved(forms, rounds=3, label=name)
        check(
            error64 < 1e-10 and error32 < 1e-5,
            f"{name:17} {rung.naive_name:>9} = {rung.fast_name:8} to {error64:.0e} in float64 and {error32:.0e} in "
            f"float32, {min(seconds['naive']) / min(seconds['fast']):5.1f} times as fast",
        )


def overwrite(check: Checks) -> dict[str, float]:
    """8 keys, each written 4 times with a new value; the share of keys that answer with the value written last.

    An answer counts as right if, of all 32 values that were written, the last one for its key is nearest in angle.
    """
    trials, keys, times, width = 64, 8, 4, 32
    key, value = unit(torch.randn(trials, keys, width)), torch.randn(trials, times * keys, 1, width)
    k = key.repeat(1, times, 1).unsqueeze(2)
    one = torch.ones(trials, times * keys, 1)
    states = {
        "linear attention": linear_attention.chunked(k, k, value)[1],
        "delta rule": delta_rule.chunked(k, k, value, beta=one)[1],
        "gated delta rule": gated_delta_rule.chunked(k, k, value, beta=one, log_decay=-0.02 * one)[1],
    }
    recalled = {}
    print(f"\n2. Overwriting: {keys} keys written {times} times each; which value comes back? ({trials} trials)")
    for name, state in states.items():
        answer = key @ state[:, 0]
        nearest = (unit(answer) @ unit(value[:, :, 0]).mT).argmax(-1)
        recalled[name] = (nearest == torch.arange(keys) + (times - 1) * keys).float().mean().item()
        error = relative_error(answer, value[:, -keys:, 0].double())
        wants_all = name != "linear attention"
        check(
            recalled[name] > 0.9 if wants_all else recalled[name] < 0.5,
            f"{name:17} recalls the newest value of {recalled[name]:4.0%} of the keys, with an error of {error:.2f}",
        )
    return recalled


@torch.no_grad()
def stream(check: Checks, tokens: int) -> tuple[list[int], list[float], dict[int, int]]:
    """Returns each piece's bytes of memory and milliseconds, and a full-attention twin's bytes by tokens seen."""
    print(f"\n3. A stream of {tokens:,} tokens through one hybrid block (random weights, window {WINDOW})")
    block = with_random_weights(HybridBlock(CONFIG))
    memory = block.new_memory(longest_write=PIECE)
    x = torch.randn(1, PIECE, CONFIG.hidden_size)
    nbytes, milliseconds = [], []
    for _ in tqdm(range(tokens // PIECE), desc="streaming", leave=False, disable=None):
        start = time.perf_counter()
        out = block(x, memory=memory)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        nbytes.append(memory.nbytes)
        x = x.roll(1, dims=1)
    check(
        bool(out.isfinite().all()) and memory.tokens_seen == tokens, f"{memory.tokens_seen:,} tokens seen, all finite"
    )

    twin = HybridBlock(dataclasses.replace(CONFIG, layer_types=("full_attention",) * len(CONFIG.layer_types)))
    lengths = range(tokens // 16, tokens + 1, tokens // 16)
    twin_bytes = {seen: twin.new_memory(longest_write=1, room=seen).nbytes for seen in lengths}
    check(
        len(set(nbytes)) == 1,
        f"memory {nbytes[0]:,} bytes from first to last; a twin with full attention needs {twin_bytes[tokens]:,}",
    )
    quarter = max(1, len(milliseconds) // 4)
    early, late = min(milliseconds[:quarter]), min(milliseconds[-quarter:])
    check(late < 1.5 * early, f"{PIECE} tokens take {early:.1f} ms in the first quarter, {late:.1f} ms in the last")

    block = block.double()
    x = torch.randn(1, 5 * WINDOW, CONFIG.hidden_size, dtype=torch.float64)
    whole = block(x)
    memory = block.new_memory(longest_write=PIECE)
    parts = torch.cat([block(part, memory=memory) for part in x.split([1, 100, 63, 156], dim=1)], dim=1)
    error = relative_error(parts, whole)
    check(error < 1e-10, f"320 tokens in pieces of 1, 100, 63 and 156 give the answer of one call, to {error:.0e}")

    before = {name: tensor.clone() for name, tensor in memory.tensors().items()}
    block(x, memory=memory.clone())
    untouched = all(torch.equal(before[name], tensor) for name, tensor in memory.tensors().items())
    check(untouched, "a question asked of a clone leaves the stream's memory as it was, bit for bit")
    return nbytes, milliseconds, twin_bytes


def with_random_weights(block: HybridBlock) -> HybridBlock:
    """Weights so large that a layer changes its input about as much as it keeps it: checks see every layer."""
    for weight in block.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return block


def draw(path: Path, recalled: dict[str, float], nbytes: list[int], milliseconds: list[float], twin: dict) -> None:
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(13, 4), layout="constrained")
    recall, memory, latency = figure.subplots(1, 3)
    recall.bar(list(recalled), list(recalled.values()), color=["#56B4E9", "#0072B2", "#009E73"], hatch=["/", "", "x"])
    recall.set(title="8 keys written 4 times: newest value recalled", ylabel="share of keys", ylim=(0, 1.05))
    seen = [PIECE * (n + 1) for n in range(len(nbytes))]
    memory.semilogy(list(twin), list(twin.values()), color="#D55E00", marker="s", label="full-attention twin")
    memory.semilogy(seen, nbytes, color="#009E73", label="hybrid block, window 64")
    memory.set(title="Memory of the stream", xlabel="tokens seen", ylabel="bytes")
    memory.legend()
    latency.plot(seen, milliseconds, color="#009E73", linestyle="", marker=".")
    latency.set(title=f"Time for {PIECE} tokens", xlabel="tokens seen", ylabel="ms", ylim=(0, None))
    figure.savefig(path, dpi=110)


def run(args: argparse.Namespace) -> int:
    if args.tokens < 64 * PIECE or args.tokens % PIECE:
        raise ValueError(f"--tokens is {args.tokens}; it should be a multiple of {PIECE}, at least {64 * PIECE}")
    make_ready(args.report, ".png")
    start = time.perf_counter()
    torch.manual_seed(0)
    print("MiniVL's demo of its ladder: the parts of the model and what they promise. Random weights: no language yet.")
    check = Checks()
    climb(check)
    recalled = overwrite(check)
    measured = stream(check, args.tokens)
    draw(args.report, recalled, *measured)
    print(f"\n{check.made - check.failed} of {check.made} checks hold, {time.perf_counter() - start:.0f} s")
    print(f"report: {args.report}")
    return 1 if check.failed else 0
