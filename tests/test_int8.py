"""int8 matrices: each number within half a step, the product exact, the rest of the model untouched, loading frugal."""

import argparse
import json
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from minivl import __main__ as cli
from minivl import safetensors_reading
from minivl.bench import int8 as bench
from minivl.bench.measure import peak_bytes
from minivl.checkpoint import load, load_model, save_model
from minivl.layers import int8
from minivl.layers.int8 import Int8Embedding, Int8Linear, int8_linear, is_quantised, nbytes, quantise, quantised
from minivl.safetensors_reading import SINGLE

from .conversations import conversation
from .fakes import tiny_config, tiny_folder, tiny_model
from .model_claims import ModelCase, new_memory, real
from .models import error
from .tolerances import close, tolerance

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# Of the tiny model's scores when its matrices are quantised, of their size; measured 0.19 without the tower's and 0.20
# with them. It says nothing about a trained model: random layers amplify every rounding.
TINY = 0.25
DOWN = "model.language_model.layers.3.mlp.down_proj.weight"


def matrix(seed: int, rows: int = 7, columns: int = 12, regime: str = "normal", dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    if regime == "an outlier":
        x[:, seed % columns] *= 1000
    elif regime == "rows of all sizes":
        x *= 10.0 ** torch.linspace(-30, 30, rows, dtype=torch.float64)[:, None]
    elif regime == "one sign":
        x = -x.abs()
    elif regime == "zero rows":
        x[seed % rows] = 0
    return x.to(dtype)


REGIMES = ("normal", "an outlier", "rows of all sizes", "one sign", "zero rows")
a_matrix = st.builds(
    matrix,
    seed=st.integers(0, 999),
    rows=st.integers(1, 9),
    columns=st.integers(1, 40),
    regime=st.sampled_from(REGIMES),
    dtype=st.sampled_from(DTYPES[:3]),
)


def dequantised(weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return weight.double() * scale.double()[:, None]


def layer_of(weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None) -> Int8Linear:
    layer = Int8Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight, layer.scale = weight, scale
    layer.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
    return layer


# rounding ------------------------------------------------------------------------------------------------------------


@given(a_matrix)
def test_every_number_is_within_half_a_step_of_its_row(x):
    weight, scale = quantised(x)
    assert (weight.dtype, scale.dtype) == (torch.int8, torch.float32)
    steps = (x.double() - dequantised(weight, scale)).abs() / scale.double()[:, None].clamp(min=1e-300)
    assert steps.max() <= 0.5 + 1e-4  # a scale is rounded to float32, of which the largest number shows 127 times
    largest = weight.abs().amax(1)
    assert torch.equal(largest == 127, x.abs().amax(1) > 0)
    assert torch.equal(largest == 0, scale == 0)


@given(a_matrix)
def test_a_quantised_matrix_quantises_to_itself(x):
    weight, scale = quantised(x)
    again, scale_again = quantised(dequantised(weight, scale))
    assert torch.equal(weight, again)
    assert torch.allclose(scale, scale_again, rtol=2e-7, atol=0)


@given(a_matrix)
def test_a_negated_matrix_has_negated_numbers(x):
    """Rounding prefers no side, and −128 is never used."""
    weight, scale = quantised(x)
    negated, same = quantised(-x)
    assert torch.equal(negated, -weight)
    assert torch.equal(scale, same)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_zeros_and_of_numbers_too_small_for_a_scale_become_zeros(dtype):
    x = torch.zeros(3, 4, dtype=dtype)
    x[1] = torch.tensor([1e-40, -1e-41, 0, 1e-42], dtype=dtype)  # zero in float16, and not in full in the others
    x[2] = 1
    weight, scale = quantised(x)
    assert weight.tolist() == [[0] * 4, [0] * 4, [127] * 4]
    assert scale[:2].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers_of_each_dtype_that_float32_can_scale_are_kept(dtype):
    most = min(torch.finfo(dtype).max, torch.finfo(torch.float32).max)
    x = torch.tensor([[most, -most, most / 4]], dtype=dtype)
    weight, scale = quantised(x)
    assert weight.tolist() == [[127, -127, 32]]
    assert scale.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_shows_in_its_scale_and_in_no_other(bad):
    x = matrix(0)
    x[2, 5] = bad
    _, scale = quantised(x)
    assert scale.isfinite().tolist() == [row != 2 for row in range(len(x))]


@given(a_matrix, st.integers(1, 4))
def test_rows_in_pieces_are_what_they_are_at_once(x, rows):
    at_once = quantised(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "ROUNDED_AT_ONCE", rows)
        for whole, cut in zip(at_once, quantised(x), strict=True):
            assert torch.equal(whole, cut)


# products ------------------------------------------------------------------------------------------------------------


@given(
    weights=a_matrix,
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from([(), (1,), (5,), (2, 3), (0,), (2, 0)]),
    biased=st.booleans(),
    rows=st.sampled_from([3, 1000]),
)
def test_a_layer_is_the_product_with_the_dequantised_matrix(weights, dtype, shape, biased, rows):
    weight, scale = quantised(weights / weights.double().abs().amax().clamp(min=1e-300))
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(*shape, weight.shape[1], generator=generator, dtype=torch.float64).to(dtype)
    bias = torch.randn(len(weight), generator=generator, dtype=torch.float64).to(dtype) if biased else None
    oracle = x.double() @ dequantised(weight, scale).T + (0 if bias is None else bias.double())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "WIDENED_AT_ONCE", rows)
        out = layer_of(weight, scale, bias)(x)
    assert out.dtype == dtype
    close(out, oracle, tolerance=tolerance(dtype))


def test_sums_too_large_for_float16_are_scaled_before_they_are_rounded():
    weight, scale = quantised(torch.full((2, 4096), 0.01))
    x = torch.ones(1, 4096, dtype=torch.float16)
    assert float(weight.sum(1)[0]) > torch.finfo(torch.float16).max
    close(int8_linear(x, weight, scale), torch.full((1, 2), 40.96, dtype=torch.float64), tolerance=4e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_table_gives_its_rows_and_scores_by_the_same_numbers(dtype):
    weight, scale = quantised(matrix(3, rows=20).to(dtype))
    table = Int8Embedding(20, 12, dtype=dtype)
    table.weight, table.scale = weight, scale
    ids = torch.tensor([[3, 19], [0, 3]])
    rows = table(ids)
    assert rows.dtype == dtype
    close(rows, dequantised(weight, scale)[ids], tolerance=tolerance(dtype))


def test_scales_stay_float32_whatever_dtype_the_module_is_moved_to():
    table, layer = Int8Embedding(4, 3), Int8Linear(3, 4)
    both = torch.nn.ModuleList([table, layer])
    for module in both:
        module.scale = torch.full((4,), 1.1)
    both.to(torch.bfloat16).to(torch.float64).half()
    assert (table.dtype, layer.bias.dtype) == (torch.float16, torch.float16)
    assert all(torch.equal(module.scale, torch.full((4,), 1.1)) for module in both)
    assert all(module.weight.dtype == torch.int8 for module in both)
    assert table(torch.tensor([1])).dtype == torch.float16


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", [1, 5, 256])
def test_a_gpu_multiplies_as_exactly(dtype, T):
    weight, scale = (x.cuda() for x in quantised(matrix(0, rows=640, columns=256)))
    x, bias = torch.randn(2, T, 256, device="cuda").to(dtype), torch.randn(640, device="cuda").to(dtype)
    oracle = x.double() @ dequantised(weight, scale).T + bias.double()
    close(int8_linear(x, weight, scale, bias), oracle, tolerance=max(tolerance(dtype), 1e-9))
    loud = 1000 * x  # in fp16 the sums of whole numbers would be too large
    close(int8_linear(loud, weight, scale / 1e3), oracle - bias.double(), tolerance=4e-3)


# the whole model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vision", [False, True])
def test_matrices_are_quantised_and_nothing_else_is(vision):
    before = tiny_model(dtype=torch.bfloat16)
    after = quantise(tiny_model(dtype=torch.bfloat16), vision=vision)
    theirs, ours = before.state_dict(), after.state_dict()
    whole = {name for name, x in ours.items() if x.dtype == torch.int8}
    assert ours.keys() == theirs.keys() | {name.replace(".weight", ".scale") for name in whole}
    for name, x in theirs.items():
        own = x.ndim == 2 and "conv" not in name and (vision or ".visual." not in name)
        assert (name in whole) == own
        if not own:
            assert torch.equal(ours[name], x)
            assert ours[name].dtype == x.dtype
    assert after.dtype == torch.bfloat16
    assert nbytes(after) < nbytes(before)
    assert not any(x.requires_grad for x in after.parameters())


@pytest.mark.parametrize("pattern", ["1 + 3", "teacher"])
@pytest.mark.parametrize("tied", [True, False])
@given(seed=st.integers(0, 99))
@torch.no_grad()
def test_it_is_the_model_of_the_dequantised_matrices(pattern, tied, seed):
    """In float64, pictures and all: at once, and in pieces through a memory."""
    case, row = ModelCase(pattern, tied=tied, seed=seed), conversation(seed)
    oracle, model = real(case), quantise(real(case), vision=True)
    for name, layer in int8.matrices(oracle, vision=True).items():
        layer.weight.copy_(dequantised(*quantised(layer.weight)))
        assert isinstance(model.get_submodule(name), Int8Linear | Int8Embedding)
    wanted = oracle(**row.arguments())
    close(model(**row.arguments()), wanted, tolerance=1e-10)
    memory, cut = new_memory(model), row.cuts[len(row.cuts) // 2]
    outs = [model(**row.arguments(a, b), memory=memory) for a, b in ((0, cut), (cut, len(row.ids))) if a < b]
    close(torch.cat(outs, dim=1), wanted, tolerance=1e-10)


@pytest.mark.parametrize("kind", [True, "all"])
@torch.no_grad()
def test_the_scores_stay_near_those_of_the_model_as_stored(kind):
    ids = torch.randint(0, 256, (1, 200), generator=torch.Generator().manual_seed(0))
    oracle, model = tiny_model(), load_model(tiny_folder(), device="cpu", int8=kind)
    off = error(model(ids), oracle(ids))
    assert 1e-3 < off < TINY  # not nothing: it is another model


@pytest.mark.parametrize("kind", [True, "all"])
@torch.no_grad()
def test_fusing_changes_neither_the_scores_nor_the_names(kind):
    row = conversation_of_the_tiny_model()
    model = load_model(tiny_folder(), device="cpu", int8=kind)
    plain, names = model(**row), {name: x.clone() for name, x in model.state_dict().items()}
    model.fuse()
    close(model(**row), plain, tolerance=1e-5)
    fused = model.state_dict()
    assert fused.keys() == names.keys()
    assert all(torch.equal(fused[name], x) for name, x in names.items())


def conversation_of_the_tiny_model() -> dict:
    config = tiny_config()
    ids = torch.randint(0, 256, (1, 30), generator=torch.Generator().manual_seed(0))
    ids[0, 5:11] = config.image_token_id
    pixels = torch.randn(24, config.vision.patch_width, generator=torch.Generator().manual_seed(1))
    return {"ids": ids, "pixels": pixels, "grids": torch.tensor([[1, 4, 6]])}


def test_a_model_with_numbers_that_are_not_finite_is_refused_and_stays_as_it_was():
    model = tiny_model()
    model.get_parameter(DOWN).data[3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"layers\.3\.mlp\.down_proj has numbers that are not finite"):
        quantise(model)
    assert not is_quantised(model)
    model.get_parameter(DOWN).data = torch.full_like(model.get_parameter(DOWN).data, 1e300, dtype=torch.float64)
    with pytest.raises(ValueError, match="not finite"):  # in the float32 of a scale
        quantise(model)


def test_a_fused_model_is_refused():
    with pytest.raises(ValueError, match=r"part of a merged matrix; quantise\(model\) should come before model.fuse"):
        quantise(tiny_model().fuse())


def test_quantising_twice_changes_nothing():
    model = quantise(tiny_model())
    once = {name: x.clone() for name, x in model.state_dict().items()}
    again = quantise(model).state_dict()
    assert again.keys() == once.keys()
    assert all(torch.equal(again[name], x) for name, x in once.items())


# loading and saving --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [True, "all"])
@pytest.mark.parametrize(
    "source",
    [{}, {"layout": "old", "shards": 3}, {"dtype": torch.bfloat16}, {"tie_word_embeddings": False}],
    ids=str,
)
def test_loading_quantises_as_quantise_does(kind, source):
    folder = tiny_folder(**source)
    loaded = load_model(folder, device="cpu", int8=kind)
    model = quantise(load_model(folder, device="cpu"), vision=kind == "all")
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], x) and ours[name].dtype == x.dtype for name, x in theirs.items())
    assert (loaded.dtype, loaded.training) == (model.dtype, False)
    assert loaded.model.language_model.embed_tokens.dtype == model.dtype
    assert not any(x.is_meta or x.requires_grad for x in (*loaded.parameters(), *loaded.buffers()))


def test_loading_in_another_dtype_rounds_the_stored_numbers_once():
    stored, wide = load_model(tiny_folder(), device="cpu", int8=True), tiny_folder()
    narrow = load_model(wide, device="cpu", int8=True, dtype=torch.bfloat16)
    name = DOWN.replace(".weight", ".scale")
    assert torch.equal(narrow.get_buffer(name), stored.get_buffer(name))
    assert torch.equal(narrow.get_buffer(DOWN), stored.get_buffer(DOWN))
    assert narrow.dtype == narrow.model.language_model.embed_tokens.dtype == torch.bfloat16
    assert narrow(torch.tensor([[1, 2]])).dtype == torch.bfloat16


def larger_folder():
    """One whose matrices are most of it, the largest of 12.6 MB."""
    changes = {"hidden_size": 512, "intermediate_size": 12288, "layer_types": tiny_config().layer_types[:2]}
    changes["vision"] = replace(tiny_config().vision, out_hidden_size=512)
    return tiny_folder(dtype=torch.bfloat16, shards=8, **changes)


def test_loading_holds_the_int8_model_and_less_than_a_matrix_more():
    """Of several files, since looking at one counts as holding it."""
    folder = larger_folder()
    weights, stored = (nbytes(load_model(folder, device="cpu", int8=kind)) for kind in (True, False))
    largest = 12288 * 512 * torch.bfloat16.itemsize
    assert weights < 0.6 * stored
    assert peak_bytes(lambda: load_model(folder, device="cpu", int8=True)) < weights + largest < stored


def test_quantising_in_place_lets_go_of_each_matrix_in_turn():
    stored = nbytes(load_model(larger_folder(), device="cpu"))
    one_and_its_rounding = 12288 * 512 + 2.2 * 4 * int8.ROUNDED_AT_ONCE
    peak = peak_bytes(lambda: quantise(load_model(larger_folder(), device="cpu")))
    assert stored < peak < stored + one_and_its_rounding  # loading int8 never held what was stored


@pytest.mark.gpu
def test_a_gpu_never_holds_more_than_the_int8_model_and_a_matrix():
    vision = replace(tiny_config().vision, out_hidden_size=1024)
    folder = tiny_folder(dtype=torch.bfloat16, hidden_size=1024, intermediate_size=8192, vision=vision)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = load_model(folder, device="cuda", int8=True)
    most = nbytes(model) + 8192 * 1024 * 2 + (1 << 20)
    assert torch.cuda.max_memory_allocated() - before < most


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_checkpoint_that_is_not_finite_is_refused_by_the_tensors_name(bad, tmp_path):
    folder = shutil.copytree(tiny_folder(), tmp_path / "copy")
    tensors = load_file(folder / SINGLE)
    tensors[DOWN][2, 2] = bad
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"not finite \(NaN or infinite\) \(1\): {DOWN}"):
        load_model(folder, device="cpu", int8=True)


def test_numbers_too_large_for_a_scale_are_refused(tmp_path):
    folder = shutil.copytree(tiny_folder(dtype=torch.float64), tmp_path / "copy")
    tensors = load_file(folder / SINGLE)
    tensors[DOWN][2, 2] = 1e300
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    load_model(folder, device="cpu")
    with pytest.raises(ValueError, match=rf"not finite .*{DOWN}"):
        load_model(folder, device="cpu", int8=True)


@pytest.mark.parametrize("fused", [False, True])
def test_a_quantised_model_is_not_saved_and_nothing_is_written(tmp_path, fused):
    model = load_model(tiny_folder(), device="cpu", int8=True)
    with pytest.raises(ValueError, match="int8 matrices, which no released checkpoint holds; load it without int8"):
        save_model(model.fuse() if fused else model, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_what_int8_may_be_is_said():
    with pytest.raises(ValueError, match=r"int8 is 'half'; it should be True, False or"):
        load_model(tiny_folder(), device="cpu", int8="half")
    model, _ = load(tiny_folder(), device="cpu", int8="all")
    assert is_quantised(model.model.visual)


def test_a_device_that_is_too_small_is_told_what_int8_would_take(monkeypatch):
    def too_small(tensors):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(safetensors_reading, "one_by_one", too_small)
    with pytest.raises(
        ValueError, match=r"has 0\.08 GB of weights, more than cpu has free; in int8 they would be 0\.04 GB"
    ):
        load_model(larger_folder(), device="cpu")
    with pytest.raises(ValueError, match=r"has 0\.04 GB of weights, more than cpu has free$"):
        load_model(larger_folder(), device="cpu", int8=True)


# commands ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(monkeypatch):
    """The models that commands have loaded."""
    models = []

    def spy(*args, **options):
        models.append(load_model(*args, **options))
        return models[-1]

    for module in ("options", "verify"):
        monkeypatch.setattr(f"minivl.commands.{module}.load_model", spy)
    return models


COMMANDS = {
    "chat": ["--max-new-tokens", "4", "What is it?"],
    "stream": ["--synthetic", "2", "--size", "56", "--ask", "end:What was it?", "--max-new-tokens", "4"],
    "verify": ["--tokens", "144"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("words", "decoder", "tower"), [([], False, False), (["--int8"], True, False), (["--int8-all"], True, True)]
)
def test_a_command_works_with_the_matrices_that_were_asked_for(capsys, loaded, command, words, decoder, tower):
    assert cli.main([command, "--model", str(tiny_folder()), "--device", "cpu", *words, *COMMANDS[command]]) == 0
    out, err = capsys.readouterr()
    assert out, err
    (model,) = loaded
    assert (is_quantised(model.model.language_model), is_quantised(model.model.visual)) == (decoder, tower)
    if command == "verify":
        assert ("float32, int8 matrices on cpu" in out) == decoder
        assert out.endswith("verdict: passed\n")


def test_eval_takes_no_answers_of_another_kind_of_matrices(capsys, tmp_path):
    data, out = tmp_path / "data.json", tmp_path / "out.jsonl"
    data.write_text(json.dumps([{"id": "a", "question": "What?", "answer": "b"}]))
    options = ["--model", str(tiny_folder()), "--device", "cpu", "--metric", "anls", "--max-new-tokens", "3"]
    words = ["eval", *options, "--data", str(data), "--out", str(out)]
    assert cli.main(words) == 0
    assert cli.main([*words, "--int8"]) == 1
    assert "under other conditions: int8" in capsys.readouterr().err


# the benchmark -------------------------------------------------------------------------------------------------------


def measured(*words: str) -> None:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    bench.run(parser.parse_args(["--model", str(tiny_folder(dtype=torch.bfloat16)), "--device", "cpu", *words]))


def test_the_benchmark_measures_each_form(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "ANSWER", 3)
    measured("--tokens", "140", "--float32", "--json", str(tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    rows = {row["what"]: row for row in found["rows"]}
    assert list(rows) == ["unquantised", "int8", "int8, tower too", "float32"]
    plain, matrices, everything, wide = rows.values()
    for row in (plain, wide):
        assert (row["error"], row["same_best"], row["kl_mean"], row["kl_largest"]) == (0, 1, 0, 0)
    for row in (matrices, everything):
        assert 1e-3 < row["error"] < TINY
        assert 0.5 < row["same_best"] <= 1
        assert 0 < row["kl_mean"] < row["kl_largest"] < 1
    assert plain["weights_gb"] > matrices["weights_gb"] > everything["weights_gb"] > 0
    assert all(min(row["load_seconds"], row["prompt_ms"], row["token_ms"]) > 0 for row in rows.values())
    assert all(row["peak_gb"] is None and row["load_peak_gb"] is None for row in rows.values())
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines[1:]}) == 1
    assert len(lines) == 2 + len(rows)


def test_the_benchmarks_figures_are_what_it_says_they_are():
    p, q = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1]], dtype=torch.float64)
    oracle = p.log().expand(100, 3)
    scores = torch.cat([oracle[:75] + 3.0, q.log().expand(25, 3)])  # what is added to all scores changes no word
    found = bench.difference(scores, oracle, torch.device("cpu"))
    assert found["same_best"] == 0.75
    assert found["kl_largest"] == pytest.approx((p * (p / q).log()).sum().item())
    assert found["kl_mean"] == pytest.approx(found["kl_largest"] / 4)
    assert found["error"] == pytest.approx(((scores - oracle).norm() / oracle.norm()).item())
