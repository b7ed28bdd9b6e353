"""`python -m minivl bench int8`: what int8 matrices cost and save, beside the same model unquantised.

All forms read one prompt, a picture and words, and score the next word at each of its tokens; the scores are held
against the unquantised model's. Then the prompt is read once more for its time, and an answer of fixed length is
given for a token's. Random weights give honest times and memory, but no honest errors: they amplify every rounding.

    error       |scores − unquantised| / |unquantised|, over all tokens and words
    same best   the share of tokens after which both find the same word likeliest
    KL          Σ p (log p − log q) over the words, p unquantised, in nats: the mean over the tokens, and the largest
"""

import argparse
import gc
import itertools
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import checkpoint_folder, load_model, usable_device
from ..commands.options import whole
from ..generate import generate, prefill
from ..layers.int8 import nbytes
from ..model import InfiniteVL
from ..processor import Inputs, load_processor
from ..verify.prompt import TEXT, prompt
from .files import make_ready
from .measure import machine

ANSWER = 64  # tokens
WARMING = 8  # tokens, after which kernels are compiled and a step is captured
ROUNDS = 3  # readings of the prompt
PIECE = 64  # tokens whose scores are compared at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a checkpoint's folder")
    parser.add_argument("--device", metavar="NAME", help="default: cuda where there is a GPU, else cpu")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="a picture (default: a drawn one)")
    parser.add_argument("--tokens", type=whole, default=512, metavar="T", help="the prompt's length (default: 512)")
    parser.add_argument(
        "--float32",
        action="store_true",
        help="the model in float32, too, which takes twice the memory and shows how much 16 bits alone cost",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")


def run(args: argparse.Namespace) -> None:
    if args.json:
        make_ready(args.json)
    folder, device = checkpoint_folder(args.model), usable_device(args.device or None)
    processor = load_processor(folder)
    inputs = prompt(processor, images=args.image, text=TEXT, tokens=args.tokens)
    on_gpu = device.type == "cuda"
    about = {**machine(), "gpu": torch.cuda.get_device_name(device) if on_gpu else None, "prompt": args.tokens}
    print(f"{about['gpu'] or about['cpu']}; torch {about['torch']}; a prompt of {args.tokens} tokens", flush=True)
    rows = measure(folder, device, inputs, float32=args.float32)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps({"on": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, device: torch.device, inputs: Inputs, *, float32: bool) -> list[dict]:
    """A row for each form of the model, which are on the device one after the other."""
    plain = {"dtype": None if device.type == "cuda" else torch.float32}
    forms = {"unquantised": plain, "int8": {**plain, "int8": True}, "int8, tower too": {**plain, "int8": "all"}}
    if float32:
        forms["float32"] = {"dtype": torch.float32}
    rows, oracle = [], None
    inputs = inputs.to(device)
    for name, options in forms.items():
        gc.collect()  # the model before this one
        with torch.no_grad():
            row, scores = measure_one(folder, device, inputs, options)
            oracle = scores if oracle is None else oracle
            rows.append({"what": name, **row, **difference(scores, oracle, device)})
    return rows


def measure_one(folder: Path, device: torch.device, inputs: Inputs, options: dict) -> tuple[dict, Tensor]:
    """What loading, reading and decoding took; and the scores after each token [T, vocabulary], on the CPU."""
    peak = new_peak(device)
    start = time.perf_counter()
    model = load_model(folder, device=device, **options)
    row = {"load_seconds": elapsed(device, start), "weights_gb": nbytes(model) / 1e9, "load_peak_gb": peak()}
    model.fuse()
    scores = read(model, inputs)[0].cpu()
    peak = new_peak(device)
    row["prompt_ms"] = 1e3 * statistics.median(reading(model, inputs, device) for _ in range(ROUNDS))
    row["token_ms"] = 1e3 * decoding(model, inputs)
    return {"dtype": str(model.dtype), **row, "peak_gb": peak()}, scores


def read(model: InfiniteVL, inputs: Inputs) -> Tensor:
    """The scores after every token of the prompt."""
    memory = model.new_memory(room=inputs.ids.shape[1])
    seen = {"positions": inputs.positions, "pixels": inputs.pixels, "grids": inputs.grids}
    return model(inputs.ids, memory=memory, **seen)


def reading(model: InfiniteVL, inputs: Inputs, device: torch.device) -> float:
    memory = model.new_memory(room=inputs.ids.shape[1])
    prefill(model, inputs, memory.clone())  # what a first call compiles
    start = elapsed(device, 0)
    prefill(model, inputs, memory)
    return elapsed(device, start)


def decoding(model: InfiniteVL, inputs: Inputs) -> float:
    """The median of the seconds from one token in hand to the next."""
    tokens = generate(model, inputs, max_new_tokens=WARMING + ANSWER, stop_tokens=())
    times = [time.perf_counter() for _ in tokens][WARMING - 1 :]
    return statistics.median(after - before for before, after in itertools.pairwise(times))


def elapsed(device: torch.device, start: float) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def new_peak(device: torch.device):
    """From now on: a function that tells the most gigabytes held on the device at once, None where nobody counts."""
    if device.type != "cuda":
        return lambda: None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return lambda: torch.cuda.max_memory_allocated(device) / 1e9


def difference(scores: Tensor, oracle: Tensor, device: torch.device) -> dict:
    """How far scores [T, vocabulary] are from the oracle's, in float64 and a few tokens at a time."""
    squares, size, same, divergence = 0.0, 0.0, 0, []
    for ours, theirs in zip(scores.split(PIECE), oracle.split(PIECE), strict=True):
        ours, theirs = ours.to(device).double(), theirs.to(device).double()
        squares, size = squares + (ours - theirs).square().sum().item(), size + theirs.square().sum().item()
        same += (ours.argmax(-1) == theirs.argmax(-1)).sum().item()
        p, q = theirs.log_softmax(-1), ours.log_softmax(-1)
        divergence += (p.exp() * (p - q)).sum(-1).tolist()
    return {
        "error": (squares / size) ** 0.5,
        "same_best": same / len(scores),
        "kl_mean": statistics.fmean(divergence),
        "kl_largest": max(divergence),
    }


def table(rows: list[dict]) -> str:
    heads = ("weights", "peak", "at loading", "prompt", "token", "error", "same best", "KL", "largest")
    lines = [f"{'':16}" + "".join(f"{head:>12}" for head in heads)]
    for row in rows:
        size = "".join(f"{gigabytes(row[name]):>12}" for name in ("weights_gb", "peak_gb", "load_peak_gb"))
        speed = f"{row['prompt_ms']:>9.1f} ms{row['token_ms']:>9.2f} ms"
        lines.append(
            f"{row['what']:16}{size}{speed}{row['error']:>12.1e}{row['same_best']:>12.1%}"
            f"{row['kl_mean']:>12.1e}{row['kl_largest']:>12.1e}"
        )
    return "\n".join(lines)


def gigabytes(size: float | None) -> str:
    if size is None:
        return "—"
    return f"{size:.2f} GB" if size >= 0.1 else f"{1e3 * size:.2f} MB"
