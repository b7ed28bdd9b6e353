"""The loop of training: what learns and what does not, how a run goes on, and what it leaves."""

import csv
import math

import pytest
import torch

from minivl.checkpoint import save_model
from minivl.layers.gated_deltanet import GatedDeltaNet
from minivl.train import freezing, lora, memory_saving, progress, saving
from minivl.train.objectives import AnswerTuning, LayerDistillation, LogitDistillation
from minivl.train.resuming import CHECKPOINTS, randomness, set_randomness
from minivl.train.sources import Shuffled
from minivl.train.trainer import LOG, train

from .tolerances import close
from .train_claims import EXACT, batch_of
from .training import Endless, settings, student, teacher, tuned


def test_what_is_frozen_stays_bit_for_bit_and_what_learns_moves(tmp_path):
    taught = teacher()
    before = {name: x.clone() for name, x in taught.state_dict().items()}
    for stage, make in (
        ("layers", lambda learner: LayerDistillation(learner, taught)),
        ("logits", lambda learner: LogitDistillation(learner, taught)),
        ("tuning", AnswerTuning),
    ):
        learner = student(taught)
        started = {name: x.clone() for name, x in learner.state_dict().items()}
        freezing.freeze(learner, freezing.LEARNS[stage])
        learns = set(freezing.learning(learner))
        train(make(learner), Endless(learner.config), tmp_path / stage, settings(steps=2), quiet=True)
        moved = {name for name, x in learner.state_dict().items() if not torch.equal(x, started[name])}
        assert moved == learns, stage
        assert all(x.grad is None for x in learner.parameters() if not x.requires_grad)
        saved, _ = saving.newest(tmp_path / stage / CHECKPOINTS)
        whats = {name.split(".", 1)[0] for name in saved.tensors}
        assert whats == {"weight", "exp_avg", "exp_avg_sq"}
        assert {name.split(".", 1)[1] for name in saved.tensors} == learns, "the optimiser knows what is frozen"
    assert all(torch.equal(x, before[name]) for name, x in taught.state_dict().items())
    assert all(x.grad is None for x in taught.parameters())


def test_only_adapters_learn_in_the_last_stage(tmp_path):
    learner = student()
    plain = {name: x.clone() for name, x in learner.state_dict().items()}
    lora.adapt(learner, rank=2, alpha=4.0)
    tuned(tmp_path, learner=learner, learns=freezing.LEARNS["long"], steps=3)
    assert all("lora_" in name for name in freezing.learning(learner))
    kept = {name: x for name, x in learner.state_dict().items() if "lora_" not in name}
    assert all(torch.equal(x, plain[name]) for name, x in kept.items())
    adapted = learner(*reading(learner)).detach()
    with pytest.raises(ValueError, match="the model has adapters"):
        save_model(learner, tmp_path / "adapted")
    assert not (tmp_path / "adapted").exists()
    merged = lora.merge(learner)
    close(merged(*reading(learner)), adapted, tolerance=EXACT)
    moved = [name for name, x in merged.state_dict().items() if not torch.equal(x, plain[name])]
    assert {name.rsplit(".", 2)[1] for name in moved} == set(lora.TARGETS)


def reading(model):
    return (torch.arange(9)[None] + 5,)


def test_layers_that_are_run_twice_give_the_same_gradients():
    taught = teacher()
    gradients = []
    for again in (False, True):
        learner = student(taught)
        names = list(learner.state_dict())
        if again:
            memory_saving.recompute(learner)
            memory_saving.recompute(learner)  # twice is once
        batch = batch_of(learner.config, range(4), picture=True)
        calls = []
        for module in learner.modules():
            if isinstance(module, GatedDeltaNet):
                module.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        AnswerTuning(learner)(batch).backward()
        assert len(calls) == 2 * (1 + again), "each linear layer runs once, or once more for the gradient"
        assert list(learner.state_dict()) == names
        gradients.append({name: x.grad for name, x in learner.named_parameters() if x.grad is not None})
    assert set(gradients[0]) == set(gradients[1])
    for name, x in gradients[1].items():
        assert torch.equal(x, gradients[0][name]), name


def test_products_in_bf16_leave_the_weights_that_learn_in_float32(tmp_path):
    taught = teacher(dtype=torch.float32)
    whole, half = (student(taught), student(taught))
    for learner, bf16 in ((whole, False), (half, True)):
        tuned(tmp_path / str(bf16), learner=learner, bf16=bf16, steps=3)
        assert {x.dtype for x in learner.parameters()} == {torch.float32}
    exact, rounded = (progress.losses(tmp_path / which / LOG) for which in ("False", "True"))
    assert exact != rounded, "nothing was in bf16"
    assert all(math.isclose(a, b, rel_tol=0.05) for a, b in zip(exact, rounded, strict=True))


def test_a_run_that_was_broken_off_goes_on_bit_for_bit(tmp_path):
    whole = tuned(tmp_path / "whole", steps=5)
    for stop in (1, 2, 3):
        tuned(tmp_path / str(stop), steps=5, stop=stop)
        again = tuned(tmp_path / str(stop), steps=5)
        assert rows(tmp_path / str(stop)) == rows(tmp_path / "whole")
        assert all(torch.equal(x, whole.state_dict()[name]) for name, x in again.state_dict().items())


def rows(out) -> list[tuple]:
    return [tuple(value for name, value in row.items() if name != "seconds") for row in progress.rows(out / LOG)]


def test_another_number_of_examples_at_once_may_go_on(tmp_path):
    tuned(tmp_path / "whole")
    tuned(tmp_path / "moved", stop=3)
    tuned(tmp_path / "moved", at_once=2, recompute=True)
    for a, b in zip(*(progress.losses(tmp_path / name / LOG) for name in ("whole", "moved")), strict=True):
        assert math.isclose(a, b, rel_tol=1e-10)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 0.5}, "learning_rate was 0.01 and is now 0.5"),
        ({"steps": 9}, "steps was 4 and is now 9"),
        ({"learns": ("linear mixers",)}, "learns was"),
        ({"data": "others"}, "data was 'endless' and is now 'others'"),
    ],
)
def test_another_configuration_may_not_go_on(tmp_path, changes, said):
    learner = tuned(tmp_path, stop=3)
    if "data" in changes:
        changes = {"data": Endless(learner.config, description=changes["data"])}
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=said):
        tuned(tmp_path, **changes)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
def test_a_spoilt_checkpoint_is_passed_over_for_the_one_before(tmp_path, caplog, name):
    tuned(tmp_path / "whole")
    tuned(tmp_path / "spoilt")
    newest = saving.checkpoints(tmp_path / "spoilt" / CHECKPOINTS)[-1]
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / name).write_bytes(content)
    learner = student()
    freezing.freeze(learner, freezing.LEARNS["tuning"])
    train(AnswerTuning(learner), Endless(learner.config), tmp_path / "spoilt", settings())
    assert f"{newest / name} is damaged" in caplog.text
    assert "going on from step 2" in caplog.text
    assert rows(tmp_path / "spoilt") == rows(tmp_path / "whole")
    for place in saving.checkpoints(tmp_path / "spoilt" / CHECKPOINTS):
        (place / name).write_bytes(b"{}")
    with pytest.raises(ValueError, match="no checkpoint is whole"):
        tuned(tmp_path / "spoilt")


def test_long_gradients_are_shortened_to_the_limit_and_logged_as_they_were(tmp_path):
    """With one step, no decay and plain sums AdamW's first average is a tenth of the gradient that it was given."""
    for clip in (1e-3, 1e9):
        tuned(tmp_path / str(clip), steps=1, clip=clip)
        saved, _ = saving.newest(tmp_path / str(clip) / CHECKPOINTS)
        given = 10 * math.sqrt(sum(x.square().sum().item() for name, x in saved.tensors.items() if "exp_avg." in name))
        (row,) = progress.rows(tmp_path / str(clip) / LOG)
        assert math.isclose(given, min(clip, float(row["gradient"])), rel_tol=1e-3)
        assert float(row["gradient"]) > 1e-2


def test_the_log_has_a_row_a_step_and_the_plot_is_a_picture(tmp_path):
    tuned(tmp_path)
    with (tmp_path / LOG).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == ["1", "2", "3", "4"]
    assert set(table[0]) == set(progress.COLUMNS)
    assert float(table[0]["rate"]) == 1e-2
    progress.plot({"tuning": tmp_path / LOG}, tmp_path / "loss.png", title="loss")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert progress.running_mean([1.0, 3.0, 5.0], 2) == [1.0, 2.0, 4.0]


def test_states_of_random_numbers_come_back():
    kept = randomness()
    first = torch.rand(3), torch.randperm(5)
    set_randomness(kept)
    assert all(torch.equal(a, b) for a, b in zip(first, (torch.rand(3), torch.randperm(5)), strict=True))


def test_a_round_of_shuffled_examples_has_each_once_and_depends_on_its_number_only():
    data = Shuffled(range(7), seed=1)
    rounds = [[data[7 * turn + i] for i in range(7)] for turn in range(3)]
    assert all(sorted(some) == list(range(7)) for some in rounds)
    assert rounds[0] != rounds[1]
    assert data[9] == Shuffled(range(7), seed=1)[9]
    assert [Shuffled(range(7), seed=2)[i] for i in range(7)] != rounds[0]
    with pytest.raises(ValueError, match="no examples"):
        Shuffled([])


def test_examples_come_from_other_processes_in_the_same_order(tmp_path):
    tuned(tmp_path / "here")
    tuned(tmp_path / "there", workers=1)
    assert rows(tmp_path / "here") == rows(tmp_path / "there")
