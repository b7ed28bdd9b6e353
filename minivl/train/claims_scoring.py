"""What a trained arm knows: reading, attributes, recall against distance, and against the number of facts.

An answer counts where the model, left to itself, would say just this and stop; see scoring.py. Of what is read, each
character is counted, too, after the true ones before it: that tells arms apart long before whole lines are right.
"""

from collections.abc import Sequence
from statistics import fmean

import torch

from ..model import InfiniteVL
from .claims_arms import Protocol
from .claims_data import tests
from .claims_lessons import Data
from .examples import IGNORED, Example, collate
from .scoring import exactly

ROWS = 32  # whose characters are counted together


def share_right(model: InfiniteVL, examples: Sequence[Example]) -> float:
    """Of examples that ask one question each."""
    return fmean(right for (right,) in exactly(model, examples))


@torch.no_grad()
def characters(model: InfiniteVL, examples: Sequence[Example]) -> float:
    """The share of the answers' tokens, ends of turns left out, that are the model's first choice."""
    right = []
    for start in range(0, len(examples), ROWS):
        batch = collate(examples[start : start + ROWS], model.config).to(model.device)
        said = (batch.targets != IGNORED) & (batch.targets != model.config.eos_token_id)
        vectors = model.read(batch.ids, **batch.arguments)[said]
        right.append(model.score(vectors[None])[0].argmax(-1) == batch.targets[said])
    return float(torch.cat(right).float().mean())


def scores(model: InfiniteVL, data: Data, protocol: Protocol) -> dict[str, float]:
    """One number a task, from 0 to 1."""
    reading, others = ([source[number] for number in range(len(source))] for source in data.pictures["test"].values())
    found = {
        "reading": share_right(model, reading),
        "characters": characters(model, reading),
        "attributes": share_right(model, others),
    }
    for task, which in tests(protocol).items():
        streams = data.streams("test", *which)
        found[task] = share_right(model, [streams[number] for number in range(len(streams))])
    longest = max(windows for windows in protocol.windows if windows * protocol.window <= protocol.longest)
    found["average"] = fmean(found[task] for task in ("reading", "attributes", f"recall/{longest}"))
    return found
