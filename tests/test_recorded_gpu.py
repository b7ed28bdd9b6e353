"""Passes as CUDA graphs: the gradients and losses that passes one by one give, and a run that goes on."""

import pytest
import torch

from minivl.train import progress
from minivl.train.claims_arms import ARMS, Protocol
from minivl.train.claims_runs import DECODER, arm_config
from minivl.train.examples import collate
from minivl.train.objectives import AnswerTuning, LayerDistillation, LogitDistillation
from minivl.train.recorded import GRAPHS, WHOLE, Recorded, filled_up
from minivl.train.trainer import LOG

from .fakes import tiny_config
from .tolerances import close
from .training import Endless, example, example_with, plainly, small_config, small_model, student, teacher, tuned

pytestmark = pytest.mark.gpu

CONFIG = small_config()
CELLS = 4


def row(number: int, T: int, *, seen: bool = False):
    """An example of T tokens; with `seen`, of which four are a picture that frozen eyes have looked at."""
    one = example(CONFIG, number, T=T, picture=seen)
    vectors = torch.randn(CELLS, CONFIG.hidden_size, generator=torch.Generator().manual_seed(number))
    return example_with(one, pixels=None, vectors=vectors) if seen else one


def objective_of(name: str):
    taught = teacher(dtype=torch.float32).cuda()
    learner = student(taught).float().cuda()
    kinds = {
        "layers": lambda: LayerDistillation(learner, taught),
        "logits": lambda: LogitDistillation(learner, taught),
        "answers": lambda: AnswerTuning(learner),
    }
    return kinds[name](), learner


def named(learner) -> list:
    return list(learner.named_parameters())


@pytest.mark.parametrize("name", ["layers", "logits", "answers"])
def test_a_recorded_pass_gives_the_loss_and_the_gradients_of_one_that_is_not(name):
    objective, learner = objective_of(name)
    plain = plainly(objective, device="cuda")
    lengths = [(9, 20), (30, 12), (40, 50), (17, 31), (33, 60)]  # of two shapes, once they are filled up
    batches = [
        collate([row(10 * n + i, T, seen=i == 0) for i, T in enumerate(two)], CONFIG) for n, two in enumerate(lengths)
    ]
    wanted = []
    for batch in batches:
        learner.zero_grad()
        loss = plain(filled_up(batch, CONFIG), 0.5)
        wanted.append((loss, {name: None if x.grad is None else x.grad.clone() for name, x in named(learner)}))

    run = Recorded(plain, learner.parameters(), learner)
    for _ in range(2):
        for batch, (loss, gradients) in zip(batches, wanted, strict=True):
            learner.zero_grad(set_to_none=False)
            close(run(batch, 0.5), loss, tolerance=1e-4)
            for name, x in named(learner):
                if gradients[name] is None:
                    assert not x.grad.any(), f"{name} is not reached, and has a gradient"
                else:
                    close(x.grad, gradients[name], tolerance=1e-3, what=f"the gradient of {name}")
    assert len(run.graphs) == 2
    assert all(run.graphs.values())


def test_gradients_of_several_passes_are_added_up():
    objective, learner = objective_of("answers")
    plain = plainly(objective, device="cuda")
    batches = [collate([row(n, T)], CONFIG) for n, T in enumerate((5, 9, 30))]
    for batch in batches:
        plain(filled_up(batch, CONFIG), 1.0)
    wanted = {name: x.grad.clone() for name, x in named(learner) if x.grad is not None}
    run = Recorded(plain, learner.parameters(), learner)
    for _ in range(3):
        learner.zero_grad(set_to_none=False)
        for batch in batches:
            run(batch, 1.0)
    for name, gradient in wanted.items():
        close(learner.get_parameter(name).grad, gradient, tolerance=1e-3, what=f"the gradient of {name}")


@pytest.mark.parametrize("pictures", [False, True], ids=["words", "pixels"])
def test_a_recorded_run_has_the_losses_of_any_other_and_goes_on_where_it_was(tmp_path, pictures):
    def losses(name: str, **changes) -> torch.Tensor:
        taught = teacher(dtype=torch.float32)
        own = {"steps": 12, "batch": 4, "at_once": 4, "save_every": 5, "bf16": False, "learning_rate": 1e-3}
        data = Endless(CONFIG, pictures=pictures)
        tuned(tmp_path / name, learner=student(taught).float().cuda(), data=data, **own, **changes)
        return torch.tensor(progress.losses(tmp_path / name / LOG))

    plain = losses("plain")
    close(losses("recorded", recorded=True), plain, tolerance=1e-3)
    losses("killed", recorded=True, stop=8)
    close(losses("killed", recorded=True), plain, tolerance=1e-3)


def test_more_pads_than_vectors_are_told_and_shapes_past_the_last_graph_go_through():
    objective, learner = objective_of("answers")
    run = Recorded(plainly(objective, device="cuda"), learner.parameters(), learner)
    wrong = example_with(row(0, 12, seen=True), vectors=torch.zeros(CELLS - 1, CONFIG.hidden_size))
    with pytest.raises(ValueError, match="a batch has 4 picture pads, and its pictures 3 cells"):
        run(collate([wrong], CONFIG), 1.0)
    run.graphs = dict.fromkeys(range(GRAPHS), run)  # as if there were so many
    batch = collate([row(1, WHOLE)], CONFIG)
    losses = [run(batch, 1.0) for _ in range(3)]
    for loss in losses:
        close(loss, losses[0], tolerance=1e-5)
    assert list(run.graphs.values()).count(None) == 1


class Rows:
    """Of one or two shapes, once they are filled up: some of several chunks and windows, some with pictures seen."""

    def __init__(self, config):
        self.config = config

    def __getitem__(self, number: int):
        one = example(self.config, number, T=100 + number % 50, picture=number % 2 == 1)
        if one.pixels is None:
            return one
        draw = torch.Generator().manual_seed(number)
        return example_with(one, pixels=None, vectors=torch.randn(CELLS, self.config.hidden_size, generator=draw))


@pytest.mark.parametrize("name", ["hybrid-4", "rule-delta", "rule-linear", "full", "window"])
def test_each_mixer_of_the_claims_learns_the_same_when_it_is_recorded(tmp_path, name):
    config = arm_config(tiny_config(), ARMS[name], Protocol(window=64))

    def losses(folder: str, **changes) -> torch.Tensor:
        own = {"steps": 20, "batch": 4, "at_once": 4, "bf16": False, "learning_rate": 1e-3, "save_every": 20}
        learner = small_model(config, dtype=torch.float32).cuda()
        tuned(tmp_path / folder, learner=learner, learns=DECODER, data=Rows(config), **own, **changes)
        return torch.tensor(progress.losses(tmp_path / folder / LOG))

    close(losses("recorded", recorded=True), losses("plain"), tolerance=1e-3)
