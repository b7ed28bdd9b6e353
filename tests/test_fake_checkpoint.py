"""Fake checkpoints: whole, the same for a seed whatever their layout, sane in bf16, and refused in one line."""

import json
import os
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import minivl
from minivl.checkpoint import load_model
from minivl.config import Config
from minivl.fake_tokenizer import CONTROL
from minivl.fake_weights import in_shards, random_tensor, specs_of, tiny_config, write_fake
from minivl.layers.gated_deltanet import GatedDeltaNet
from minivl.safetensors_writing import nbytes
from minivl.tokenizer import Tokenizer

from .fakes import tiny_folder, tiny_model
from .test_checkpoint import same
from .test_cli import call


def test_from_python_the_folder_is_made_where_it_is_not_there(tmp_path):
    write_fake(tmp_path / "a" / "b", tiny_config())
    assert load_model(tmp_path / "a" / "b", device="cpu").config == tiny_config()


def test_the_command_writes_a_folder_that_loads_and_speaks(capsys, tmp_path):
    folder = tmp_path / "new" / "fake"
    code, out, err = call(capsys, "fake-checkpoint", str(folder), "--size", "tiny")
    assert (code, err) == (0, "")
    assert f"{folder}: 188 tensors, 500,504 parameters" in out
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
    }
    model, processor = minivl.load(folder, device="cpu", dtype=torch.float32)
    assert model.config == tiny_config()
    pieces = minivl.chat(model, processor, [{"role": "user", "content": "Hello"}], max_new_tokens=30)
    assert len("".join(pieces)) > 5


def test_what_it_says_varies():
    model, processor = minivl.load(tiny_folder(), device="cpu")
    inputs = processor([{"role": "user", "content": "Hello"}])
    said = list(minivl.generate(model, inputs, max_new_tokens=60, stop_tokens=()))
    assert len(set(said)) > 15


@pytest.mark.parametrize("layout", ["new", "old"])
@pytest.mark.parametrize("shards", [1, 3, 7])
def test_a_seed_gives_one_model_in_every_layout(capsys, tmp_path, layout, shards):
    words = ["--layout", layout, "--shards", str(shards), "--seed", "5", "--dtype", "float32"]
    code, _, err = call(capsys, "fake-checkpoint", str(tmp_path / "a"), *words)
    assert (code, err) == (0, "")
    files = sorted((tmp_path / "a").glob("*.safetensors"))
    assert len(files) == shards
    write_fake_of_seed = tmp_path / "b"
    write_fake_of_seed.mkdir()
    write_fake(write_fake_of_seed, tiny_config(), seed=5, dtype=torch.float32)
    same(load_model(tmp_path / "a", device="cpu"), load_model(write_fake_of_seed, device="cpu"))
    norm = "model.norm.weight" if layout == "old" else "model.language_model.norm.weight"
    assert norm.encode() in b"".join(path.read_bytes() for path in files)


def test_another_seed_gives_another_model_and_a_narrower_dtype_its_rounding():
    specs = specs_of(tiny_config(), torch.float32)
    for name, spec in specs.items():
        x = random_tensor(name, spec, 0)
        assert torch.equal(x.bfloat16(), random_tensor(name, (torch.bfloat16, spec[1]), 0))
        constant = "norm" in name or "ln_q" in name
        assert torch.equal(x, random_tensor(name, spec, 1)) == constant, name


def test_gates_start_as_the_layers_do():
    """Both within the layer's ranges, and both filling them: decay 1 to 16, time steps of 0.001 to 0.1."""
    torch.manual_seed(0)
    config = tiny_config(num_linear_heads=300)
    layer = GatedDeltaNet(config)
    fakes = {name: random_tensor(f"x.{name}", (torch.float32, (300,)), 0) for name in ("A_log", "dt_bias")}
    for own in (fakes, dict(layer.named_parameters())):
        rates = own["A_log"].detach().exp()
        steps = torch.nn.functional.softplus(own["dt_bias"].detach()).log10()
        for x, low, high in ((rates, 1, 16), (steps, -3, -1)):
            assert low - 1e-3 <= x.min() < low + 0.1 * (high - low)
            assert high - 0.1 * (high - low) < x.max() <= high + 1e-3


@torch.no_grad()
def test_numbers_stay_sane_through_36_layers_in_bf16(tmp_path):
    config = tiny_config(layer_types=Config().layer_types)
    write_fake(tmp_path, config)
    model = load_model(tmp_path, device="cpu")
    logits = model(torch.arange(200)[None] % 900).float()
    assert logits.isfinite().all()
    assert 0.3 < logits.std() < 3


def test_the_released_size_has_the_released_tensors():
    specs = specs_of(Config(), torch.bfloat16)
    assert len(specs) == 986
    assert sum(map(nbytes, specs.values())) == 2 * 4_408_381_536
    halves = [sum(map(nbytes, shard.values())) for shard in in_shards(specs, 2)]
    assert max(halves) < 1.05 * min(halves)


def test_the_released_sizes_tokenizer_has_the_released_ids(tmp_path):
    from minivl.fake_tokenizer import fake_tokenizer

    (tmp_path / "tokenizer.json").write_bytes(fake_tokenizer(Config().bos_token_id))
    tokenizer = Tokenizer.read(tmp_path, Config())  # which holds the ids against the configuration's
    assert [tokenizer.special(name) for name in CONTROL] == list(range(151643, 151657))
    text = tokenizer.decode(range(1000, 151643, 1000))
    assert len(text.split()) == len(set(text.split())) == 151
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_tiny_tokenizer_has_its_control_tokens_last():
    config = tiny_config()
    tokenizer = Tokenizer.read(tiny_folder(), config)
    assert config.vocab_size >= 600
    assert tokenizer.special(CONTROL[-1]) == config.vocab_size - 1
    assert [tokenizer.special(name) - tokenizer.special(CONTROL[0]) for name in CONTROL] == list(range(14))
    assert len(tokenizer.encode("the picture")) < len("the picture")


@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=30), data=st.data())
def test_shards_are_as_many_as_asked_for_whole_and_in_order(sizes, data):
    specs = {f"x{i}": (torch.float32, (size,)) for i, size in enumerate(sizes)}
    shards = data.draw(st.integers(1, len(sizes)))
    out = in_shards(specs, shards)
    assert len(out) == shards
    assert all(out)
    assert [name for shard in out for name in shard] == list(specs)
    fullest = max(sum(map(nbytes, shard.values())) for shard in out)
    assert fullest <= 2 * 4 * (sum(sizes) / shards + max(sizes))


def test_help(capsys):
    code, out, _ = call(capsys, "fake-checkpoint", "--help")
    assert code == 0
    for word in ("DIR", "tiny", "4b", "--seed", "--layout", "--dtype", "--shards"):
        assert word in out


@pytest.mark.parametrize(
    "words",
    [[], ["d", "--size", "7b"], ["d", "--shards", "0"], ["d", "--shards", "x"], ["d", "--dtype", "int8"], ["d", "e"]],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_read_is_exit_code_2(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "fake-checkpoint", *words)
    assert (code, out) == (2, "")
    assert "error:" in err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def one_line(capsys, *words: str) -> str:
    code, out, err = call(capsys, "fake-checkpoint", *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    return err


def test_a_folder_that_is_not_empty_is_refused(capsys, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    assert f"{tmp_path} is not empty" in one_line(capsys, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_place_that_is_a_file_is_refused(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file is a file" in one_line(capsys, str(tmp_path / "file"))
    assert "file is a file" in one_line(capsys, str(tmp_path / "file" / "below"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may write anywhere")
def test_a_folder_that_is_read_only_is_refused(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert "permission denied" in one_line(capsys, str(tmp_path)).lower()
    assert "permission denied" in one_line(capsys, str(tmp_path / "below")).lower()


def test_a_disk_without_room_is_told_before_anything_is_written(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 2_500_000_000))
    line = one_line(capsys, str(tmp_path / "fake"), "--size", "4b")
    assert "2.50 GB free; the weights need 8.82 GB" in line
    assert not list((tmp_path / "fake").iterdir())


def test_more_shards_than_tensors_are_refused(capsys, tmp_path):
    assert "189 shards are too many for 188 tensors" in one_line(capsys, str(tmp_path / "fake"), "--shards", "189")


def test_the_folders_settings_are_the_released_ones():
    content = json.loads((tiny_folder() / "preprocessor_config.json").read_text())
    assert (content["min_pixels"], content["max_pixels"]) == (3136, 12845056)
    assert (content["patch_size"], content["temporal_patch_size"], content["merge_size"]) == (14, 2, 2)
    assert tiny_model().config.vision.patch_size == 14
