"""Checkpoints in and out: bit for bit, in both styles of names, and every planted fault told by name."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import minivl
from minivl import safetensors_reading, safetensors_writing
from minivl.checkpoint import load_model, save_model
from minivl.checkpoint_names import new_style, old_style
from minivl.safetensors_reading import INDEX, SINGLE

from .fakes import tiny_config, tiny_folder, tiny_model

EMBEDDING, NORM = "model.language_model.embed_tokens.weight", "model.language_model.norm.weight"
Q_BIAS, A_LOG = "model.language_model.layers.0.self_attn.q_proj.bias", "model.language_model.layers.1.self_attn.A_log"


WIDER = {"vision": replace(tiny_config().vision, out_hidden_size=1024)}  # for a hidden size of 1024


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the tiny checkpoint, one file, for a test to spoil."""
    return copy(tiny_folder(), tmp_path)


@pytest.fixture
def sharded(tmp_path) -> Path:
    return copy(tiny_folder(shards=3), tmp_path)


def copy(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "copy"))


def edit(folder: Path, change) -> None:
    """Let `change` alter the dictionary of a single file's tensors."""
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def edit_json(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(folder: Path, *named: str, kind=ValueError, **options) -> str:
    """Loading fails with one line that names the folder and all of this."""
    with pytest.raises(kind) as caught:
        load_model(folder, device="cpu", **options)
    line = str(caught.value)
    assert "\n" not in line
    for name in (str(folder), *named):
        assert name in line, line
    return line


def same(one, other) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        assert x.dtype == theirs[name].dtype, name
        assert torch.equal(x.reshape(-1).view(torch.uint8), theirs[name].reshape(-1).view(torch.uint8)), name
    assert one.config == other.config


# ------------------------------------------------------------------ round trips


@given(
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    shard_bytes=st.sampled_from([5_000_000_000, 200_000, 30_000, 1]),
    tied=st.booleans(),
    fused=st.booleans(),
    wide_gates=st.booleans(),
)
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path_factory, dtype, shard_bytes, tied, fused, wide_gates):
    model = tiny_model(dtype=dtype, tie_word_embeddings=tied)
    if wide_gates:
        for layer in model.model.language_model.layers[1:4]:
            layer.self_attn.A_log.data = layer.self_attn.A_log.data.float() + 2**-20
    saved = model.fuse() if fused else model
    folder = tmp_path_factory.mktemp("saved")
    save_model(saved, folder, shard_bytes=shard_bytes)
    loaded = load_model(folder, device="cpu")
    assert loaded.dtype == dtype
    same(loaded, model)
    assert not any(x.is_meta for x in (*loaded.parameters(), *loaded.buffers()))
    files = sorted(folder.glob("*.safetensors"))
    assert (folder / INDEX).exists() == (len(files) > 1)
    for file in files:
        tensors = safetensors_reading.header(file)
        assert sum(x.nbytes for x in tensors.values()) <= shard_bytes or len(tensors) == 1


@pytest.mark.parametrize("shards", [1, 4])
def test_both_styles_of_names_give_the_same_model(shards):
    same(tiny_model(), load_model(tiny_folder(layout="old", shards=shards), device="cpu"))


def test_names_translate_both_ways():
    for name in tiny_model().state_dict():
        assert new_style(name) == name
        assert old_style(name) != name
        assert new_style(old_style(name)) == name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dtype_is_given_but_the_gates_own_parameters_are_never_rounded(dtype):
    stored, model = tiny_model(), load_model(tiny_folder(), dtype=dtype, device="cpu")
    for name, x in model.state_dict().items():
        wide = name.endswith((".A_log", ".dt_bias"))
        assert x.dtype == (torch.promote_types(torch.float32, dtype) if wide else dtype)
        assert torch.equal(x, stored.state_dict()[name].to(x.dtype))


def test_a_loaded_model_is_its_own_after_the_files_are_gone(folder):
    model = load_model(folder, device="cpu")
    before = {name: x.clone() for name, x in model.state_dict().items()}
    (folder / SINGLE).write_bytes(b"")
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_the_safetensors_library_reads_what_is_written(tmp_path):
    model = tiny_model()
    save_model(model, tmp_path)
    tensors = load_file(tmp_path / SINGLE)
    assert all(torch.equal(tensors[name], x) for name, x in model.state_dict().items())
    with safetensors_reading.safe_open(tmp_path / SINGLE, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_unaligned_tensors_and_odd_offsets_are_read(folder):
    """Nothing promises that a tensor starts at a multiple of its numbers' width."""
    x = torch.arange(7, dtype=torch.float32)
    head = json.dumps({"x": {"dtype": "F32", "shape": [7], "data_offsets": [0, 28]}}).encode()
    head += b" " * ((1 - len(head)) % 4)
    path = folder / "odd.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + x.numpy().tobytes())
    found = safetensors_reading.header(path)["x"]
    assert found.start % 4
    assert torch.equal(safetensors_reading.numbers(found), x)


# ------------------------------------------------------------------ saving over what is there


def test_an_earlier_save_leaves_nothing_behind_and_other_files_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for shard_bytes in (30_000, 5_000_000_000, 100_000):
        save_model(tiny_model(), tmp_path, shard_bytes=shard_bytes)
        same(load_model(tmp_path, device="cpu"), tiny_model())
        listed = set()
        if (tmp_path / INDEX).exists():
            listed = {INDEX, *json.loads((tmp_path / INDEX).read_text())["weight_map"].values()}
        expected = {"config.json", "notes.txt"} | (listed or {SINGLE})
        assert {path.name for path in tmp_path.iterdir()} == expected


def test_a_save_that_fails_leaves_the_older_checkpoint_whole(tmp_path, monkeypatch):
    save_model(tiny_model(), tmp_path, shard_bytes=100_000)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    left = 3

    def full(path, parts):
        nonlocal left
        left -= 1
        if not left:
            raise OSError("the disk is full")
        return write_bytes(path, parts)

    write_bytes = safetensors_writing._write_bytes
    monkeypatch.setattr(safetensors_writing, "_write_bytes", full)
    with pytest.raises(OSError, match="the disk is full"):
        save_model(tiny_model(dtype=torch.bfloat16), tmp_path, shard_bytes=50_000)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("at", range(1, 12))
@pytest.mark.parametrize("shard_bytes", [250_000, 10**9], ids=["shards", "one file"])
def test_a_crash_while_files_are_moved_never_leaves_a_mixture(tmp_path, monkeypatch, shard_bytes, at):
    old, new = tiny_model(), tiny_model()
    new.model.language_model.norm.weight.data.add_(1)
    new.model.visual.blocks[0].norm1.weight.data.add_(1)
    save_model(old, tmp_path, shard_bytes=shard_bytes)
    left = at

    def crash(source, target):
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        replace(source, target)

    replace = os.replace
    monkeypatch.setattr(safetensors_writing.os, "replace", crash)
    try:
        save_model(new, tmp_path, shard_bytes=shard_bytes)
    except KeyboardInterrupt:
        with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
            load_model(tmp_path, device="cpu")
    else:
        same(load_model(tmp_path, device="cpu"), new)


def test_another_models_folder_is_not_written_to(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"another model.s.*.llama."):
        save_model(tiny_model(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_saving_to_what_is_no_folder_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match="file is a file"):
            save_model(tiny_model(), place)


def test_the_processors_files_are_copied_when_asked_for(tmp_path):
    save_model(tiny_model(), tmp_path / "bare")
    assert {path.name for path in (tmp_path / "bare").iterdir()} == {"config.json", SINGLE}
    save_model(tiny_model(), tmp_path / "whole", processor_from=tiny_folder())
    for name in ("tokenizer.json", "preprocessor_config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tiny_folder() / name).read_bytes()
    _, processor = minivl.load(tmp_path / "whole", device="cpu")
    assert processor.config == tiny_config()


@pytest.mark.parametrize("shard_bytes", [0, -1, 1.5, "5GB"])
def test_a_shard_size_that_is_none_is_named(tmp_path, shard_bytes):
    with pytest.raises(ValueError, match="shard_bytes is"):
        save_model(tiny_model(), tmp_path, shard_bytes=shard_bytes)


def test_a_model_without_numbers_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="meta device"):
        save_model(tiny_model().to("meta"), tmp_path)


# ------------------------------------------------------------------ tensors that don't fit


def test_every_kind_of_fault_is_told_in_one_message(folder):
    def spoil(tensors):
        del tensors[NORM]
        tensors["model.extra"] = torch.zeros(1)
        tensors[Q_BIAS] = torch.zeros(3)
        tensors[A_LOG] = torch.zeros(2, dtype=torch.int32)
        tensors["model.visual.blocks.0.norm1.weight"][1] = torch.nan
        tensors["model.visual.blocks.1.norm1.weight"][0] = torch.inf

    edit(folder, spoil)
    refused(
        folder,
        f"missing (1): {NORM}",
        "not part of the model (1): model.extra",
        f"wrong shape (1): {Q_BIAS} is [3]; it should be [64]",
        f"wrong dtype (1): {A_LOG} is I32",
        "not finite (NaN or infinite) (2): model.visual.blocks.0.norm1.weight, model.visual.blocks.1.norm1.weight",
    )


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("place", [0, 777, -1])
def test_one_number_that_is_none_is_found(tmp_path, number, dtype, place):
    model = tiny_model(dtype=dtype)
    model.model.language_model.embed_tokens.weight.data.view(-1)[place] = number
    save_model(model, tmp_path)
    refused(tmp_path, f"not finite (NaN or infinite) (1): {EMBEDDING}")


def test_numbers_too_large_for_the_dtype_asked_for_are_found(folder):
    edit(folder, lambda tensors: tensors[NORM].fill_(1e30))
    load_model(folder, device="cpu")
    refused(folder, NORM, "not finite", dtype=torch.float16)


def test_a_long_list_of_names_is_cut(folder):
    edit(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.1." in name])
    count = sum(".layers.1." in name for name in tiny_model().state_dict())
    line = refused(folder, f"missing ({count})", f"and {count - 8} more")
    assert line.count(".layers.1.") == 8


def test_missing_names_are_told_in_the_files_own_style(tmp_path):
    folder = copy(tiny_folder(layout="old"), tmp_path)
    edit(folder, lambda tensors: tensors.pop("model.norm.weight"))
    refused(folder, "missing (1): model.norm.weight")


@pytest.mark.parametrize("layout", ["new", "old"])
def test_extras_are_allowed_when_asked_for(tmp_path, layout):
    folder = copy(tiny_folder(layout=layout), tmp_path)
    edit(folder, lambda tensors: tensors.update({"model.rotary.inv_freq": torch.zeros(1, dtype=torch.int8)}))
    refused(folder, "not part of the model (1): model.rotary.inv_freq")
    same(load_model(folder, device="cpu", allow_extra=True), tiny_model())


def test_a_mixture_of_styles_is_refused(folder):
    edit(folder, lambda tensors: tensors.update({"model.norm.weight": tensors.pop(NORM)}))
    refused(folder, "names of both styles", "model.norm.weight")
    refused(folder, "names of both styles", "model.norm.weight", allow_extra=True)


def test_a_tensor_under_both_names_is_refused(folder):
    edit(folder, lambda tensors: tensors.update({"model.norm.weight": tensors[NORM].clone()}))
    refused(folder, "stored twice", f"{NORM} and model.norm.weight", allow_extra=True)


def test_a_mixture_of_dtypes_is_refused_unless_one_is_asked_for(folder):
    edit(folder, lambda tensors: tensors.update({NORM: tensors[NORM].bfloat16()}))
    refused(folder, f"not in torch.float32 like the embedding, and no dtype was asked for (1): {NORM} is BF16")
    same(load_model(folder, device="cpu", dtype=torch.float32), tiny_model())


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn], ids=str)
def test_quantised_weights_are_refused(folder, dtype):
    edit(folder, lambda tensors: tensors.update({NORM: tensors[NORM].to(dtype)}))
    refused(folder, f"wrong dtype (1): {NORM} is")


def test_a_head_that_equals_tied_embeddings_is_as_good_as_none(folder):
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING].clone()}))
    same(load_model(folder, device="cpu"), tiny_model())


@pytest.mark.parametrize("row", [0, -1])
def test_a_head_that_contradicts_tied_embeddings_is_refused(folder, monkeypatch, row):
    monkeypatch.setattr("minivl.checkpoint_names.ROWS_AT_ONCE", 7)

    def contradict(tensors):
        tensors["lm_head.weight"] = tensors[EMBEDDING].clone()
        tensors["lm_head.weight"][row, -1] += 1

    edit(folder, contradict)
    refused(folder, "lm_head.weight differs from", "ties them")


def test_a_head_of_another_shape_contradicts_too(folder):
    edit(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING][1:].clone()}))
    refused(folder, "lm_head.weight differs from")


def test_an_untied_model_needs_its_head(tmp_path):
    folder = copy(tiny_folder(tie_word_embeddings=False), tmp_path)
    edit(folder, lambda tensors: tensors.pop("lm_head.weight"))
    refused(folder, "missing (1): lm_head.weight")


# ------------------------------------------------------------------ files that are damaged, or elsewhere


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 0.5, -1])
def test_a_truncated_file_is_named(folder, keep):
    path = folder / SINGLE
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    refused(folder, SINGLE, "cut off")


def test_a_truncated_shard_is_named(sharded):
    path = sorted(sharded.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-1])
    refused(sharded, path.name, "cut off")


def test_a_note_of_git_lfs_is_told_as_such(folder):
    (folder / SINGLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    refused(folder, "Git LFS", "git lfs pull")


def test_a_missing_shard_is_named(sharded):
    path = sorted(sharded.glob("*.safetensors"))[1]
    path.unlink()
    refused(sharded, path.name, "3 shards", kind=FileNotFoundError)


def test_a_tensor_that_its_shard_lacks_is_named(sharded):
    def swap(index):
        files = sorted(set(index["weight_map"].values()))
        index["weight_map"][NORM] = next(file for file in files if file != index["weight_map"][NORM])

    edit_json(sharded / INDEX, swap)
    refused(sharded, f"in the index but not in their shard (1): {NORM}", f"in a shard but not in the index (1): {NORM}")


def test_a_tensor_that_the_index_lacks_is_named(sharded):
    edit_json(sharded / INDEX, lambda index: index["weight_map"].pop(NORM))
    refused(sharded, f"missing (1): {NORM}", f"in a shard but not in the index (1): {NORM}")
    refused(sharded, f"missing (1): {NORM}", allow_extra=True)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not readable as JSON"),
        ("[]", "no weight_map"),
        ('{"metadata": {}}', "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": [1]}', "no weight_map"),
        ('{"weight_map": {"x": 3}}', "puts x into 3"),
    ],
)
def test_an_index_that_is_none_is_named(sharded, content, named):
    (sharded / INDEX).write_text(content)
    refused(sharded, INDEX, named)


@pytest.mark.parametrize(
    "place",
    ["../{}", "/tmp/{}", "sub/{}", "..\\{}", "C:{}", "./{}", "..", ""],
)
def test_an_index_that_points_outside_its_folder_is_refused(sharded, place):
    file = sorted(sharded.glob("*.safetensors"))[0]
    shutil.copy(file, sharded.parent / file.name)
    target = place.format(file.name)
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update({NORM: target}))
    refused(sharded, NORM, repr(target), "same folder")


def test_an_index_of_pickled_files_is_refused(sharded):
    edit_json(sharded / INDEX, lambda index: index["weight_map"].update({NORM: "pytorch_model.bin"}))
    refused(sharded, "pytorch_model.bin", "run code")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_refused_unread(folder, name):
    (folder / SINGLE).rename(folder / name)
    refused(folder, name, "pickled", "run code", SINGLE)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("name", [SINGLE, INDEX, "shard"])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    folder = copy(tiny_folder(shards=1 if name == SINGLE else 3), tmp_path)
    path = sorted(folder.glob("model-*"))[0] if name == "shard" else folder / name
    outside = path.rename(tmp_path / path.name)
    path.symlink_to(outside)
    refused(folder, path.name, "link", "outside")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_the_hubs_cache_of_links_is_read(tmp_path):
    """.../snapshots/REVISION/file is a link to .../blobs/digest; and a folder may be a link itself."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(tiny_folder(shards=3).iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / str(number))
    (tmp_path / "here").symlink_to(snapshot)
    for folder in (snapshot, tmp_path / "here"):
        same(load_model(folder, device="cpu"), tiny_model())


def test_a_link_to_nothing_is_named(folder):
    (folder / SINGLE).unlink()
    (folder / SINGLE).symlink_to(folder / "nothing")
    refused(folder, SINGLE, "not a file", kind=FileNotFoundError)


def test_two_sets_of_weights_are_refused(sharded):
    shutil.copy(tiny_folder() / SINGLE, sharded / SINGLE)
    refused(sharded, SINGLE, INDEX, "both")


def test_shards_without_an_index_are_named(sharded):
    (sharded / INDEX).unlink()
    refused(sharded, INDEX, "model-00001-of-00003.safetensors", kind=FileNotFoundError)


def test_a_folder_without_config_or_weights_is_named(folder):
    (folder / SINGLE).unlink()
    refused(folder, "no weights", SINGLE, kind=FileNotFoundError)
    (folder / "config.json").unlink()
    refused(folder, "config.json", kind=FileNotFoundError)


# ------------------------------------------------------------------ sources, devices, dtypes


@pytest.mark.parametrize("name", ["hustvl/InfiniteVL", "hustvl/infinitevl/", "hustvl/InfiniteVL-LongSFT"])
def test_a_name_on_the_hub_gets_the_command_that_downloads_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    right = "hustvl/InfiniteVL" + ("-LongSFT" if "Long" in name else "")
    line = refused(Path(name) if name[-1] != "/" else name, kind=FileNotFoundError)
    assert f"hf download {right} --local-dir {right.split('/')[1]} (" in line
    assert "hustvl/InfiniteVL suits chat and documents" in line
    assert "hustvl/InfiniteVL-LongSFT suits long video and streams" in line


def test_sources_that_are_nothing_are_named(tmp_path):
    refused(tmp_path / "nothing", "not a folder", kind=FileNotFoundError)
    refused(tiny_folder() / SINGLE, "is a file", kind=NotADirectoryError)
    with pytest.raises(TypeError, match="source is a int"):
        load_model(3)


def test_tiny_is_the_model_that_comes_along_unless_a_folder_of_this_name_is_at_hand(monkeypatch, tmp_path):
    monkeypatch.setattr("minivl.source.TINY", tiny_folder())
    same(load_model("tiny", device="cpu"), tiny_model())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    refused("tiny", "config.json", kind=FileNotFoundError)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5, "meta"])
def test_a_device_that_is_none_is_named(device):
    with pytest.raises(ValueError, match=f"device is '?{device}"):
        load_model(tiny_folder(), device=device)


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_a_kind_of_device_that_this_machine_lacks_is_one_sentence(device):
    if getattr(torch, device).is_available():
        pytest.skip(f"this machine has {device}")
    with pytest.raises(ValueError, match=f"device is '{device}', which PyTorch can't use on this machine"):
        load_model(tiny_folder(), device=device)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.int8, torch.complex64, float])
def test_a_dtype_that_is_none_is_named(dtype):
    with pytest.raises(TypeError, match="dtype is"):
        load_model(tiny_folder(), device="cpu", dtype=dtype)


def test_a_device_that_is_too_small_is_told_with_what_was_needed(monkeypatch):
    def too_small(tensors):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(safetensors_reading, "one_by_one", too_small)
    refused(tiny_folder(dtype=torch.float32), "0.00 GB of weights", "more than cpu has free")


@pytest.mark.gpu
def test_a_gpu_holds_the_weights_and_little_more():
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = load_model(tiny_folder(hidden_size=1024, intermediate_size=4096, **WIDER))
    weights = sum(x.nbytes for x in model.parameters())
    assert model.device.type == "cuda"
    assert torch.cuda.max_memory_allocated() - before < 1.05 * weights


# ------------------------------------------------------------------ the package


@pytest.mark.parametrize("first", ["import minivl.generate", "from minivl.generate import chat", "pass"])
def test_public_names_come_late_and_are_functions(first):
    code = (
        "import sys, minivl; assert 'torch' not in sys.modules; "
        f"{first}; from minivl import generate, chat, load, load_model, load_processor, save_model; "
        "assert all(map(callable, (generate, chat, load, load_model, load_processor, save_model, minivl.generate))); "
        "assert 'generate' in dir(minivl)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        _ = minivl.sing


def test_a_folder_of_ones_own_may_be_called_tiny(tmp_path, monkeypatch):
    copy(tiny_folder(), tmp_path).rename(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    same(tiny_model(), load_model("tiny", device="cpu"))
