"""Before the tiny teacher begins: its eyes speak as evenly as words do, and its layers add little to what they hear."""

import pytest
import torch

from minivl import load_model, load_processor
from minivl.train.encoded import with_vectors
from minivl.train.layout import DrawnConversations, settled
from minivl.train.tiny_model import write_start
from minivl.train.tiny_world import TinyWorld

EXAMPLES = 8


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A start whose tower says much that is always the same, and what `settled` makes of it."""
    start, out = (tmp_path_factory.mktemp(name) for name in ("start", "settled"))
    write_start(start)
    drawn = DrawnConversations(TinyWorld("train", 0, ["reading", "more"]), load_processor(start))
    settled(start, out, [drawn[at] for at in range(EXAMPLES)], device="cpu")
    return start, out, drawn


def seen(folder, drawn) -> torch.Tensor:
    examples = with_vectors(load_model(folder, device="cpu"), [drawn[at] for at in range(EXAMPLES)])
    return torch.cat([example.vectors for example in examples])


def test_settled_vectors_have_mean_0_and_deviation_1_and_say_what_they_said(places):
    start, out, drawn = places
    before, after = seen(start, drawn), seen(out, drawn)
    assert before.mean(0).abs().max() > 0.1
    torch.testing.assert_close(after.mean(0), torch.zeros(after.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(after.square().mean(), torch.tensor(1.0), atol=1e-4, rtol=0)
    apart = before - before.mean(0)
    torch.testing.assert_close(after, apart / apart.square().mean().sqrt(), atol=1e-4, rtol=1e-4)


def test_settling_changes_the_last_layer_of_the_tower_and_nothing_else(places):
    start, out, _ = places
    old, new = (load_model(folder, device="cpu").state_dict() for folder in (start, out))
    changed = {name for name, x in old.items() if not torch.equal(x, new[name])}
    assert changed == {"model.visual.merger.mlp.2.weight", "model.visual.merger.mlp.2.bias"}
    tokens = [load_processor(folder).tokens(["What is in box K?"], []) for folder in (start, out)]
    assert tokens[0] == tokens[1]


def test_what_a_layer_adds_at_the_start_is_shorter_than_a_word(places):
    model = load_model(places[0], device="cpu")
    ids, added = torch.arange(40, 90)[None], []
    words = model.model.language_model.embed_tokens(ids).square().mean()
    for layer in model.model.language_model.layers:
        layer.register_forward_hook(lambda _, heard, out: added.append((out - heard[0]).square().mean()))
    with torch.no_grad():
        model.read(ids)
    assert len(added) == len(model.config.layer_types)
    assert max(added) < words
