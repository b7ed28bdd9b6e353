"""`python -m minivl train` as a user meets it: each stage on files, the tiny model from nothing, and the estimate."""

import argparse
import dataclasses
import functools
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed.run import get_args_parser

from minivl.__main__ import main
from minivl.bench import page
from minivl.checkpoint import load_model
from minivl.commands import train_scores, train_stage, train_tiny
from minivl.config import Config
from minivl.fake_tokenizer import SMALLEST, fake_tokenizer
from minivl.fake_weights import tiny_config
from minivl.layers import gated_deltanet
from minivl.layers.decoder import DecoderLayer
from minivl.safetensors_reading import listing
from minivl.train import estimate, estimate_memory, estimate_work, freezing, handing_over, progress, saving, tiny
from minivl.train.resuming import CHECKPOINTS
from minivl.train.settings import PAPER, Settings
from minivl.train.tiny_scores import Scores
from minivl.train.tiny_streams import StreamSettings

from .fakes import tiny_folder
from .pages import ROOT

LAYERS = ("full_attention",) * 3
SHORT = ("--steps", "2", "--batch", "2", "--save-every", "1", "--device", "cpu")


def called(capsys, *words) -> tuple[int, str, str]:
    try:
        code = main(["train", *map(str, words)])
    except SystemExit as left:
        code = left.code
    return code, *capsys.readouterr()


def row(question: str, answer: str = "A cat.", **more) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}


def written(path, *rows):
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def teacher():
    return tiny_folder(layer_types=LAYERS)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("train")
    pixels = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(home / "a.png")
    (home / "broken.png").write_bytes(b"no picture")
    written(home / "rows.json", row("<image>What is it?", images=["a.png"]), row("Who?"), row("<image>?"))
    written(home / "more.json", row("And who else?", "Nobody."))
    return home


@pytest.fixture(scope="module")
def runs(home, teacher):
    """All stages, each from what the one before has left. What they print is read elsewhere."""
    data = ("--data", home / "rows.json")
    both = ("--data", f"0.8:{home / 'rows.json'}", "--data", home / "more.json")
    words = {
        "layers": ("--from", teacher, *data),
        "logits": ("--from", home / "layers", "--teacher", teacher, *data, "--temperature", "2", "--per", "row"),
        "tuning": ("--from", home / "logits", *both, "--seed", "3"),
        "long": ("--from", home / "tuning", *data, "--rank", "2", "--alpha", "4", "--recompute"),
    }
    words = {stage: [*map(str, own), "--out", str(home / stage), *SHORT] for stage, own in words.items()}
    for stage, own in words.items():
        assert main(["train", stage, *own]) == 0
    return words


def note(folder) -> dict:
    return json.loads((folder / handing_over.RESULT / handing_over.NOTE).read_text())


def test_each_stage_leaves_a_result_that_the_next_one_starts_from(runs, home, teacher):
    assert load_model(home / "long" / "result", device="cpu").config.layer_types == (
        "sliding_attention", "linear_attention", "linear_attention",
    )  # fmt: skip
    notes = {stage: note(home / stage) for stage in runs}
    assert list(notes) == list(train_stage.STAGES)
    assert notes["layers"]["start"] == notes["logits"]["teacher"] == handing_over.digest(teacher)
    for before, after in (("layers", "logits"), ("logits", "tuning"), ("tuning", "long")):
        assert notes[after]["start"] == notes[before]["weights"]
    assert all((home / stage / handing_over.PLOT).is_file() for stage in runs)


def test_options_of_a_stage_reach_it(runs, home):
    notes = {stage: note(home / stage) for stage in runs}
    assert (notes["logits"]["temperature"], notes["logits"]["per"]) == (2.0, "row")
    assert (notes["long"]["rank"], notes["long"]["alpha"]) == (2, 4.0)
    for stage, made in notes.items():
        own = {"recompute": stage == "long", "seed": 3 if stage == "tuning" else 0}
        paper = Settings(**(PAPER[stage] | {"steps": 2, "batch": 2, "save_every": 1} | own))
        assert made["settings"] == dataclasses.asdict(paper), "the paper's, where nothing else was said"
    read = {stage: saving.newest(home / stage / CHECKPOINTS)[0].settings["data"] for stage in runs}
    assert read["layers"] == "rows.json, 2 good rows, shuffled by 0, up to None tokens"
    assert read["long"] == "rows.json, 2 good rows, shuffled by 0, up to 32768 tokens"
    parts = ("0.8 of rows.json, 2 good rows, shuffled by 3", "1.0 of more.json, 1 good rows, shuffled by 3")
    assert read["tuning"] == "mixed by 3: " + ", ".join(f"{part}, up to None tokens" for part in parts)


def test_every_setting_is_an_option(capsys):
    named = {"spread", *train_stage.NUMBERS, *train_stage.SWITCHES}
    assert named == {field.name for field in dataclasses.fields(Settings)}
    for stage, summary in train_stage.STAGES.items():
        code, out, _ = called(capsys, stage, "--help")
        assert code == 0
        assert all(train_stage.option(name) in out for name in named)
        assert " ".join(summary.split()[2:]) in " ".join(out.split())
        assert f"{PAPER[stage]['batch']})" in out


@pytest.mark.parametrize("stage", train_stage.STAGES)
def test_torchrun_takes_no_option_for_one_of_its_own(stage):
    """It reads the whole line, and takes what one of its options begins with for that option."""
    parser = argparse.ArgumentParser()
    train_stage.add_arguments(parser, stage)
    ours, theirs = (x._option_string_actions for x in (parser, get_args_parser()))
    assert {name for name in ours for other in theirs if other.startswith(name)} == {"-h", "--help"}


def test_a_finished_stage_trains_nothing_and_tells_the_same(runs, home, capsys):
    before, losses = note(home / "tuning"), progress.losses(home / "tuning" / "log.csv")
    code, out, _ = called(capsys, "tuning", *runs["tuning"])
    assert code == 0
    assert note(home / "tuning") == before
    first, last = (f"{loss:.4g}" for loss in losses)
    told = out.splitlines()
    assert f"loss {first} at first and {last} after 2 steps: {home / 'tuning' / 'loss.png'}" == told[-2]
    assert f"result: {home / 'tuning' / 'result'}" == told[-1]
    assert f"{home / 'rows.json'}: 1 of 3 rows skipped: row 3: message 1 has a <image>" in out
    assert f"{home / 'more.json'}: all 1 rows are good" in out
    assert "linear mixers" in out


def test_a_run_that_was_broken_off_goes_on(runs, home, tmp_path, capsys):
    words = [str(tmp_path / "out") if word == str(home / "layers") else word for word in runs["layers"]]
    shutil.copytree(home / "layers", tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "result")
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "step-00000002")
    assert called(capsys, "layers", *words)[0] == 0
    assert note(tmp_path / "out") == note(home / "layers")
    code, _, err = called(capsys, "layers", *words, "--learning-rate", "0.5")
    assert code == 1
    assert "learning_rate was 0.0002 and is now 0.5" in err


def test_learns_names_parts(home, teacher, tmp_path, capsys):
    words = ("--from", teacher, "--any-start", "--data", home / "more.json", "--out", tmp_path, *SHORT)
    code, out, _ = called(capsys, "tuning", *words, "--learns", "norms", "--learns", "words")
    assert code == 0
    learn = {line.split("  ")[0] for line in out.splitlines() if line.endswith(" learn") and " 0 of" not in line}
    assert learn == {"norms", "words"}


def test_rows_that_are_found_bad_late_are_told_as_they_are_found(home, teacher, tmp_path, capsys, caplog):
    late = written(home / "late.json", row("<image>?", images=["broken.png"]), row("word " * 300), row("Who?"))
    words = ("--from", teacher, "--data", late, "--longest", "200", "--out", tmp_path, *SHORT, "--any-start")
    code, out, _ = called(capsys, "tuning", *words)
    assert code == 0
    assert f"{late}: all 3 rows are good" in out
    assert f"{late}: 2 of 3 rows skipped: row 1: message 1, part 1: " in out
    assert f"{late}: row 1 is skipped: message 1, part 1: " in caplog.text
    assert f"{late}: row 2 is skipped: it has " in caplog.text
    assert len(caplog.records) == 2, "each is told once"


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """Folders that `train scores` can't use, by what is the matter."""
    home, fine = tmp_path_factory.mktemp("spoilt"), tiny_folder()
    places = {name: home / name for name in ("empty", "blind", "wordless", "foreign")}
    places["empty"].mkdir()
    for name in ("blind", "wordless", "foreign"):
        shutil.copytree(fine, places[name])
    config = json.loads((fine / "config.json").read_text())
    (places["blind"] / "config.json").write_text(json.dumps(config | {"vision_config": {}}))
    (places["wordless"] / "tokenizer.json").unlink()
    (places["foreign"] / "tokenizer.json").write_bytes(fake_tokenizer(SMALLEST + 1))
    eyes = dataclasses.replace(tiny_config().vision, patch_size=28)
    return places | {"coarse": tiny_folder(vision=eyes), "uneven": tiny_folder(sliding_window=94)}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("layers --from {teacher} --data {rows}", 2, "--steps"),
        ("logits --from {teacher} --data {rows} --steps 1", 2, "--teacher"),
        ("layers --from {teacher} --data 0:{rows} --steps 1", 2, "has a share that is not above 0"),
        ("layers --from {teacher} --data {rows} --steps 0", 2, "0 is not at least 1"),
        ("layers --from {teacher} --data {rows} --steps 1 --workers -1", 2, "-1 is not at least 0"),
        ("tuning --from {teacher} --data {rows} --steps 1 --learns everything", 2, "everything"),
        ("sing", 2, "sing"),
        ("layers --from nowhere --data {rows} --steps 1", 1, "nowhere is not a folder"),
        ("layers --from {teacher} --data nothing.json --steps 1", 1, "nothing.json is not there"),
        ("layers --from {teacher} --data {bad} --steps 1", 1, "has no row that can be used; 1 of 1 rows skipped"),
        ("tuning --from {teacher} --data {rows} --steps 1", 1, "tuning should start from what logits has left"),
        ("layers --from {student} --data {rows} --steps 1", 1, "it should have full_attention in every layer"),
        ("layers --from {teacher} --data {rows} --steps 1 --batch 3 --at-once 2", 1, "a multiple of 2"),
        (
            "layers --from {teacher} --data {rows} --steps 1 --warmup 2",
            1,
            "warmup is 2.0; it should be a number",
        ),
        ("layers --from {teacher} --data {rows} --steps 1 --spread fsdp --tokens-at-once 9", 1, "is for spread"),
        ("layers --from {teacher} --data {rows} --steps 1 --device tpu", 1, "device is 'tpu'"),
        ("tiny --device tpu", 1, "device is 'tpu'"),
        ("tiny --questions 0", 2, "0 is not at least 1"),
        ("scores --model nowhere", 1, "nowhere is not a folder"),
        ("scores --model {empty}", 1, "has no config.json"),
        ("scores --model {blind}", 1, "vision_config's depth, hidden_size"),
        ("scores --model {wordless}", 1, "has no tokenizer.json"),
        ("scores --model {foreign}", 1, "the model's vocabulary is 0 to"),
        ("scores --model {coarse}", 1, "the model's cells have sides of 56 pixels; the tiny world's have 28"),
        ("scores --model {uneven}", 1, "a frame has 4 tokens; a window, 94, should be a number of whole frames"),
        ("scores --model {student} --out {empty}", 1, "is a folder; it should be a file"),
        ("scores --questions 0", 2, "0 is not at least 1"),
        ("scores --device tpu", 1, "device is 'tpu'"),
        ("estimate --gpus 1,x", 2, "--gpus"),
        ("estimate --gpus 0", 2, "0 is not at least 1"),
        ("estimate --pictures 2", 1, "--pictures is 2.0; it should be a share from 0 to 1"),
        ("estimate --page {rows}", 1, "has no place for figures"),
    ],
)
def test_a_fault_is_one_line_and_nothing_is_written(
    home, teacher, spoilt, tmp_path, capsys, monkeypatch, words, code, said
):
    bad = written(home / "bad.json", row("<image>?"))
    monkeypatch.chdir(tmp_path)
    student = tiny_folder()
    words = words.format(teacher=teacher, rows=home / "rows.json", bad=bad, student=student, **spoilt).split()
    found, _, err = called(capsys, *words)
    assert found == code
    assert said in err.splitlines()[-1]
    assert code == 2 or err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_batch_that_cannot_be_shared_out_is_told_before_anything_is_read(home, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = called(capsys, "layers", "--from", "nowhere", "--data", "nothing", "--steps", 1, "--batch", 3)
    assert code == 1
    assert "batch is 3; it should be a multiple of 2" in err
    code, _, err = called(capsys, "tiny")
    assert code == 1
    assert "train tiny runs in one process" in err


# The tiny model


@pytest.fixture(scope="module")
def small_tiny(tmp_path_factory):
    """`train tiny` with two steps a stage, small pools and few questions; the same command again, not scored; and
    `train scores` of what it left."""
    home = tmp_path_factory.mktemp("tiny")
    shares = {stage: tiny.Share(2, 2, 1e-3, 64) for stage in tiny.STAGES}
    budget = dataclasses.replace(tiny.pick("cpu"), stages=shares, lines=4, pictures=6, looks=1, others=16, workers=0)
    settings = StreamSettings(looks=1, others=16, lead=(0, 64))
    scores = functools.partial(train_scores.scores, kinds=("colour", "same"), windows=(0, 2), settings=settings)
    words = ["train", "tiny", "--out", str(home), "--device", "cpu", "--questions", "2"]
    rest = ["train", "scores", "--model", str(home / "tiny"), "--device", "cpu", "--questions", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "pick", lambda device: budget)
        patch.setattr(train_scores, "scores", scores)
        patch.setattr(
            progress, "plot", lambda logs, picture, *, title: picture.touch()
        )  # it takes longer than training
        assert main(words) == 0
        first = (home / "scores.json").read_text()
        assert main([*rest, "--out", str(home / "made" / "apart.json")]) == 0
        patch.setattr(train_scores, "scores", lambda model, processor, split, number: Scores(split, {}, {}, {}))
        patch.setattr(train_scores, "table", lambda several: "nothing")
        assert main([*words[:-2], "--out", str(home)]) == 0
        again = (home / "scores.json").read_text()
    (home / "scores.json").write_text(first)
    return home, budget, json.loads(again)


def test_the_tiny_model_comes_through_all_stages_and_is_scored(small_tiny):
    home, budget, _ = small_tiny
    found = json.loads((home / "scores.json").read_text())
    assert list(found["seconds"]) == list(tiny.STAGES)
    for stage in tiny.STAGES:
        spent = sum(float(row["seconds"]) for row in progress.rows(home / stage / "log.csv"))
        assert len(progress.losses(home / stage / "log.csv")) == 2
        assert (found["steps"][stage], found["seconds"][stage]) == (2, round(spent, 1))
    assert found["budget"] == json.loads(json.dumps(dataclasses.asdict(budget)))
    assert (found["questions"], found["seed"], found["on"]["gpu"]) == (2, 0, None)
    assert found["on"]["torch"] == torch.__version__
    assert list(found["scores"]) == ["held-out seen fonts", "held-out unseen fonts"]
    for split in found["scores"].values():
        assert list(split["world"]) == ["colour", "same"]
        assert list(split["recall"]) == list(split["blind"]) == ["0", "2", "not shown"]
        assert all(score["asked"] == 2 for part in split.values() for score in part.values())


def test_the_copy_is_the_last_result_in_bf16_and_small(small_tiny):
    home, _, _ = small_tiny
    copy, result = home / "tiny", home / tiny.STAGES[-1] / "result"
    assert {tensor.dtype for tensor in listing(copy).tensors.values()} <= {torch.bfloat16, torch.float32}
    trained, copied = load_model(result, device="cpu"), load_model(copy, device="cpu")
    assert copied.dtype == torch.bfloat16
    assert trained.dtype == torch.float32
    wide = copied.state_dict()
    for name, x in trained.state_dict().items():
        assert torch.equal(wide[name].float(), x.to(wide[name].dtype).float()), name
    size = sum(path.stat().st_size for path in copy.iterdir())
    assert size <= 10e6
    found = json.loads((home / "scores.json").read_text())
    assert found["megabytes"] == round(size / 1e6, 2)
    assert found["weights"] == handing_over.digest(copy)


def test_a_second_call_trains_nothing_and_scores_again(small_tiny):
    home, _, again = small_tiny
    before = json.loads((home / "scores.json").read_text())
    assert again["weights"] == before["weights"] == handing_over.digest(home / "tiny")
    assert again["seconds"] == before["seconds"]
    assert again["questions"] == train_scores.QUESTIONS["cpu"]


def test_scores_of_a_checkpoint_are_those_of_its_making(small_tiny):
    home, _, _ = small_tiny
    made = json.loads((home / "scores.json").read_text())
    apart = json.loads((home / "made" / "apart.json").read_text())
    assert made.keys() - apart.keys() == {"seed", "budget", "steps", "seconds"}
    assert apart.keys() == {"weights", "megabytes", "on", "questions", "scores"}
    for name in apart.keys() - {"on"}:
        assert apart[name] == made[name], name
    assert apart["on"].keys() == made["on"].keys() >= {"cpu", "gpu", "threads", "torch"}


def test_scores_without_a_file_print_the_table_and_leave_nothing(tmp_path, capsys, monkeypatch):
    settings = StreamSettings(looks=1, others=16, lead=(0, 64))
    few = functools.partial(train_scores.scores, kinds=("same",), windows=(0,), settings=settings)
    monkeypatch.setattr(train_scores, "scores", few)
    monkeypatch.chdir(tmp_path)
    code, out, err = called(capsys, "scores", "--model", tiny_folder(), "--questions", 1, "--device", "cpu")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"scoring {tiny_folder()}, 1 question of each kind")
    assert lines[-1] == "of 1 questions each; chance in a stream is 3%"
    names = [line.split("  ")[0] for line in lines if line[:1].strip()]
    assert [name for name in names if name in ("same", "recall, 0 windows back")] == ["same", "recall, 0 windows back"]
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_broken_off_tells_how_far_it_came(small_tiny, tmp_path):
    home, budget, _ = small_tiny
    shutil.copytree(home / "start", tmp_path / "start")
    (tmp_path / "eyes").mkdir()
    shutil.copy(home / "eyes" / "log.csv", tmp_path / "eyes")
    (tmp_path / "reading").mkdir()
    first, one = (home / "reading" / "log.csv").read_text().splitlines()[:2]
    (tmp_path / "reading" / "log.csv").write_text(f"{first}\n{one}\n")
    told = train_tiny.account(tmp_path)
    assert told["steps"] == {"eyes": 2, "reading": 1}
    assert told["seconds"]["reading"] == round(float(one.split(",")[-1]), 1)
    assert (told["seed"], told["budget"]) == (0, json.loads(json.dumps(dataclasses.asdict(budget))))
    with pytest.raises(
        FileNotFoundError, match=r"nothing has no start.budget\.json; it should be what train tiny left"
    ):
        train_tiny.account(tmp_path / "nothing")


def test_a_run_that_goes_on_draws_nothing_again_and_ends_as_it_would_have(small_tiny, monkeypatch, tmp_path):
    home, budget, _ = small_tiny
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    for stage in ("tuning", "long"):
        shutil.rmtree(tmp_path / stage)

    def draw(*_, **__):
        raise AssertionError("pictures are drawn again")

    monkeypatch.setattr(tiny, "drawn", draw)
    again = tiny.train(tmp_path, budget, device="cpu", quiet=True)
    assert handing_over.digest(again) == handing_over.digest(home / "long" / "result")
    with pytest.raises(ValueError, match="holds a tiny model of another budget, in lines; choose another --out"):
        tiny.train(tmp_path, dataclasses.replace(budget, lines=5), device="cpu", quiet=True)


def test_a_budget_can_be_chosen_and_keeps_the_devices_workers(monkeypatch):
    own = dataclasses.replace(tiny.CPU, workers=7)
    monkeypatch.setattr(tiny, "pick", lambda device: own)
    assert train_tiny.budget_of(None, "cpu") is own
    assert train_tiny.budget_of("gpu", "cpu") == dataclasses.replace(tiny.GPU, workers=7)


# The estimate


def test_the_page_has_what_the_command_computes():
    text = (ROOT / "docs" / "training-4b.md").read_text(encoding="utf-8")
    figures = estimate.report(gpus=[1, 8, 64], tokens=estimate.TOKENS, rank=16, pictures=0.5)
    assert page.with_figures(text, estimate.MARKS, figures) == text, "run python -m minivl train estimate --page …"


def test_the_counts_are_those_of_the_released_model():
    numbers = {stage: estimate_memory.numbers(stage, Config(), 16) for stage in estimate_work.STAGES}
    totals = {stage: n.total for stage, n in numbers.items()}
    totals["long"] -= numbers["long"].learns
    assert set(totals.values()) == {4_408_381_536}
    assert numbers["layers"].learns == numbers["logits"].learns == 908_631_648
    assert numbers["tuning"].learns == 908_631_648 + 84_957_696
    assert numbers["tuning"].teacher == numbers["long"].teacher == 0


def small(**changes) -> Config:
    return tiny_config(layer_types=("sliding_attention", *["linear_attention"] * 3), **changes)


def test_the_matrices_that_are_counted_in_operations_are_the_models_own():
    """All of a layer's numbers but norms, biases and gates' constants go into a product with each token."""
    for config in (small(), Config()):
        layers = estimate_memory.empty(config).model.language_model.layers
        for layer_type, built in zip(config.layer_types[:2], layers, strict=False):
            counted = estimate_work.layer(config, layer_type, 100)
            multiplied = sum(x.numel() for name, x in built.named_parameters() if x.ndim > 1)
            assert counted.into + counted.out + counted.mlp == multiplied
        matrices = [x.numel() for x in estimate_memory.empty(config).model.visual.parameters() if x.ndim > 1]
        vision, cell = config.vision, config.vision.spatial_merge_size**2
        merger = [cell**2 * vision.hidden_size**2, cell * vision.hidden_size * vision.out_hidden_size]
        attention = estimate_work.tower(config, patches=0) - 2 * (cell * (sum(matrices) - sum(merger)) + sum(merger))
        window = (vision.window_size // vision.patch_size) ** 2
        blocks = vision.depth - len(vision.fullatt_block_indexes)
        assert attention == cell * blocks * 4 * vision.hidden_size * window


def test_a_query_sees_what_the_window_leaves_it():
    for tokens, window in ((5, 3), (3, 5), (4, 4), (1, 1)):
        seen = sum(min(number + 1, window) for number in range(tokens)) / tokens
        assert estimate_work.mean_seen(tokens, window) == seen


def test_what_a_linear_layer_keeps_is_what_autograd_keeps(monkeypatch):
    """On a CPU under autocast, with a rule that keeps its inputs and nothing else, as the kernel does."""

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v, log_decay, beta):
            ctx.save_for_backward(q, k, v, log_decay, beta)
            return v.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise NotImplementedError

    def rule(q, k, v, *, log_decay, beta, **rest):
        return Rule.apply(q, k, v, log_decay, beta), None

    monkeypatch.setattr(gated_deltanet, "gated_delta_rule", rule)
    config = small(intermediate_size=384, linear_head_dim=32, num_linear_heads=4)
    layer = DecoderLayer(config, "linear_attention").to(torch.bfloat16)
    for name, parameter in layer.named_parameters():
        learns = ".self_attn." in f".{name}"
        parameter.requires_grad_(learns)
        parameter.data = parameter.data.float() if learns else parameter.data
    own, kept, T = {x.data_ptr() for x in layer.parameters()}, {}, 256

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in own and x.shape[:2] == (1, T):
            kept[x.untyped_storage().data_ptr()] = x
        return x

    x = torch.randn(1, T, config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), torch.autocast("cpu", torch.bfloat16):
        out = layer(x, positions=None)
    found = sum(y.untyped_storage().nbytes() for y in kept.values()) / T
    assert out.dtype == torch.bfloat16
    assert 0.9 < found / estimate_memory.inside("tuning", config) < 1.05


def test_a_longer_row_needs_more_and_the_longest_that_fits_does():
    config = Config()
    for stage in estimate_work.STAGES:
        for way in ("ddp", "fsdp"):
            free = 30e9
            most = estimate_memory.longest(stage, way, config, free)
            assert estimate_memory.activations(stage, way, config, most) <= free
            assert estimate_memory.activations(stage, way, config, most + 256) > free
    assert estimate_memory.longest("long", "ddp", config, -1) == 0


def test_work_by_hand():
    """One linear layer alone in stage 1a and 2: which products are made."""
    config = tiny_config(layer_types=("linear_attention",))
    layer = estimate_work.layer(config, "linear_attention", 10)
    full = estimate_work.layer(config, "full_attention", 10)
    into, out, mlp, inner = layer.into, layer.out, layer.mlp, layer.inner
    forward = 2 * (into + out + mlp) + inner
    back = 2 * (into + 2 * out + mlp) + 2 * inner
    words = 2 * config.vocab_size * config.hidden_size
    assert estimate_work.work("layers", config, 10)[0] == full.forward + forward + forward + back
    assert estimate_work.work("tuning", config, 10)[0] == forward + forward + back + 3 * words
    assert estimate_work.work("logits", config, 10)[0] == full.forward + forward + forward + back + 5 * words
    frozen = 2 * (out + mlp) + 2 * inner
    assert estimate_work.work("long", config, 10, adapters=5)[0] == forward + forward + frozen + 3 * words + 40


def test_fewer_gpus_and_other_rows_can_be_asked_for(capsys):
    code, out, _ = called(capsys, "estimate", "--gpus", "4", "--tokens", "1024")
    assert code == 0
    assert "FSDP2 on 4" in out
    assert "one GPU" not in out
    assert not re.search("8 GPUs|64 GPUs", out)
    assert "3 long 1,024" in out


def test_parts_that_learn_are_those_of_the_trainer():
    for stage in estimate_work.STAGES:
        model = estimate_memory.empty(small(), 2 if stage == "long" else 0)
        learn = {count.part for count in freezing.freeze(model, freezing.LEARNS[stage]) if count.learns}
        types = {"linear mixers": "linear_attention", "attention mixers": "sliding_attention"}
        assert {types[part] for part in learn if part in types} == set(estimate_work.LEARN[stage])
