"""`python -m minivl bench model`: frames, tokens and prompts of the whole model on one device, all in one run.

Without `--model` the weights are random ones in the shapes of the released 4B model, made on the GPU; times and memory
don't depend on what the numbers are. Beside it runs a transformer of the same shape, whose past grows. Where there is
no GPU a tiny model is measured instead: a check that everything runs, no measurement.
"""

import argparse
import dataclasses
import sys
from dataclasses import dataclass

import torch

from ..checkpoint import load
from ..config import Config
from ..fake_weights import tiny_config
from ..layers.int8 import quantise
from ..pictures import Settings
from ..processor import Processor
from ..stream import Stream
from . import model_plot, model_report, model_rows, model_sustained, model_transformer, outputs
from .measure import machine
from .model_meter import Meter
from .ops import lengths


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    frames: int
    tokens: int  # decoded, wherever a token's time is taken
    contexts: tuple[int, ...]  # lengths that are read, with a token's and a frame's time after each
    transformer: tuple[int, ...]  # lengths of the transformer's past


FULL = Scale(
    frames=4000,
    tokens=200,
    contexts=(4096, 8192, 32768, 100_000, 131_072),
    transformer=(4096, 8192, 16384, 32768, 65536, 131_072, 262_144, 524_288, 1_048_576),
)
QUICK = Scale(frames=300, tokens=50, contexts=(4096, 8192, 32768), transformer=(4096, 32768))
CHECK = Scale(frames=40, tokens=10, contexts=(200, 600), transformer=(200, 600))  # without a GPU
SIZE = 448  # a frame's side, in pixels


def at_least_four(text: str) -> int:
    if int(text) < 4:
        raise ValueError
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="DIR", help="a checkpoint's folder (default: random weights, 4B shapes)")
    parser.add_argument("--frames", type=at_least_four, metavar="N", help="frames of the stream (default: 4,000)")
    parser.add_argument("--contexts", type=lengths, metavar="T,T,…", help="lengths of the prompts that are read")
    parser.add_argument("--transformer", type=lengths, metavar="T,T,…", help="lengths of the transformer's past")
    parser.add_argument("--quick", action="store_true", help="300 frames and few lengths, under a minute")
    parser.add_argument("--cap-gb", type=float, metavar="N", help="hold the GPU's memory down to N GB")
    outputs.add_arguments(parser, picture="latency and memory against frames")


def run(args: argparse.Namespace) -> None:
    outputs.check(args, "model")
    cuda = torch.cuda.is_available()
    if args.cap_gb is not None and not (cuda and args.cap_gb > 0):
        raise ValueError(f"--cap-gb is {args.cap_gb:g}; it should be above 0, and there should be a GPU to hold down")
    cap = hold_down(args.cap_gb) if cuda else None
    scale = (QUICK if args.quick else FULL) if cuda else CHECK
    scale = dataclasses.replace(scale, **asked(args))
    on = {**machine(), "gpu": torch.cuda.get_device_name() if cuda else None, "cap_gb": args.cap_gb}
    found = {"on": on, "scale": dataclasses.asdict(scale)}
    with torch.no_grad():
        found |= measure(args.model, scale, Meter("cuda" if cuda else "cpu"), cap)
    outputs.leave(args, "model", found, report=model_report.report, plot=model_plot.plot)


def asked(args: argparse.Namespace) -> dict:
    """What of the scale was set by hand."""
    said = {name: getattr(args, name) for name in ("frames", "contexts", "transformer")}
    return {name: value if name == "frames" else tuple(value) for name, value in said.items() if value is not None}


def hold_down(cap_gb: float | None) -> int:
    """Keep PyTorch's allocator below the cap; the bytes there are."""
    total = torch.cuda.get_device_properties(0).total_memory
    if cap_gb is None:
        return total
    torch.cuda.set_per_process_memory_fraction(min(1.0, cap_gb * 1e9 / total))
    return min(total, int(cap_gb * 1e9))


def model_and_processor(source: str | None, meter: Meter):
    if source is not None:
        return load(source, device=meter.device)
    config = Config() if meter.cuda else tiny_config()
    dtype = torch.bfloat16 if meter.cuda else torch.float32
    vision = config.vision
    settings = Settings(
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
    )
    model = model_rows.random_model(config, device=meter.device, dtype=dtype)
    return model, Processor(config, None, settings)  # no words are read, so there is no tokenizer


def measure(source: str | None, scale: Scale, meter: Meter, cap: int | None) -> dict:
    say("making the model" if source is None else f"loading {source}")
    model, processor = model_and_processor(source, meter)
    model.fuse()
    config, dtype = model.config, model.dtype
    found = {"dtype": str(dtype).removeprefix("torch."), "parameters": sum(x.numel() for x in model.parameters())}
    found |= {"window": config.sliding_window, "released_shapes": meter.cuda and config == Config()}

    say(f"a stream of {scale.frames:,} frames")
    stream = Stream(model, processor, size=SIZE)
    found["sustained"] = model_sustained.measure(stream, scale.frames, meter, tokens=scale.tokens)
    found["tower_ms"] = model_rows.tower_alone(stream, meter)
    found["frame_ms"] = found["sustained"]["moments"]["late"]["frame_alone_ms"]
    say("the rule in its three forms")
    found["rules"] = model_rows.rules(stream, meter, found["frame_ms"])
    del stream

    found["answer_ms"] = model_rows.answer_ms(model, scale.tokens, meter)
    found["readings"] = []
    for T in scale.contexts:
        say(f"a prompt of {T:,} tokens")
        repeats = 5 if T <= 40_000 else 2
        found["readings"].append(model_rows.reading(model, T, meter, repeats=repeats, tokens=scale.tokens))
    del model, processor
    meter.begin_peak()
    say("a transformer of the same shape")
    found["transformer"] = model_transformer.measure(config, scale.transformer, meter, dtype=dtype, cap=cap)
    say("the same with int8 matrices")
    small = quantise(model_and_processor(source, meter)[0]).fuse()
    T = scale.contexts[min(1, len(scale.contexts) - 1)]
    found["int8"] = model_rows.reading(small, T, meter, repeats=3, tokens=scale.tokens)
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
