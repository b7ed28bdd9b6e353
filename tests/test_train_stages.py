"""The stages hand their weights over, strictly; a student that does not fit its teacher is told why."""

import json
import shutil

import pytest
import torch

from minivl.checkpoint import load_model
from minivl.config import Config
from minivl.processor import load_processor
from minivl.safetensors_reading import listing
from minivl.train import handing_over, stages
from minivl.train.freezing import LEARNS, counted, freeze, told
from minivl.train.settings import Settings
from minivl.train.student import student_config, student_from

from .fakes import tiny_folder
from .training import Endless, small_config, student, teacher

LAYERS = ("full_attention",) * 3
CPU = {"device": "cpu", "quiet": True}


def short(**changes) -> Settings:
    return Settings(**({"steps": 2, "batch": 2, "save_every": 2, "learning_rate": 1e-2} | changes))


@pytest.fixture(scope="module")
def start():
    return tiny_folder(layer_types=LAYERS)


@pytest.fixture(scope="module")
def runs(start, tmp_path_factory):
    """All stages, once."""
    home = tmp_path_factory.mktemp("stages")
    data = Endless(load_model(start, device="cpu").config)
    results = [stages.teach(start, data, home / "teacher", short(), **CPU)]
    taught = home / "teacher"
    results += [stages.distil_layers(taught, data, home / "layers", short(), **CPU)]
    results += [stages.distil_logits(home / "layers", taught, data, home / "logits", short(recompute=True), **CPU)]
    results += [stages.tune(home / "logits", data, home / "tuning", short(), **CPU)]
    results += [stages.tune_long(home / "tuning", data, home / "long", short(), rank=2, **CPU)]
    return home, data, {result.stage: result for result in results}


def weights(folder) -> dict[str, torch.Tensor]:
    return load_model(folder, device="cpu").state_dict()


def test_each_stage_changes_what_it_should_and_starts_from_what_the_one_before_left(runs):
    home, _, results = runs
    assert list(results) == ["teacher", "layers", "logits", "tuning", "long"]
    assert all(len(result.losses) == 2 for result in results.values())
    for before, after in (("layers", "logits"), ("logits", "tuning")):
        old, new = weights(results[before].folder), weights(results[after].folder)
        config = load_model(results[after].folder, device="cpu").config
        moved = {name for name, x in new.items() if not torch.equal(x, old[name])}
        model = load_model(results[after].folder, device="cpu")
        freeze(model, LEARNS[after])
        assert moved == {name for name, x in model.named_parameters() if x.requires_grad}
        assert config.layer_types == ("sliding_attention", "linear_attention", "linear_attention")
    notes = {stage: json.loads((result.folder / handing_over.NOTE).read_text()) for stage, result in results.items()}
    for before, after in (("teacher", "layers"), ("layers", "logits"), ("logits", "tuning"), ("tuning", "long")):
        assert notes[after]["start"] == notes[before]["weights"] == handing_over.digest(results[before].folder)
    assert (home / "long" / handing_over.PLOT).is_file()


def test_a_result_is_a_checkpoint_of_the_released_form_without_a_trace_of_adapters(runs, start):
    _, _, results = runs
    long = results["long"].folder
    names = set(listing(long).tensors)
    assert names == set(listing(results["tuning"].folder).tensors)
    assert not [name for name in names if "lora" in name]
    assert load_processor(long).tokenizer.encode("a b") == load_processor(start).tokenizer.encode("a b")
    old, new = weights(results["tuning"].folder), weights(long)
    moved = {name for name in new if not torch.equal(old[name], new[name])}
    assert moved
    assert all(".self_attn." in name or ".mlp." in name for name in moved)


def test_a_finished_stage_that_is_run_again_trains_nothing(runs):
    home, data, results = runs
    before = handing_over.digest(results["tuning"].folder)
    seen = []
    again = stages.tune(
        home / "logits", data, home / "tuning", short(), stepped=lambda step, loss: seen.append(step), **CPU
    )
    assert seen == []
    assert again.losses == results["tuning"].losses
    assert handing_over.digest(again.folder) == before


def test_a_stage_refuses_what_is_not_its_predecessors_result(runs, start, tmp_path):
    home, data, results = runs
    wrong = "what layers has left; tuning should start from what logits has"
    with pytest.raises(ValueError, match=wrong):
        stages.tune(home / "layers", data, tmp_path / "out", short(), **CPU)
    with pytest.raises(ValueError, match=r"is no result of a stage: it has no training.json; tuning should start from"):
        stages.tune(start, data, tmp_path / "out", short(), **CPU)
    copied = tmp_path / "copied"
    shutil.copytree(results["logits"].folder, copied)
    shutil.copy(results["layers"].folder / "model.safetensors", copied)
    with pytest.raises(ValueError, match="has other weights than logits has left there"):
        stages.tune(copied, data, tmp_path / "out", short(), **CPU)
    assert not (tmp_path / "out").exists()
    stages.tune(copied, data, tmp_path / "out", short(steps=1), any_start=True, **CPU)


def test_words_are_learnt_from_the_teacher_of_the_layers(runs, start, tmp_path):
    home, data, _ = runs
    with pytest.raises(ValueError, match="has learnt from another teacher"):
        stages.distil_logits(home / "layers", start, data, tmp_path, short(), **CPU)
    stages.distil_logits(home / "layers", start, data, tmp_path, short(steps=1), any_start=True, **CPU)


def test_a_result_has_one_dtype_and_answers(tmp_path):
    """In bf16 what learns is float32 and what does not stays as it was; nothing that was learnt is rounded away."""
    start = tiny_folder(layer_types=LAYERS, dtype=torch.bfloat16)
    data = Endless(load_model(start, device="cpu").config)
    result = stages.distil_layers(start, data, tmp_path, short(bf16=True), **CPU)
    model = load_model(result.folder, device="cpu")
    assert {x.dtype for x in model.parameters()} == {torch.float32}
    assert model(torch.arange(5)[None]).isfinite().all()
    old = weights(start)
    kept = {name: x for name, x in model.state_dict().items() if name in old and ".self_attn." not in name}
    assert all(torch.equal(x, old[name].float()) for name, x in kept.items())


def test_a_run_from_other_weights_may_not_go_on(runs, tmp_path):
    home, data, results = runs
    stages.tune(home / "logits", data, tmp_path, short(), **CPU)
    with pytest.raises(ValueError, match="another configuration: start was"):
        stages.tune(results["layers"].folder, data, tmp_path, short(), any_start=True, **CPU)


def test_a_teacher_that_does_not_fit_is_told_before_anything_is_written(runs, start, tmp_path):
    home, data, _ = runs
    with pytest.raises(ValueError, match="teacher has linear_attention, sliding_attention layers; it should have full"):
        stages.distil_layers(home / "logits", data, tmp_path / "out", short(), **CPU)
    other = tiny_folder(layer_types=LAYERS, vocab_size=1024)
    with pytest.raises(ValueError, match="the teacher has a vocabulary of 1024; the student's is"):
        stages.distil_logits(home / "layers", other, data, tmp_path / "out", short(), any_start=True, **CPU)
    taught = load_model(start, device="cpu").config
    wrong = Config(**(vars(student_config(taught)) | {"intermediate_size": 96, "num_key_value_heads": 1}))
    with pytest.raises(ValueError, match=r"num_key_value_heads \(1, the teacher's is 2\)") as fault:
        stages.distil_layers(start, data, tmp_path / "out", short(), config=wrong, **CPU)
    assert "intermediate_size (96, the teacher's is 128)" in str(fault.value)
    assert not (tmp_path / "out").exists()


def test_a_student_chooses_its_own_layers_only():
    taught = teacher()
    assert student_config(taught.config, period=2).layer_types == (
        "sliding_attention", "linear_attention", "sliding_attention",
    )  # fmt: skip
    assert student_config(taught.config, mixer="delta").mixer == "delta"
    with pytest.raises(ValueError, match="a student can't choose hidden_size; it may choose layer_types"):
        student_config(taught.config, hidden_size=8)
    with pytest.raises(ValueError, match="period is 0"):
        student_config(taught.config, period=0)
    short_one = small_config(("sliding_attention",))
    with pytest.raises(ValueError, match="the student has 1 layers and the teacher 3"):
        student_from(taught, short_one)


def test_a_student_depends_on_its_seed_and_on_nothing_else():
    taught = teacher()
    config = student_config(taught.config)
    one, same, other = (student_from(taught, config, seed=seed) for seed in (1, 1, 2))
    for name, x in one.state_dict().items():
        assert torch.equal(x, same.state_dict()[name])
    changed = {name for name, x in one.state_dict().items() if not torch.equal(x, other.state_dict()[name])}
    assert changed
    assert all(
        name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "g_proj.weight", "o_proj.weight"))
        for name in changed
    )


def test_a_window_layer_that_sees_everything_has_nothing_to_learn():
    """Its weights are the teacher's: the distance is zero up to the window's length, and not beyond."""
    from minivl.train.objectives import layers_at_work

    from .train_claims import batch_of

    taught = teacher()
    learner = student(taught, varied=False, sliding_window=12)
    for T, same in ((12, True), (20, False)):
        batch = batch_of(taught.config, [0], T=T)
        x, out = layers_at_work(taught, batch)[0]
        found = learner.model.language_model.layers[0](x, positions=batch.positions)
        assert torch.allclose(found, out, rtol=1e-12, atol=1e-12) == same


def test_what_learns_is_told_part_by_part():
    learner = student()
    freeze(learner, LEARNS["tuning"])
    lines = told(counted(learner)).splitlines()
    assert len(lines) == 7
    assert [line.split("  ")[0] for line in lines] == [count.part for count in counted(learner)]
    assert sum(count.learns > 0 for count in counted(learner)) == 2
