"""`python -m minivl bench card`: what a checkpoint takes of one GPU, its memory held down to a smaller card's size.

Loading, a picture in a chat, long prompts and three turns of one conversation: seconds, and the most device memory that
each held, the weights included. The answers' words are of no interest here, so random weights serve as well; an answer
has a fixed number of tokens, since no token ends it.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..checkpoint import load
from ..generate import generate, prefill
from ..memory import Memory
from ..processor import Inputs
from .files import make_ready
from .measure import machine
from .model_rows import words

DEVICE = "cuda"
ANSWER, PROMPT = 64, 8192  # tokens
SIDE = 1344  # pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a checkpoint's folder; random weights will do")
    parser.add_argument("--cap-gb", type=float, default=24, metavar="N", help="hold memory down to N GB (default: 24)")
    parser.add_argument("--longest", type=int, default=131_072, metavar="T", help="tokens of the longest prompt")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")


def run(args: argparse.Namespace) -> None:
    if args.json:
        make_ready(args.json)
    if not torch.cuda.is_available():
        raise ValueError("a card's memory is measured on a CUDA device, and this machine has none")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, args.cap_gb * 1e9 / total))
    print(f"{torch.cuda.get_device_name()}, held to {args.cap_gb:g} GB; torch {torch.__version__}")
    rows = measure(args.model, args.longest)
    print(table(rows))
    if args.json:
        about = {**machine(), "gpu": torch.cuda.get_device_name(), "cap_gb": args.cap_gb}
        args.json.write_text(json.dumps({"on": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def measure(source: str, longest: int) -> list[dict]:
    rows = []

    def watch(what: str, job: Callable[[], dict]) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found = job()
        peak, reserved = torch.cuda.max_memory_allocated() / 1e9, torch.cuda.max_memory_reserved() / 1e9
        rows.append({"what": what, **found, "peak_gb": peak, "reserved_gb": reserved})

    held = {}

    def loading() -> dict:
        start = time.perf_counter()
        held["model"], held["processor"] = load(source, device=DEVICE)
        return {"seconds": time.perf_counter() - start}

    watch("load", loading)
    model, processor = held["model"].fuse(), held["processor"]
    picture = [
        {"role": "user", "content": [{"type": "image", "image": noise(SIDE)}, {"type": "text", "text": "What?"}]}
    ]
    watch(f"a picture of {SIDE} × {SIDE}", lambda: answer(model, processor(picture)))
    for T in (PROMPT, longest):
        watch(f"a prompt of {T:,} tokens", lambda T=T: answer(model, words(model, T)))

    memory = model.new_memory()
    follow_up = [{"role": "user", "content": "And what else?"}]
    watch("three turns: the picture", lambda: answer(model, processor(picture), memory))
    for turn in ("second", "third"):
        watch(
            f"three turns: the {turn}",
            lambda: answer(model, processor(follow_up, start=memory.next_position.cpu()), memory),
        )
    return rows


def answer(model, inputs: Inputs, memory: Memory | None = None) -> dict:
    """Milliseconds to read the prompt, and to have the first token in hand; then the rate of those after it.

    The memory is read into on a copy first: kernels that are new to this run are compiled there.
    """
    for _ in generate(model, inputs, max_new_tokens=5, memory=memory and memory.clone()):
        pass
    copy, on_device = memory.clone() if memory else model.new_memory(), inputs.to(DEVICE)
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        prefill(model, on_device, copy)
    torch.cuda.synchronize()
    reading = 1e3 * (time.perf_counter() - start)
    del copy
    times = [time.perf_counter()]
    for _ in generate(model, inputs, max_new_tokens=ANSWER, stop_tokens=(), memory=memory):
        times.append(time.perf_counter())
    rate = (len(times) - 2) / (times[-1] - times[1])
    first = 1e3 * (times[1] - times[0])
    return {"prompt": inputs.ids.shape[1], "reading_ms": reading, "first_token_ms": first, "tokens_a_second": rate}


def noise(size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


def table(rows: list[dict]) -> str:
    lines = [f"{'':28}{'prompt':>8}{'reading':>11}{'first token':>14}{'then':>16}{'peak memory':>14}{'reserved':>12}"]
    for row in rows:
        if "seconds" in row:
            speed = f"{'':>8}{row['seconds']:>9.1f} s{'':>30}"
        else:
            speed = f"{row['prompt']:>8,}{row['reading_ms']:>8,.0f} ms{row['first_token_ms']:>11,.0f} ms"
            speed += f"{row['tokens_a_second']:>8.1f} token/s"
        lines.append(f"{row['what']:28}{speed}{row['peak_gb']:>11.2f} GB{row['reserved_gb']:>9.2f} GB")
    return "\n".join(lines)
