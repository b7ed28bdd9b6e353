"""From a prompt to an answer: read the prompt once, then draw one token after the other and feed each back.

A token is fed to the memory before it is handed out, and the stop token that ends an answer never is. So a memory that
was passed in holds, whenever the reader stops, the prompt and exactly the tokens that the reader was given: the next
turn goes on from there. How a token is drawn stands in sampling.py.

    scores = model(prompt)       token = sample(scores)       scores = model(token)       token = …
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .captured import CapturedStep
from .memory import Memory
from .ops import checks
from .sampling import NOT_A_NUMBER, Sampler

if TYPE_CHECKING:  # whoever has tokens can generate without the packages that read pictures and words
    from .model import InfiniteVL
    from .processor import Inputs, Processor

FINISHED = -1


def generate(
    model: "InfiniteVL",
    inputs: "Inputs",
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    top_p: float = 1.0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    memory: Memory | None = None,
    stop_tokens: Collection[int] | None = None,
    feed: Callable[[Tensor, Tensor | None], Tensor] | None = None,
) -> Iterator[int | Tensor]:
    """The answer's tokens, one by one: an int for one row; for a batch int64 [B] on the CPU, −1 where a row is done.

    An answer ends before a stop token (by default one of the configuration's) or after `max_new_tokens`. With a
    temperature, one seed gives one answer, the same in every row for the same prompt; without a seed every row draws
    for itself. A `memory` is continued: `inputs` begin where it stands. The penalty knows the tokens of this call only.
    `feed` is the memory's feeder, where one is kept over several answers.
    """
    checks.positive("max_new_tokens", max_new_tokens)
    sampler = Sampler(temperature=temperature, top_p=top_p, repetition_penalty=repetition_penalty, seed=seed)
    stops = model.config.stop_tokens if stop_tokens is None else _tokens("stop_tokens", stop_tokens, model.config)
    _check(inputs, model.config, memory)
    if memory is None:
        B, T = inputs.ids.shape
        memory = model.new_memory(B, room=T + max_new_tokens)
    return _generate(model, inputs, memory, sampler, max_new_tokens, frozenset(stops), feed)


@torch.no_grad()  # of a generator: on while this code runs, as it was while the reader's does
def _generate(model, inputs, memory: Memory, sampler: Sampler, max_new_tokens: int, stops: frozenset[int], feed):
    inputs = inputs.to(model.device)
    scores = prefill(model, inputs, memory)
    sampler.begin(inputs.ids, inputs.mask, scores.shape[-1])
    live, mask = [True] * len(scores), None
    feed = feed or feeder(model, memory)
    for count in range(max_new_tokens):
        token = sampler(scores)
        numbers = token.tolist()  # here, once a token, the host waits for the device
        if any(alive and number == NOT_A_NUMBER for alive, number in zip(live, numbers, strict=True)):
            raise ValueError(
                f"the model's scores are not finite after {count} tokens of the answer; "
                f"its weights may be damaged, or its numbers too large for {model.dtype}"
            )
        still = [alive and number not in stops for alive, number in zip(live, numbers, strict=True)]
        if not any(still):
            return
        if still != live:
            live, mask = still, torch.tensor(still, device=token.device)
        scores = feed(token, mask)
        yield numbers[0] if len(live) == 1 else torch.tensor(numbers).where(torch.tensor(live), FINISHED)


def prefill(model: "InfiniteVL", inputs: "Inputs", memory: Memory) -> Tensor:
    """Read the prompt into the memory; the scores after each row's last token, [B, vocabulary]."""
    padded = not inputs.mask.all()  # a mask costs time, so it is left out where it says nothing
    return model(
        inputs.ids,
        positions=inputs.positions,
        pixels=inputs.pixels,
        grids=inputs.grids,
        memory=memory,
        mask=inputs.mask if padded else None,
        last_only=True,
    )[:, -1]


def feeder(model: "InfiniteVL", memory: Memory) -> Callable[[Tensor, Tensor | None], Tensor]:
    """feed(token, mask) → scores, for one memory for ever: `step`, captured on a GPU."""
    return CapturedStep(step, model, memory) if model.device.type == "cuda" else partial(step, model, memory)


def step(model: "InfiniteVL", memory: Memory, token: Tensor, mask: Tensor | None) -> Tensor:
    """Feed one token [B] to each row; the scores of the next. A row whose mask [B] is False takes nothing in."""
    if mask is None:
        return model(token[:, None], memory=memory, last_only=True)[:, -1]
    return model(token.where(mask, 0)[:, None], memory=memory, mask=mask[:, None], last_only=True)[:, -1]


def chat(
    model: "InfiniteVL", processor: "Processor", messages: list[dict], *, memory: Memory | None = None, **options
) -> Iterator[str]:
    """The answer's text, piece by piece, to one conversation; `options` are those of `generate`.

    A memory that has seen tokens is continued: `messages` are then the new ones only.
    """
    inputs = prompt(processor, messages, memory)
    return text(generate(model, inputs, memory=memory, **options), processor)


def prompt(processor: "Processor", messages: list[dict], memory: Memory | None = None) -> "Inputs":
    """One conversation's messages as inputs: from its start, or from where a memory stands that has seen tokens."""
    started = memory is not None and memory.tokens_seen > 0
    inputs = processor(messages, start=memory.next_position.cpu() if started else None)
    if len(inputs.ids) != 1:
        raise ValueError(f"messages are {len(inputs.ids)} conversations; chat takes one, and generate takes a batch")
    return inputs


def text(tokens: Iterator[int], processor: "Processor") -> Iterator[str]:
    """Tokens → pieces of text, none of them empty and none with half a character."""
    stream = processor.tokenizer.stream()
    for token in tokens:
        if piece := stream.push(token):
            yield piece
    if piece := stream.finish():
        yield piece


def _check(inputs: "Inputs", config, memory: Memory | None) -> None:
    """All that can be known to be wrong before the model runs."""
    if not all(hasattr(inputs, name) for name in ("ids", "positions", "pixels", "grids", "mask")):
        raise TypeError(f"inputs is a {type(inputs).__name__}; it should be what the processor makes of messages")
    checks.tensor("inputs.ids", inputs.ids, ("B", "T"), torch.int64)
    B, T = inputs.ids.shape
    checks.tensor("inputs.mask", inputs.mask, (B, T), torch.bool)
    checks.tensor("inputs.positions", inputs.positions, (3, B, T), torch.int64)
    for row, real in enumerate(inputs.mask.any(1).tolist()):
        if not real:
            raise ValueError(f"inputs has no tokens in row {row}; it should have at least one in each")
    _tokens("inputs.ids", inputs.ids[inputs.mask].unique().tolist(), config)
    if memory is None:
        return
    if not isinstance(memory, Memory):
        raise TypeError(f"memory is a {type(memory).__name__}; it should be one that model.new_memory made")
    if memory.config != config:
        raise ValueError("memory belongs to another configuration; it should be one that model.new_memory made")
    if len(memory.seen) != B:
        raise ValueError(f"memory is for a batch of {len(memory.seen)}; inputs are a batch of {B}")
    first = inputs.positions.amin(0).masked_fill(~inputs.mask, torch.iinfo(torch.int64).max).amin(1).tolist()
    for row, (begin, stand) in enumerate(zip(first, memory.next_position.tolist(), strict=True)):
        if begin < stand:
            raise ValueError(
                f"inputs begin at position {begin} in row {row}, and memory stands at {stand}; "
                f"make them with processor(messages, start=memory.next_position)"
            )


def _tokens(name: str, tokens: Collection[int], config) -> Collection[int]:
    if not isinstance(tokens, Collection):
        raise TypeError(f"{name} is {tokens!r}; it should be a list of tokens")
    for token in tokens:
        if isinstance(token, bool) or not isinstance(token, int):
            raise TypeError(f"{name} has {token!r}; it should have whole numbers, the ids of tokens")
        if not 0 <= token < config.vocab_size:
            raise ValueError(f"{name} has token {token}; the model's vocabulary goes from 0 to {config.vocab_size - 1}")
    return tokens
