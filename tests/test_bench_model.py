"""`bench model` on a CPU with a tiny model: what is timed is what ships, and what is printed is what was measured."""

import copy
import itertools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl import __main__ as cli
from minivl.bench import model, model_plot, model_report, model_rows, model_sustained, model_transformer, page
from minivl.bench.model_meter import Meter
from minivl.generate import prefill
from minivl.ops.gated_delta_rule import gated_delta_rule
from minivl.ops.sliding_window import banded
from minivl.stream import Stream

from .fakes import tiny_folder
from .tolerances import close

DOCS = Path(__file__).resolve().parents[1] / "docs"
METER = Meter("cpu")
BEGIN, END = page.marks("model")
QUICK = ("--quick", "--frames", "6", "--contexts", "40,120", "--transformer", "40,120")
MODEL, PROCESSOR = model.model_and_processor(None, METER)
MODEL.fuse()


def small(patch: pytest.MonkeyPatch) -> None:
    """Small frames, small pictures, few tokens, few repeats."""
    patch.setattr(model, "SIZE", 56)
    patch.setattr(model_rows, "REPEATS", 5)
    for name in ("QUICK", "CHECK"):
        patch.setattr(model, name, model.Scale(frames=6, tokens=3, contexts=(40,), transformer=(40,)))
    for name, number in {"HEIGHT": 90, "WIDTH": 160, "EVERY": 2}.items():
        patch.setattr(model_sustained, name, number)


@pytest.fixture(autouse=True)
def _small_and_without_gradients(monkeypatch):
    small(monkeypatch)
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One run of the command: what it printed, and its files."""
    folder, said = tmp_path_factory.mktemp("bench"), []
    (folder / "page.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr("builtins.print", lambda *words, **options: said.append((words, options)))
        files = ("--json", folder / "m.json", "--plot", folder / "m.png", "--page", folder / "page.md")
        assert cli.main(["bench", "model", *QUICK, *map(str, files)]) == 0
    out = "\n".join(words[0] for words, options in said if not options.get("file"))
    return out, json.loads((folder / "m.json").read_text()), folder


def test_everything_is_measured(made):
    _, found, _ = made
    assert found["scale"] == {"frames": 6, "tokens": 3, "contexts": [40, 120], "transformer": [40, 120]}
    assert [row["context"] for row in found["readings"]] == [40, 120]
    assert [row["context"] for row in found["transformer"]] == [40, 120]
    assert [row["rule"] for row in found["rules"]] == ["naive recurrence", "chunked, PyTorch"]
    assert found["sustained"]["tokens"] == 1 + 6 * 4
    times = [found[name] for name in ("frame_ms", "tower_ms", "answer_ms")]
    times += [row[name] for row in found["readings"] for name in ("prompt_ms", "token_ms", "decoder_frame_ms")]
    times += [row[name] for row in found["transformer"] for name in ("token_ms", "decoder_frame_ms")]
    times += [
        moment[name] for moment in found["sustained"]["moments"].values() for name in ("token_ms", "frame_alone_ms")
    ]
    times += [found["sustained"]["frames_a_second"], found["int8"]["token_ms"]]
    assert min(times) > 0
    assert found["tower_ms"] < found["frame_ms"]


def test_what_is_printed_is_what_is_written(made):
    out, found, folder = made
    assert out == model_report.report(found)
    for row in found["readings"]:
        assert f"{row['context']:,}" in out
    assert model_plot.digest(found).encode() in (folder / "m.png").read_bytes()
    text = (folder / "page.md").read_text()
    assert text.startswith(f"before\n{BEGIN}\n```text\n{out}\n```\n{END}\nafter")
    assert "old" not in text


def test_a_page_filled_twice_is_the_page_filled_once(made):
    _, found, folder = made
    text = (folder / "page.md").read_text()
    assert page.with_figures(text, "model", model_report.report(found)) == text


def test_memory_is_looked_at_and_constant(made):
    looks = made[1]["sustained"]["memory"]
    assert [look["frame"] for look in looks] == [2, 4, 6]
    assert len({look["memory_bytes"] for look in looks}) == 1
    assert "constant to the byte" in made[0]


def test_a_memory_that_grows_is_found_and_said(made, monkeypatch):
    stream, sizes = Stream(MODEL, PROCESSOR, size=56), itertools.count(1000)
    monkeypatch.setattr(type(stream.memory), "nbytes", property(lambda _: next(sizes)))
    sustained = model_sustained.measure(stream, 10, METER, tokens=2)
    assert not sustained["memory_constant"]
    assert "NOT constant" in model_report.report({**made[1], "sustained": sustained})


def test_the_frame_that_is_timed_is_the_stream_s_own():
    """Bit for bit what watching does to the memory; and on a copy: the stream stays as it was."""
    frame = torch.randint(0, 256, (56, 56, 3), dtype=torch.uint8)
    watched, stream = (Stream(MODEL, PROCESSOR, size=56) for _ in range(2))
    watched.watch(frame)
    timed = model_rows.frame_step(stream)
    timed.pixels.copy_(frame)
    timed.step()
    for name, x in watched.memory.tensors().items():
        assert torch.equal(timed.step.memory.tensors()[name], x), name
    assert stream.memory.tokens_seen == 1


@given(count=st.integers(1, 6), T=st.integers(1, 150))
def test_tokens_are_fed_back_one_by_one(count, T):
    """As many as were asked for after the ten of the warm-up, each the likeliest after all before it."""
    with torch.no_grad():
        memory = MODEL.new_memory()
        prefill(MODEL, model_rows.words(MODEL, T), memory)
        plain = memory.clone()
        assert len(model_rows.token_times(MODEL, memory, METER, count)) == count
        token = torch.zeros(1, 1, dtype=torch.int64)
        for _ in range(10 + count):
            token = MODEL(token, memory=plain, last_only=True).argmax(-1)
        assert all(torch.equal(memory.tensors()[name], x) for name, x in plain.tensors().items())


def test_each_form_of_the_rule_really_runs_and_gives_the_same_memory():
    memories = {}
    for backend in ("recurrent", "chunked"):
        torch.manual_seed(0)
        step = model_rows.frame_step(Stream(MODEL, PROCESSOR, size=56)).step
        with model_rows.rule(backend):
            step.run(step.memory)
            assert gated_delta_rule.last_backend == backend
        memories[backend] = step.memory.tensors()
    for name, x in memories["recurrent"].items():
        close(memories["chunked"][name].double(), x.double(), tolerance=1e-4, what=name)
    with pytest.raises(RuntimeError, match="were to run recurrent"), model_rows.rule("recurrent"):
        pass  # no layer ran


@given(context=st.integers(1, 200), T=st.sampled_from([1, 5, 256]))
def test_a_past_that_is_written_is_as_good_as_one_that_was_read(context, T):
    """With the keys and values of a real past in it, the transformer goes on as after that past; and again."""
    with torch.no_grad():
        transformer = model_rows.random_model(
            model_transformer.transformer_of(MODEL.config), device="cpu", dtype=torch.float64
        )
        read = transformer.new_memory(room=context + T)
        prefill(transformer, model_rows.words(transformer, context), read)
        made = model_transformer.past(transformer, context)
        for ring, real in zip(made.layers, read.layers, strict=True):
            ring.keys[:, :context], ring.values[:, :context] = real.keys[:, :context], real.values[:, :context]
        ids = torch.randint(0, 600, (1, T))
        expected = transformer(ids, memory=read)
        for _ in range(2):
            close(transformer(ids, memory=made), expected, tolerance=1e-10)
            model_transformer.rewind(made, context)


@pytest.mark.filterwarnings("ignore")  # on a CPU PyTorch may say which of its kernels it doesn't take
@pytest.mark.parametrize("T", [1, 7])
def test_pytorchs_flash_attention_is_the_window_kernel_s_peer(T):
    context, room = 20, 40
    q, keys, values = torch.randn(1, T, 4, 16), torch.randn(1, room, 2, 16), torch.randn(1, room, 2, 16)
    number = context + torch.arange(T)[None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_transformer, "SDPBackend", type("Any", (), {"FLASH_ATTENTION": list(ANY)}))
        found = model_transformer.flash(q, keys, values, number, window=room, context=context)
    stored = context + T
    whole = torch.cat([torch.zeros(1, context, 4, 16), q], dim=1)
    close(found, banded(whole, keys[:, :stored], values[:, :stored], window=stored)[:, context:], tolerance=1e-5)


ANY = (torch.nn.attention.SDPBackend.MATH, torch.nn.attention.SDPBackend.FLASH_ATTENTION)


def test_the_transformers_bytes_a_token_are_what_its_memory_grows_by():
    config = model_transformer.transformer_of(MODEL.config)
    transformer = model_rows.random_model(config, device="cpu", dtype=torch.float32)
    small, large = (transformer.new_memory(longest_write=4, room=room).nbytes for room in (10, 25))
    assert large - small == 15 * model_transformer.bytes_a_token(config, torch.float32)


def test_what_does_not_fit_is_said_and_not_tried(made):
    rows = model_transformer.measure(MODEL.config, [40, 10**9], METER, dtype=torch.float32, cap=2 * 10**9)
    assert [row["fits"] for row in rows] == [True, False]
    out = model_report.report({**made[1], "transformer": rows})
    line = next(line for line in out.splitlines() if line.startswith("1,000,000,000"))
    assert "does not" in line


@given(frames=st.integers(60, 300), frame=st.integers(26, 300), gap=st.integers(1, 300))
def test_a_frame_s_time_is_the_median_around_it(frames, frame, gap):
    """Of times that count up, the median around a frame is its own. One that is not known is left out."""
    frame = min(frame, frames - model_sustained.AROUND)
    times = [float(number) for number in range(1, frames + 1)]
    assert model_sustained.around(times, frame) == frame
    times[gap % frames] = None
    assert abs(model_sustained.around(times, frame) - frame) <= 0.5
    assert model_sustained.around(times, frames) == pytest.approx(frames - model_sustained.AROUND / 2, abs=0.5)


@given(frames=st.integers(4, 450))
def test_the_curve_goes_from_the_first_frame_to_the_last(frames):
    points = model_sustained.curve([float(number) for number in range(1, frames + 1)])
    assert all(point["ms"] == point["frame"] for point in points)
    assert len(points) <= 200
    assert points[0]["frame"] <= 3
    assert points[-1]["frame"] >= frames - 3


def test_slower_frames_late_in_the_stream_are_found(monkeypatch):
    """Frames that take a tick each, and from the pause on two: a clock that this test winds."""
    clock = itertools.accumulate(itertools.chain(itertools.repeat(1e-3, 28), itertools.repeat(2e-3)))
    stream, meter = Stream(MODEL, PROCESSOR, size=56), Meter("cpu")
    monkeypatch.setattr(meter, "mark", lambda: next(clock))
    monkeypatch.setattr(model_sustained, "token_times", lambda *_: [1.0])
    monkeypatch.setattr(model_sustained, "frame_alone", lambda *_: 1.0)
    monkeypatch.setattr(model_sustained, "AROUND", 3)
    found = model_sustained.measure(stream, 40, meter, tokens=1)
    assert found["early_ms"] == pytest.approx(1)
    assert found["late_ms"] == pytest.approx(2)
    assert found["interval_late_against_early"] == pytest.approx(1)


@pytest.fixture
def released(made):
    """The tiny run's figures as if they were the released shapes' on a GPU."""
    found = copy.deepcopy(made[1])
    found |= {"released_shapes": True, "frame_ms": 8.0}
    found["sustained"]["moments"]["early"]["token_ms"] = 2.5
    return found


def test_released_shapes_stand_beside_bars_and_the_released_code(released):
    out = model_report.report(released)
    frame = next(line.split() for line in out.splitlines() if line.startswith("a frame: "))
    assert frame[-5:] == ["8.00", "9.00", "7.00", "23.20", "2.90"]
    assert f"{8 * 4.3:.0f} to {8 * 4.8:.0f} ms" in out
    assert f"a token {2.5 * 4.27:.1f} ms" in out


def test_other_shapes_stand_beside_nothing(made):
    assert "23.20" not in made[0]
    assert "can't be estimated" in made[0]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--json", "tests"], "tests is a folder"),
        (["--plot", "latency.txt"], ".png"),
        (["--page", "README.md"], "README.md has no place for figures"),
        (["--page", "nowhere.md"], "nowhere.md"),
        (["--cap-gb", "0"], "--cap-gb is 0"),
        (["--model", "nowhere"], "nowhere is not a folder"),
    ],
    ids=" ".join,
)
def test_a_fault_is_one_line_before_any_work(capsys, monkeypatch, words, named):
    monkeypatch.chdir(DOCS.parent)
    assert cli.main(["bench", "model", *words]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert named in err.splitlines()[-1]


@pytest.mark.parametrize("words", [["--frames", "3"], ["--contexts", "0"], ["--transformer", "x"]], ids=" ".join)
def test_numbers_that_make_no_sense_are_refused(capsys, words):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", "model", *words])
    assert words[0] in capsys.readouterr().err


def test_the_page_has_the_figures_of_the_run_in_docs():
    found = json.loads((DOCS / "streaming-speed.json").read_text(encoding="utf-8"))
    text = (DOCS / "streaming-speed.md").read_text(encoding="utf-8")
    assert page.with_figures(text, "model", model_report.report(found)) == text
    assert model_plot.digest(found).encode() in (DOCS / "streaming-speed.png").read_bytes()
    assert found["released_shapes"]
    assert found["sustained"]["tokens"] > 1_000_000


@pytest.mark.gpu
def test_on_a_gpu_with_kernels_and_graphs(tmp_path, capsys):
    folder = tiny_folder(dtype=torch.bfloat16)
    words = ["bench", "model", "--model", str(folder), *QUICK, "--json", str(tmp_path / "m.json")]
    assert cli.main(words) == 0
    found = json.loads((tmp_path / "m.json").read_text())
    assert [row["rule"] for row in found["rules"]][-2:] == ["kernels", "kernels"]
    assert found["sustained"]["memory_constant"]
    assert all(row["decoder_frame_attention"] for row in found["transformer"])
