"""What a stream's question is asked of: a copy of the memory, in which the picture is ended and a conversation begins.

One copy is kept from question to question, and with it the token step that was captured on it, so that a second
question need not capture anew. It is lent to one answer at a time; an answer that begins while another is still being
read gets a copy of its own, as does a batch.
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch.nn.functional as F

from .generate import feeder
from .memory import Memory
from .processor import Inputs

if TYPE_CHECKING:
    from .model import InfiniteVL


class Copies:
    """Copies of one stream's memory, for its questions."""

    def __init__(self, model: "InfiniteVL"):
        self.model = model
        self.kept: Memory | None = None
        self.lent = lambda: None  # what feeds the kept copy, for as long as someone reads the answer

    def of(self, memory: Memory, rows: int) -> tuple[Memory, Callable | None]:
        """A copy with the content of now in every row, and what feeds tokens to it where that was made before."""
        if rows > 1 or self.lent() is not None:
            return copies(memory, self.model, rows), None
        if self.kept is None:
            kept = copies(memory, self.model, 1)
            self.kept, self.feed = kept, feeder(self.model, kept)
        else:
            fill(self.kept, memory)
        feed = partial(self.feed)
        self.lent = weakref.ref(feed)
        return self.kept, feed


def copies(memory: Memory, model: "InfiniteVL", rows: int) -> Memory:
    """A memory of its own in which every row holds what the one row of `memory` does."""
    if rows == 1:
        return memory.clone()
    made = model.new_memory(rows, longest_write=memory.longest_write)
    fill(made, memory)
    return made


def fill(memory: Memory, other: Memory) -> None:
    """Put into each row what the one row of `other` holds. No tensor moves."""
    theirs = other.tensors()
    for name, x in memory.tensors().items():
        x.copy_(theirs[name])


def closing(inputs: Inputs, memory: Memory, model: "InfiniteVL") -> Inputs:
    """A new conversation's inputs as they go on from a stream: <|vision_end|> before each row, places after the memory.

    Rows are filled up on the left, so that the token goes between the filling and the row.
    """
    end = (~inputs.mask).sum(1, keepdim=True)  # its column, once all columns have moved by one
    start = memory.next_position.cpu()
    ids = F.pad(inputs.ids, (1, 0), value=model.config.bos_token_id)
    ids = ids.scatter(1, end, model.config.vision_end_token_id)
    mask = F.pad(inputs.mask, (1, 0), value=False).scatter(1, end, True)
    positions = F.pad(inputs.positions + 1, (1, 0)).scatter(2, end.expand(3, -1, -1), 0) + start
    return Inputs(ids, positions, inputs.pixels, inputs.grids, mask)


def conversation(question) -> list[dict]:
    """A question as messages: a text and a list of parts are a user's."""
    whole = (
        isinstance(question, list | tuple) and question and all(isinstance(x, dict) and "role" in x for x in question)
    )
    return list(question) if whole else [{"role": "user", "content": question}]
