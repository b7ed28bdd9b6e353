"""One answer: shown as it comes, counted and timed.

The times are taken from outside, by hooks on the model, so that generate() knows nothing of clocks and bars.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from ..generate import generate, text
from ..memory import Memory
from ..model import InfiniteVL
from ..processor import Inputs, Processor


class Reading:
    """The model's way through a prompt: a bar if that takes over two seconds, and the moment when it is done.

    The bar counts a patch at each block of the vision tower and a token at each layer of the decoder, or, where the
    kernels do all layers in one go, all layers at once, when their piece of the prompt sets out.
    """

    def __init__(self, model: InfiniteVL, inputs: Inputs):
        blocks, decoder = model.model.visual.blocks, model.model.language_model
        self.layers, whole = len(decoder.layers), decoder.fused and model.device.type == "cuda"
        patches = 0 if inputs.pixels is None else len(inputs.pixels)
        self.model, self.seconds, self.start = model, None, time.perf_counter()
        self.bar = tqdm(
            total=len(blocks) * patches + self.layers * inputs.ids.numel(),
            desc="reading the prompt",
            bar_format="{desc} {percentage:3.0f}% {bar} {elapsed}<{remaining}",
            delay=2,
            leave=False,
            disable=None,
        )
        self.hooks = [block.register_forward_hook(self.look) for block in blocks]
        if whole:
            self.hooks.append(decoder.embed_tokens.register_forward_hook(self.set_out))
        else:
            self.hooks += [layer.register_forward_hook(self.advance) for layer in decoder.layers]
        self.hooks.append(model.register_forward_hook(self.finish))

    def look(self, module, args, out: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.bar.update(len(out[0]))

    def set_out(self, module, args, out: torch.Tensor) -> None:
        self.bar.update(self.layers * out[..., 0].numel())

    def advance(self, module, args, out: torch.Tensor) -> None:
        self.bar.update(out[..., 0].numel())

    def finish(self, *_) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        self.seconds = time.perf_counter() - self.start
        self.close()

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.bar.close()


@dataclass
class Answer:
    """An answer and its figures. `asked` is when the question was, and `look` how long its pictures took to prepare."""

    inputs: Inputs
    asked: float
    look: float
    pieces: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)  # when each token came
    prefill: float | None = None
    finish: str = "stop"

    def report(self, model: InfiniteVL, memory: Memory, *, load: float) -> dict:
        """What --json prints."""
        ids, config, moments = self.inputs.ids, model.config, self.moments
        pads = (ids == config.image_token_id) | (ids == config.video_token_id)
        rate = (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 1 else None
        on_gpu = model.device.type == "cuda"
        return {
            "answer": "".join(self.pieces),
            "finish": self.finish,
            "tokens": {"prompt": ids.numel(), "pictures": int(pads.sum()), "answer": len(moments)},
            "seconds": {
                "load": round(load, 4),
                "look": round(self.look, 4),
                "prefill": round(self.prefill, 4),
                "first_token": round(moments[0] - self.asked, 4) if moments else None,
            },
            "tokens_per_second": rate and round(rate, 2),
            "memory_bytes": memory.nbytes,
            "peak_device_bytes": torch.cuda.max_memory_allocated(model.device) if on_gpu else None,
        }


def give(
    model: InfiniteVL,
    processor: Processor,
    answer: Answer,
    *,
    memory: Memory,
    options: dict,
    show: Callable[[str], None],
    stopped: Callable[[], bool] = lambda: False,
) -> Answer:
    """Fill `answer` in, showing each piece of text; after a token at which `stopped` says so it ends."""

    def timed(tokens: Iterator[int]) -> Iterator[int]:
        for token in tokens:
            answer.moments.append(time.perf_counter())
            yield token
            if stopped():
                answer.finish = "interrupted"
                return
        if len(answer.moments) == options["max_new_tokens"]:
            answer.finish = "length"

    tokens = generate(model, answer.inputs, memory=memory, **options)
    reading = Reading(model, answer.inputs)
    try:
        for piece in text(timed(tokens), processor):
            answer.pieces.append(piece)
            show(piece)
    finally:
        reading.close()
        answer.prefill = reading.seconds
    return answer
