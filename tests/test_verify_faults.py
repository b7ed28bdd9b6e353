"""python -m minivl verify: every planted fault fails with a reason that names its place; what it can't see, passes."""

import shutil

import pytest
import torch

from minivl import __main__ as cli
from minivl.checkpoint import load_model
from minivl.model import InfiniteVL
from minivl.verify.gates import gates_of

from .fakes import tiny_folder, tiny_model
from .verifying import layer, rewritten, saved, verdict, verify


def silent_writes(model):
    """Every vector leans to one side, and layer 5's β takes that side for a reason to write nothing."""
    lean = torch.ones(64)
    model.model.language_model.embed_tokens.weight.add_(3 * lean)
    model.model.visual.merger.mlp[2].bias.add_(3 * lean)
    layer(model, 5).self_attn.b_proj.weight.normal_(std=0.01).sub_(lean)


def all_equal(model):
    for parameter in layer(model, 6).parameters():
        parameter.fill_(0.02)


def overflowing(model):
    layer(model, 2).post_attention_layernorm.weight.fill_(1e25)


def blind(model):
    """The tower's answer is its last bias, but for the eighth digit."""
    model.model.visual.merger.mlp[2].weight.mul_(1e-8)
    model.model.visual.merger.mlp[2].bias.normal_()


PLANTED = {
    "NaN": (
        lambda m: layer(m, 5).self_attn.q_proj.weight[3, 4].fill_(torch.nan),
        "layers.5.self_attn.q_proj.weight has numbers that are NaN or infinite",
    ),
    "infinity": (
        lambda m: m.model.visual.blocks[1].mlp.up_proj.bias[2].fill_(-torch.inf),
        "visual.blocks.1.mlp.up_proj.bias has numbers that are NaN or infinite",
    ),
    "a tensor of zeros": (
        lambda m: layer(m, 2).mlp.up_proj.weight.zero_(),
        "layers.2.mlp.up_proj.weight is zero everywhere; layer 2: the feed-forward adds nothing",
    ),
    "a mixer that adds nothing": (
        lambda m: layer(m, 4).self_attn.o_proj.weight.zero_(),
        "layer 4: the mixer adds nothing",
    ),
    "β is always 0": (silent_writes, "layer 5: 2 of 2 heads (0, 1): β never rises above 0.001"),
    "β is always ½": (
        lambda m: layer(m, 5).self_attn.b_proj.weight.zero_(),
        "layer 5: 2 of 2 heads (0, 1): a gate is the same at every token",
    ),
    "α does not depend on the input": (
        lambda m: layer(m, 3).self_attn.a_proj.weight.zero_(),
        "layer 3: 2 of 2 heads (0, 1): a gate is the same at every token",
    ),
    "one head's β does not depend on the input": (
        lambda m: layer(m, 3).self_attn.b_proj.weight[1].zero_(),
        "layer 3: 1 of 2 heads (1): a gate is the same at every token",
    ),
    "α is always 0": (
        lambda m: layer(m, 1).self_attn.A_log.fill_(12),
        "layer 1: 2 of 2 heads (0, 1): α never rises above 0.001: nothing is ever kept",
    ),
    "α is exactly 0": (
        lambda m: layer(m, 1).self_attn.A_log.fill_(100),
        "layer 1: 2 of 2 heads (0, 1): α never rises above 0.001: nothing is ever kept",
    ),
    "α is always 1": (
        lambda m: layer(m, 7).self_attn.A_log.fill_(-40),
        "layer 7: 2 of 2 heads (0, 1): α never leaves 1: nothing is ever forgotten",
    ),
    "half of the heads never forget": (
        lambda m: layer(m, 7).self_attn.dt_bias[1].fill_(-40),
        "layer 7: 1 of 2 heads (1): α never leaves 1: nothing is ever forgotten",
    ),
    "a norm of zero": (
        lambda m: layer(m, 3).input_layernorm.weight.zero_(),
        "layers.3.input_layernorm.weight is zero everywhere",
    ),
    "a read-out norm of zero": (
        lambda m: layer(m, 6).self_attn.o_norm.weight.zero_(),
        "layers.6.self_attn.o_norm.weight is zero everywhere; layer 6: the mixer adds nothing",
    ),
    "a layer of one number": (all_equal, "layers.6.mlp.gate_proj.weight is 0.02 everywhere"),
    "a convolution of zeros": (
        lambda m: layer(m, 1).self_attn.k_conv1d.weight.zero_(),
        "layers.1.self_attn.k_conv1d.weight is zero everywhere; layer 1: its state is zero after the whole prompt",
    ),
    "a matrix 1000 times too large": (
        lambda m: layer(m, 4).mlp.down_proj.weight.mul_(1000),
        "layers.4.mlp.down_proj.weight has size",
    ),
    "a norm 1000 times too large": (
        lambda m: layer(m, 4).post_attention_layernorm.weight.mul_(1000),
        "layer 4: the feed-forward adds",
    ),
    "overflow": (overflowing, "layer 2: the feed-forward's output is not finite in float32"),
    "an embedding of one row": (
        lambda m: m.model.language_model.embed_tokens.weight.copy_(torch.randn(64)),
        "embed_tokens.weight has the same numbers in every row",
    ),
    "an embedding of one number": (
        lambda m: m.model.language_model.embed_tokens.weight.fill_(0.5),
        "embed_tokens.weight is 0.5 everywhere",
    ),
    "a tower that doesn't look": (blind, "the vision tower is dead: another picture changes its answer by"),
    "a tower of zeros": (
        lambda m: m.model.visual.patch_embed.proj.weight.zero_(),
        "visual.patch_embed.proj.weight is zero everywhere; the vision tower is dead",
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_fails_and_is_named(capsys, tmp_path, fault):
    edit, reason = PLANTED[fault]
    code, out = verify(capsys, saved(edit, tmp_path))
    assert code == 1
    assert verdict(out).startswith("verdict: FAILED (")
    for part in reason.split("; "):
        assert part in verdict(out)
        assert any("FAILED" in line and part in line for line in out.splitlines()[:-1])


def test_what_overflows_in_bfloat16_is_named(capsys, tmp_path):
    """The released dtype: the layer's product is beyond 3e38."""
    code, out = verify(capsys, saved(overflowing, tmp_path), "--dtype", "bfloat16")
    assert code == 1
    assert "layer 2: the feed-forward's output is not finite in bfloat16" in verdict(out)


def test_a_fused_form_that_is_another_is_named(capsys, monkeypatch):
    """As it would be with a kernel that is wrong: what is loaded is right, and what chat runs is not."""
    right = InfiniteVL.fuse

    def wrong(model):
        layer(model, 6).mlp.up_proj.weight.mul_(1.1)
        return right(model)

    monkeypatch.setattr(InfiniteVL, "fuse", wrong)
    code, out = verify(capsys, tiny_folder())
    assert code == 1
    assert "fused and streamed = as loaded" in verdict(out)


def test_two_faults_are_both_told(capsys, tmp_path):
    def edit(model):
        PLANTED["α is always 0"][0](model)
        PLANTED["a norm of zero"][0](model)

    code, out = verify(capsys, saved(edit, tmp_path))
    assert code == 1
    for fault in ("α is always 0", "a norm of zero"):
        assert PLANTED[fault][1] in verdict(out)


def test_one_dead_head_of_many_is_a_note():
    """Of less than half the heads α and β may stay near their ends: that is told, and no fault."""
    log_decay, beta = -torch.rand(1, 50, 4), torch.rand(1, 50, 4)
    beta[..., 2] *= 1e-4
    facts, faults, notes = gates_of(log_decay=log_decay, beta=beta)
    assert not faults
    assert notes == ["1 of 4 heads (2): β never rises above 0.001: nothing is ever written"]
    assert facts["dead_heads"] == 1
    beta[..., 3] *= 1e-4
    assert gates_of(log_decay=log_decay, beta=beta)[1]


def transposed(tensors):
    name = "model.language_model.layers.1.mlp.gate_proj.weight"
    tensors[name] = tensors[name].T.contiguous()


def several(tensors):
    transposed(tensors)
    tensors.pop("model.language_model.layers.7.self_attn.A_log")
    tensors["model.language_model.layers.9.mlp.down_proj.weight"] = torch.ones(2, 2)
    tensors["model.visual.merger.ln_q.weight"] = torch.ones(32, dtype=torch.int32)
    tensors["model.language_model.norm.weight"][3] = torch.nan


def test_a_tensor_of_another_shape_is_named_and_nothing_runs(capsys, tmp_path):
    code, out = verify(capsys, rewritten(tmp_path, transposed))
    assert code == 1
    assert "layers.1.mlp.gate_proj.weight is [64, 128]; it should be [128, 64]" in verdict(out)
    assert "its layers were not run" in out


def test_every_fault_of_the_files_is_told_at_once(capsys, tmp_path):
    code, out = verify(capsys, rewritten(tmp_path, several))
    assert code == 1
    for what in (
        "wrong shape: model.language_model.layers.1.mlp.gate_proj.weight",
        "missing: model.language_model.layers.7.self_attn.A_log",
        "not part of the model: model.language_model.layers.9.mlp.down_proj.weight",
        "wrong dtype: model.visual.merger.ln_q.weight",
        "model.language_model.norm.weight has numbers that are NaN",
    ):
        assert any("FAILED" in line and what in line for line in out.splitlines()[:-1]), what
        assert what in verdict(out)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "not readable as JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 100), "cut off, damaged"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("[]"), "preprocessor_config.json"),
    ],
)
def test_a_damaged_folder_is_a_verdict_and_no_crash(capsys, tmp_path, spoil, reason):
    shutil.copytree(tiny_folder(), tmp_path, dirs_exist_ok=True)
    spoil(tmp_path)
    code, out = verify(capsys, tmp_path)
    assert code == 1
    assert reason in verdict(out)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "no/such/folder/here"], "no/such/folder/here is not a folder"),
        (["--tokens", "60"], "--tokens is 60; the pictures and the words around them need"),
        (["--tokens", "20000"], "--tokens is 20000; the longest prompt"),
        (["--text", "no/such.txt"], "no/such.txt"),
        (["--image", "no/such.png"], "no/such.png"),
        (["--device", "toaster"], "toaster"),
    ],
)
def test_a_fault_of_the_user_is_one_line(capsys, words, named):
    code = cli.main(["verify", "--model", str(tiny_folder()), *words])
    out, err = capsys.readouterr()
    assert code == 1
    assert not out or "--device" in words  # that is known when the model is loaded, after its files were read
    assert "verdict" not in out
    assert err.count("\n") == 1
    assert named in err


def exchanged(tensors):
    """Layers 5 and 6 in one another's place, and a square matrix transposed."""
    five, six = "model.language_model.layers.5.", "model.language_model.layers.6."
    for name in [name for name in tensors if name.startswith(five)]:
        other = six + name.removeprefix(five)
        tensors[name], tensors[other] = tensors[other], tensors[name]
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name].T.contiguous()


def test_what_it_cannot_see_passes_as_its_page_says(capsys, tmp_path):
    """Two layers of one kind exchanged, a square matrix transposed: all that is checked holds for any weights."""
    folder = rewritten(tmp_path, exchanged)
    assert not torch.equal(load_model(folder, device="cpu")(torch.arange(9)[None]), tiny_model()(torch.arange(9)[None]))
    code, out = verify(capsys, folder)
    assert code == 0, out
