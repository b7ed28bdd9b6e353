"""What one frame, one token and one prompt take of a model, and what they take after a longer past.

Each function does its work the way a stream or an answer does it, and returns a record: plain numbers under plain
names. Times are medians in milliseconds, memory is in bytes, weights included.
"""

import importlib.util
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from unittest.mock import patch

import torch

from ..config import Config
from ..fake_weights import draw
from ..frames import FrameStep
from ..generate import feeder, generate, prefill
from ..layers import gated_deltanet
from ..memory import Memory
from ..model import InfiniteVL
from ..ops.gated_delta_rule import gated_delta_rule
from ..ops.rotary import positions
from ..processor import Inputs
from ..stream import Stream
from .model_meter import Meter

FRAME = 256  # tokens of a frame of 448 × 448
REPEATS = 50  # of a captured frame
RULES = {"naive recurrence": "recurrent", "chunked, PyTorch": "chunked", "kernels": "triton"}


def random_model(config: Config, *, device: torch.device | str, dtype: torch.dtype) -> InfiniteVL:
    """Numbers of the same kind as fake-checkpoint's, drawn where they are to lie: no file, and a second for 4B."""
    with torch.device("meta"):
        model = InfiniteVL(config)
    generator = torch.Generator(device).manual_seed(0)
    weights = {
        name: draw(name, tuple(x.shape), torch.empty(x.shape, device=device), generator).to(dtype)
        for name, x in model.state_dict().items()
    }
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def words(model: InfiniteVL, T: int) -> Inputs:
    """T random words, none of them special, where the model is."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, min(model.config.bos_token_id, model.config.image_token_id), (1, T), generator=generator)
    places, _ = positions(ids, config=model.config)
    return Inputs(ids, places, None, None, torch.ones(1, T, dtype=torch.bool)).to(model.device)


def token_times(model: InfiniteVL, memory: Memory, meter: Meter, count: int) -> list[float]:
    """Milliseconds of each of `count` tokens, the likeliest one fed back each time without leaving the device.

    The first ones, before the step is captured and just after, are not counted.
    """
    feed = feeder(model, memory)
    token, marks = torch.zeros_like(memory.seen), []
    for number in range(10 + count):
        if number >= 10:
            marks.append(meter.mark())
        token = feed(token, None).argmax(-1)
    marks.append(meter.mark())
    return [meter.between(*pair) for pair in pairwise(marks)]


def reading(model: InfiniteVL, T: int, meter: Meter, *, repeats: int, tokens: int) -> dict:
    """A prompt of T: time to the first token and peak; then a token's and a frame's time with T tokens behind them."""
    inputs = words(model, T)
    made = {}

    def first_token() -> None:
        made["memory"] = model.new_memory()
        prefill(model, inputs, made["memory"]).argmax(-1).item()

    first_token()
    made.clear()
    meter.begin_peak()
    walls = []
    for _ in range(repeats):
        made.clear()
        walls.append(meter.wall(first_token))
    prompt_peak = meter.peak()
    memory = made.pop("memory")
    meter.begin_peak()
    token = statistics.median(token_times(model, memory, meter, tokens))
    token_peak = meter.peak()
    frame = meter.median(meter.captured(decoder_frame(model, memory)), 10)
    return {
        "context": T,
        "prompt_ms": statistics.median(walls),
        "prompt_peak": prompt_peak,
        "token_ms": token,
        "token_peak": token_peak,
        "decoder_frame_ms": frame,
        "memory_bytes": memory.nbytes,
    }


def decoder_frame(model: InfiniteVL, memory: Memory) -> Callable[[], None]:
    """256 tokens through the decoder as a frame's go, the tower left out: random vectors instead of its own."""
    decoder, device = model.model.language_model, model.device
    x = torch.randn(1, FRAME, model.config.hidden_size, device=device).to(model.dtype)
    places = torch.arange(FRAME, device=device).expand(3, 1, FRAME)

    def run() -> None:
        decoder(x, positions=places, memory=memory)

    return run


def answer_ms(model: InfiniteVL, tokens: int, meter: Meter) -> float:
    """A token through `generate`, on the host's clock: drawn, looked at by the host, and fed back."""
    inputs, memory = words(model, 64), model.new_memory()
    stream = generate(model, inputs, max_new_tokens=tokens + 10, stop_tokens=(), memory=memory)
    for _ in range(10):
        next(stream)
    return meter.wall(lambda: [None for _ in stream]) / tokens


def frame_step(stream: Stream) -> FrameStep:
    """A frame's step as streams take it, on a copy of the stream's memory, a frame of noise on the device already."""
    settings = stream.processor.settings
    step = FrameStep(stream.model, stream.memory.clone(), settings, stream.size)
    step.pixels.random_(256)
    return step


def frame_alone(stream: Stream, meter: Meter) -> float:
    """From a frame's bytes on the device to the last layer's memory."""
    frame = frame_step(stream).step
    for _ in range(3):  # one as it is, one that records the graph, one more
        frame()
    return meter.median(frame, REPEATS)


def tower_alone(stream: Stream, meter: Meter) -> float:
    """The part of it from patches to the decoder's vectors."""
    model, (height, width) = stream.model, stream.size
    tower, patch = model.model.visual, model.config.vision.patch_size
    grids = torch.tensor([[1, height // patch, width // patch]])
    pixels = torch.randn(int(grids.prod()), model.config.vision.patch_width, device=model.device).to(model.dtype)
    plan = tower.plan(grids)
    return meter.median(meter.captured(lambda: tower.look(pixels, plan)), REPEATS)


def rules(stream: Stream, meter: Meter, captured_ms: float) -> list[dict]:
    """Frames a second with each form of the DeltaNet rule, all else the same, launched from Python; and as it ships."""
    step, rows = frame_step(stream).step, []
    frame = partial(step.run, step.memory)
    for name, backend in RULES.items():
        if backend == "triton" and not meter.cuda:
            continue
        with rule(backend):
            frame()
            ms = meter.median(frame, 2 if backend == "recurrent" else 5)
        rows.append({"rule": name, "captured": False, "ms": ms, "frames_a_second": 1e3 / ms})
    if meter.cuda:
        rows.append({"rule": "kernels", "captured": True, "ms": captured_ms, "frames_a_second": 1e3 / captured_ms})
    return rows


@contextmanager
def rule(backend: str) -> Iterator[None]:
    """All DeltaNet layers through this form of the rule; an error if none of them went through it."""
    form = partial(gated_delta_rule, backend=backend)
    gated_delta_rule.last_backend = None
    with ExitStack() as patches:
        patches.enter_context(patch.object(gated_deltanet, "gated_delta_rule", form))
        if backend != "triton" and importlib.util.find_spec("triton"):
            import kernels

            patches.enter_context(patch.object(kernels, "chunked_gated_delta_rule", form))
        yield
    if backend != "triton" and gated_delta_rule.last_backend != backend:
        raise RuntimeError(f"the layers ran {gated_delta_rule.last_backend}; they were to run {backend}")
