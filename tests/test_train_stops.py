"""What stops a run, and what it refuses before it begins: each told in one sentence, with nothing lost."""

import math

import pytest
import torch

from minivl.train import freezing, lora, not_finite, progress, saving
from minivl.train.objectives import AnswerTuning, LayerDistillation
from minivl.train.resuming import CHECKPOINTS
from minivl.train.trainer import LOG, train

from .training import Endless, example, example_with, settings, student, teacher, tuned


class Spoilt(Endless):
    """From its third step on there is a picture that is not finite."""

    def __getitem__(self, number: int):
        made = super().__getitem__(number)
        return made if number < 4 or made.pixels is None else example_with(made, pixels=made.pixels * math.nan)


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_checkpoint(tmp_path):
    learner = student()
    with pytest.raises(not_finite.NotFinite, match="step 3: the loss is nan") as stopped:
        tuned(tmp_path, learner=learner, data=Spoilt(learner.config))
    assert str(saving.checkpoints(tmp_path / CHECKPOINTS)[-1]) in str(stopped.value)
    assert "step-00000002" in str(stopped.value)
    assert len(progress.losses(tmp_path / LOG)) == 2
    saved, _ = saving.newest(tmp_path / CHECKPOINTS)
    assert all(torch.isfinite(x).all() for x in saved.tensors.values())
    assert all(torch.isfinite(x).all() for x in learner.parameters())


@pytest.mark.parametrize("layer", ["layers.1.self_attn", "layers.2.mlp", "visual.blocks.0.attn"])
def test_the_layer_that_makes_what_is_not_finite_is_named(tmp_path, layer):
    learner = student()
    module = learner.get_submodule(f"model.{layer}" if "visual" in layer else f"model.language_model.{layer}")
    with (
        module.register_forward_hook(lambda _, given, out: out * math.inf),
        pytest.raises(
            not_finite.NotFinite,
            match=f"step 1: .*{layer} is the first to make numbers that are not finite; there is no",
        ),
    ):
        tuned(tmp_path, learner=learner)


def test_a_weight_and_a_gradient_that_are_not_finite_are_named(tmp_path):
    learner = student()
    weight = learner.model.language_model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        weight[0, 0] = math.nan
    with pytest.raises(not_finite.NotFinite, match=r"the weight .*layers.1.mlp.up_proj.weight is not finite"):
        tuned(tmp_path / "weight", learner=learner)
    learner = student()
    weight = learner.model.language_model.layers[2].self_attn.k_proj.weight
    weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(not_finite.NotFinite, match=r"gradient's length .*layers.2.self_attn.k_proj.weight has the fir"):
        tuned(tmp_path / "gradient", learner=learner)


def test_the_teachers_layer_is_named_too(tmp_path):
    taught = teacher()
    learner = student(taught)
    freezing.freeze(learner, freezing.LEARNS["layers"])
    taught.model.language_model.layers[1].mlp.register_forward_hook(lambda _, given, out: out * math.nan)
    with pytest.raises(not_finite.NotFinite, match=r"the teacher's model.language_model.layers.1.mlp is the first"):
        train(LayerDistillation(learner, taught), Endless(learner.config), tmp_path, settings(), quiet=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch": True}, "batch is True"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"warmup": 1.5}, "warmup is 1.5; it should be a number from 0 to 1"),
        ({"clip": math.nan}, "clip is nan"),
        ({"spread": "horovod"}, "spread is 'horovod'; it should be one of ddp, fsdp"),
    ],
)
def test_a_setting_that_makes_no_sense_is_told(changes, said):
    with pytest.raises(ValueError, match=said):
        settings(**changes)


def test_what_cannot_be_trained_is_told_before_anything_is_written(tmp_path):
    taught = teacher()
    learner = student(taught)
    with pytest.raises(ValueError, match="multiple of 3: at_once, 3, times 1 processes"):
        tuned(tmp_path / "out", at_once=3)
    learner.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing learns"):
        train(AnswerTuning(learner), Endless(learner.config), tmp_path / "out", settings())
    freezing.freeze(learner, ("linear mixers", "words"))
    with pytest.raises(ValueError, match=r"LayerDistillation teaches nothing to model.language_model.embed_tokens"):
        train(LayerDistillation(learner, taught), Endless(learner.config), tmp_path / "out", settings())
    with pytest.raises(ValueError, match="there is no part 'mixers' that could learn; there are eyes, merger"):
        freezing.freeze(learner, ("mixers",))
    with pytest.raises(ValueError, match="nothing would learn: the model has no adapters"):
        freezing.freeze(learner, ("adapters",))
    assert not (tmp_path / "out").exists()


def test_a_step_without_answers_is_told(tmp_path):
    class Mute(Endless):
        def __getitem__(self, number: int):
            made = super().__getitem__(number)
            return example_with(made, labels=torch.full_like(made.labels, -100))

    learner = student()
    with pytest.raises(ValueError, match="a step of 2 examples has no answer token to learn from"):
        tuned(tmp_path, learner=learner, data=Mute(learner.config))


def test_adapters_that_cannot_be_are_told():
    learner = student()
    with pytest.raises(ValueError, match="have no lm_head; adapters go to any of q_proj"):
        lora.adapt(learner, targets=("q_proj", "lm_head"))
    with pytest.raises(ValueError, match="rank is 0"):
        lora.adapt(learner, rank=0)
    lora.adapt(learner, rank=2, targets=("q_proj",))
    with pytest.raises(ValueError, match="has adapters already"):
        lora.adapt(learner)


def test_an_example_that_is_made_wrong_is_told():
    made = example(student().config, 1)
    for changes, said in (
        ({"labels": made.labels[1:]}, "labels is torch.int64"),
        ({"positions": made.positions[0]}, r"positions is torch.int64 \[8\]; it should be int64 \[3, 8\]"),
        ({"labels": made.ids + 1}, "labels differ from its ids"),
        ({"pixels": torch.zeros(4, 3)}, "pixels and grids belong together"),
    ):
        with pytest.raises(ValueError, match=said):
            example_with(made, **changes)
