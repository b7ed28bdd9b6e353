"""Which answers a model would say exactly, without having it say them.

Greedy decoding says an answer exactly when each of its tokens, the end of the turn too, is the best one after the true
tokens before it: up to there it has said just these. So one pass over a row, in which all true answers stand, tells of
each of them, and rows go through in batches. Of several answers in a row, each is told as it comes after true ones.

    exact(answer)   ⇔   argmax logits[t − 1] = ids[t]   for each t of the answer
"""

from collections.abc import Iterable
from itertools import islice
from operator import length_hint

import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..checkpoint import QUIET
from ..model import InfiniteVL
from ..ops import checks
from ..sampling import NOT_A_NUMBER, Sampler
from .examples import IGNORED, Batch, Example, collate
from .feeding import packed

SORTED = 128  # examples that are sorted by length together, so that batches need little filling up
TOKENS = 1 << 12  # of a batch on a CPU, which is slower with more
TOKENS_ON_GPU = 1 << 15
PIECE = 1024  # tokens whose scores exist at once: a large vocabulary's take much room


def exactly(model: InfiniteVL, examples: Iterable[Example], *, tokens_at_once: int | None = None) -> list[list[bool]]:
    """For each example: for each of its labelled answers, whether greedy decoding would say it, and end its turn.

    A batch holds `tokens_at_once`, or one row; by default as many as suit the model's device.
    """
    tokens = tokens_at_once if tokens_at_once is not None else TOKENS_ON_GPU if model.device.type == "cuda" else TOKENS
    checks.positive("tokens_at_once", tokens)
    found, left = [], iter(examples)
    with tqdm(total=length_hint(examples) or None, desc="scoring", unit="row", **QUIET) as bar:
        while some := list(islice(left, SORTED)):
            told = {}
            for rows in packed(some, tokens):
                batch = collate(rows, model.config).to(model.device)
                told |= zip(map(id, rows), of_batch(model, batch), strict=True)
                bar.update(len(rows))
            found += [told[id(example)] for example in some]
    return found


@torch.inference_mode()
def of_batch(model: InfiniteVL, batch: Batch) -> list[list[bool]]:
    """The same for the rows of one batch, which lies on the model's device."""
    said = batch.targets != IGNORED
    vectors, greedy = model.read(batch.ids, **batch.arguments)[said], Sampler()
    best = torch.cat([greedy(model.score(piece[None])[0]) for piece in vectors.split(PIECE)])
    if (best == NOT_A_NUMBER).any():
        raise ValueError("the model's scores are not finite; its weights may be damaged")
    begins = said & ~F.pad(said[:, :-1], (1, 0))
    answer_of = begins.flatten().cumsum(0)[said.flatten()] - 1
    wrong = torch.bincount(answer_of[best != batch.targets[said]], minlength=int(begins.sum()))
    answers = (wrong == 0).split(begins.sum(1).tolist())
    return [row.tolist() for row in answers]
