"""What training reads: whole conversations, with a label at every token that the model is to say.

A conversation is laid out exactly as chat lays it out, turn by turn: the prompt up to an open turn of the assistant's,
then the answer, then what continues after it. Only the answers' tokens and the ends of their turns have labels, so that
no loss ever teaches the model to ask its own questions. Whoever makes examples in another way (streams do) fills in an
`Example` and gets the same batches.

    code        shape                    dtype     what
    ids         [T], [B, T]              int64     tokens
    positions   [3, T], [3, B, T]        int64     see ops/rotary.py
    labels      [T], [B, T]              int64     the token itself where it is to be said, else IGNORED
    pixels      [patches, 3·2·14·14]     float32   None where there is no picture and no video
    grids       [pictures, 3]            int64     likewise
    vectors     [cells, D]               float     instead of pixels: what frozen eyes have made of them; see encoded.py
    cells       [cells, labels]          int64     what is in each cell of the pictures; only layout.py asks for it
    mask        [B, T]                   bool      True where a token is real; a batch is filled up on the right
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import Config
from ..messages import Control, Vision, laid_out
from ..ops.rotary import positions as find_positions
from ..processor import Processor, Seen
from ..tokenizer_file import END_OF_TURN

IGNORED = -100  # what PyTorch's cross-entropy ignores


@dataclass(frozen=True)
class Example:
    """One row of a batch."""

    ids: Tensor
    positions: Tensor
    labels: Tensor
    pixels: Tensor | None = None
    grids: Tensor | None = None
    vectors: Tensor | None = None
    cells: Tensor | None = None

    def __post_init__(self):
        T = len(self.ids)
        shapes = {"ids": (T,), "labels": (T,), "positions": (3, T)}
        for name, shape in shapes.items():
            x = getattr(self, name)
            if x.dtype != torch.int64 or tuple(x.shape) != shape:
                raise ValueError(
                    f"an example's {name} is {x.dtype} {list(x.shape)}; it should be int64 {list(shape)}, as ids"
                )
        if self.pixels is not None and self.vectors is not None:
            raise ValueError("an example has both pixels and vectors; give its pictures' pixels, or their vectors")
        if (self.pixels is None and self.vectors is None) != (self.grids is None):
            raise ValueError("an example's pixels and grids belong together, and so do vectors and grids; give both")
        if self.vectors is not None and (self.vectors.ndim != 2 or not self.vectors.is_floating_point()):
            found = f"{self.vectors.dtype} {list(self.vectors.shape)}"
            raise ValueError(f"an example's vectors is {found}; it should be floating-point [cells, D]")
        said = self.labels != IGNORED
        if (self.labels[said] != self.ids[said]).any():
            raise ValueError("an example's labels differ from its ids; a label is the token itself, or IGNORED")


@dataclass(frozen=True)
class Batch:
    """What one pass reads: the model's arguments, and the labels."""

    ids: Tensor
    positions: Tensor
    labels: Tensor
    pixels: Tensor | None
    grids: Tensor | None
    mask: Tensor
    vectors: Tensor | None = None
    cells: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def arguments(self) -> dict[str, Tensor | None]:
        """For the model's call. No mask is among them: nothing looks ahead, so what fills a row up at its end changes
        nothing before it, and without a mask the layers have less to do."""
        return {name: getattr(self, name) for name in ("positions", "pixels", "grids", "vectors")}

    @property
    def targets(self) -> Tensor:
        """[B, T]: what each token's prediction is held against, the next token's label; IGNORED at the end."""
        return torch.cat([self.labels[:, 1:], torch.full_like(self.labels[:, :1], IGNORED)], dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """What it has, by name."""
        held = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: x for name, x in held.items() if x is not None}

    def to(self, device: torch.device | str) -> "Batch":
        """All but the grids: the tower's way through pictures is found on the CPU."""
        moved = {name: x.to(device) for name, x in self.tensors().items() if name != "grids"}
        return dataclasses.replace(self, **moved)


def example_of(processor: Processor, messages: Sequence[dict], *, where: str = "") -> Example:
    """A conversation that ends with an answer. `where` is what errors begin with."""
    ids, labels, seen = spoken(processor, messages, where)
    pixels = torch.cat([one.pixels for one in seen]) if seen else None
    grids = torch.tensor([one.grid for one in seen]) if seen else None
    clocks = [one.seconds_per_grid for one in seen if one.seconds_per_grid is not None]
    row = torch.tensor([ids])
    places, _ = find_positions(row, grids, config=processor.config, seconds_per_grid=clocks)
    return Example(row[0], places[:, 0], torch.tensor(labels), pixels, grids)


def spoken(processor: Processor, messages: Sequence[dict], where: str = "") -> tuple[list[int], list[int], list[Seen]]:
    """A conversation's tokens, their labels, and its pictures."""
    ids, labels, seen = [], [], []
    for prompt, answer in turns(messages, where):
        pictures = [processor.see(piece) for piece in prompt if isinstance(piece, Vision)]
        asked = processor.tokens(prompt, pictures)
        said = processor.tokens([answer, Control(END_OF_TURN)], [])
        if ids:
            asked = asked[1:]  # the end of the turn before, which already stands there
        ids += asked + said
        labels += [IGNORED] * len(asked) + said
        seen += pictures
    return ids, labels, seen


def turns(messages: Sequence[dict], where: str = "") -> list[tuple[list, str]]:
    """Each answer of a conversation, and the layout of what comes before it and after the last one."""
    itself = where.rstrip(", ") or "the conversation"
    if not isinstance(messages, list | tuple):
        raise TypeError(f"{itself} is a {type(messages).__name__}; it should be a list of messages")
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    ends = [i for i, role in enumerate(roles) if role == "assistant"]
    if not ends or ends[-1] != len(messages) - 1:
        raise ValueError(f"{itself} should end with the assistant's answer; training has nothing to learn without one")
    found, start = [], 0
    for end in ends:
        if end == start:
            raise ValueError(f"{where}message {end + 1} is the assistant's; something to answer should come before it")
        place = f"{where}after message {start}, " if start else where
        found.append((laid_out(list(messages[start:end]), continues=start > 0, where=place), _answer(messages[end])))
        if not found[-1][1]:
            raise ValueError(f"{where}message {end + 1}, an answer, should be a text that is not empty")
        start = end + 1
    return found


def _answer(message: dict) -> str:
    """An answer's text; "" where it isn't one."""
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list | tuple):
        return ""
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else ""


def collate(examples: Sequence[Example], config: Config) -> Batch:
    """Examples as rows of one batch, filled up on the right."""
    if not examples:
        raise ValueError("a batch of no examples; it should have at least one")
    B, T = len(examples), max(len(example.ids) for example in examples)
    ids, labels = torch.full((B, T), config.bos_token_id), torch.full((B, T), IGNORED)
    positions, mask = torch.zeros(3, B, T, dtype=torch.int64), torch.zeros(B, T, dtype=torch.bool)
    for row, example in enumerate(examples):
        real = slice(len(example.ids))
        ids[row, real], labels[row, real] = example.ids, example.labels
        positions[:, row, real], mask[row, real] = example.positions, True
    pixels, grids, vectors, cells = (joined(examples, name) for name in ("pixels", "grids", "vectors", "cells"))
    if pixels is not None and vectors is not None:
        raise ValueError("a batch has rows with pixels and rows with vectors; all its pictures should come in one form")
    return Batch(ids, positions, labels, pixels, grids, mask, vectors, cells)


def joined(examples: Sequence[Example], name: str) -> Tensor | None:
    """What the examples have under this name, one after another; None where none of them has any."""
    found = [x for example in examples if (x := getattr(example, name)) is not None]
    return torch.cat(found) if found else None
