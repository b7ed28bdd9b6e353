"""What a stream remembers: of constant size, its own, and the same after a save."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.config import MIXERS
from minivl.memory import Memory

from . import layer_claims
from .layer_claims import LayerCase, absorb, real, same
from .models import PATTERNS, error, new_memory, small_block, tokens

every_pattern = pytest.mark.parametrize("pattern", PATTERNS)


@every_pattern
def test_bytes_and_addresses_never_change(pattern):
    """Also what a captured step needs: every tensor stays where it is."""
    block = small_block(pattern)
    memory = new_memory(block, 2)
    size, places = memory.nbytes, [x.data_ptr() for x in memory.tensors().values()]
    assert size == sum(x.untyped_storage().nbytes() for x in memory.tensors().values())
    for T in (1, 3, 50, 0, 200):
        absorb(block, memory, T)
        assert memory.nbytes == size
        assert [x.data_ptr() for x in memory.tensors().values()] == places


def test_a_long_stream_stays_exact_and_constant():
    """Many times round the ring; at the end the window answers as if only the last tokens had ever been."""
    block = small_block("window only", window=6).float()
    memory = new_memory(block, longest_write=64)
    size = memory.nbytes
    x = tokens(1, 20_000, dtype=torch.float32)
    with torch.no_grad():
        out = block(x, memory=memory)[:, -1:]
        near = block(x[:, -40:], positions=torch.arange(20_000 - 40, 20_000).expand(3, 1, -1))[:, -1:]
    assert memory.nbytes == size
    assert memory.tokens_seen == memory.next_position.item() == 20_000
    assert error(out, near) < 1e-5


@every_pattern
@given(T=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_clone_never_touches_its_source(pattern, T, seed):
    layer_claims.a_clone_never_touches_its_source(real, LayerCase(pattern, T=T, seed=seed))


@every_pattern
@given(T=st.integers(0, 20), seed=st.integers(0, 99))
def test_saved_and_resumed_equals_uninterrupted(pattern, T, seed):
    layer_claims.saved_and_resumed_equals_uninterrupted(real, LayerCase(pattern, T=T, seed=seed))


def test_bfloat16_memories_are_saved_bit_for_bit(tmp_path):
    block = small_block().bfloat16()
    memory = new_memory(block)
    absorb(block, memory, 13)
    memory.save(tmp_path / "m")
    assert same(memory, Memory.resume(tmp_path / "m", block))


def test_next_position_follows_explicit_positions_and_continues_from_them():
    block, memory = small_block(), new_memory(small_block())
    assert memory.tokens_seen == 0
    assert memory.next_position.tolist() == [0]
    positions = torch.tensor([[3, 3, 3], [3, 4, 9], [3, 4, 5]])[:, None]
    with torch.no_grad():
        block(tokens(1, 3), memory=memory, positions=positions)
        assert memory.next_position.tolist() == [10]
        continued, explicit = memory.clone(), memory
        x = tokens(1, 4, seed=1)
        later = torch.arange(10, 14).expand(3, 1, 4)
        assert torch.equal(block(x, memory=continued), block(x, memory=explicit, positions=later))
    assert memory.next_position.tolist() == [14]
    assert memory.tokens_seen == 7


def test_two_streams_on_one_model_do_not_meet():
    block = small_block()
    first, second, alone = (new_memory(block) for _ in range(3))
    for turn in range(4):
        absorb(block, first, 3, seed=turn)
        absorb(block, second, 5, seed=100 + turn)
        absorb(block, alone, 3, seed=turn)
    assert same(first, alone)


def test_memory_carries_no_gradient():
    block, memory = small_block(), new_memory(small_block())
    for seed in range(2):  # a second backward pass would fail if the first one's graph were still held
        block(tokens(1, 4, seed), memory=memory).square().sum().backward()
    assert not any(x.requires_grad for x in memory.tensors().values())


def test_gradients_of_one_call_with_an_empty_memory_are_those_without():
    block, x = small_block(), tokens(1, 5)
    grads = []
    for memory in (None, new_memory(block)):
        y = x.clone().requires_grad_()
        block(y, memory=memory).square().sum().backward()
        grads.append(y.grad)
    assert error(grads[1], grads[0]) < 1e-10


def test_full_attention_refuses_what_it_has_no_room_for():
    block = small_block("teacher")
    with pytest.raises(ValueError, match="room is missing; full attention keeps every token"):
        block.new_memory()
    memory = block.new_memory(room=10)
    absorb(block, memory, 8)
    before = memory.clone()
    with pytest.raises(ValueError, match="room for 10 tokens under full attention, and 8 are taken; 3 more"):
        absorb(block, memory, 3)
    assert same(memory, before)
    absorb(block, memory, 2)


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"longest_write": 0}, {"longest_write": 2.5}])
def test_wrong_sizes_of_a_memory_are_named(arguments):
    (name,) = arguments
    with pytest.raises((ValueError, TypeError), match=f"{name} is .*; it should be "):
        small_block().new_memory(**arguments)


@pytest.fixture
def saved(tmp_path):
    block = small_block()
    memory = new_memory(block)
    absorb(block, memory, 13)
    memory.save(tmp_path / "stream.safetensors")
    return tmp_path / "stream.safetensors"


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_noticed(tmp_path_factory, place, bit):
    block = small_block()
    path = tmp_path_factory.mktemp("memory") / "stream"
    memory = new_memory(block)
    absorb(block, memory, 13)
    memory.save(path)
    content = bytearray(path.read_bytes())
    # half of the flips fall into the first 2,000 bytes, where the header is
    at = int(2 * place * 2000) if place < 0.5 else int((2 * place - 1) * len(content))
    content[at] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged|has the format"):
        Memory.resume(path, block)


@pytest.mark.parametrize("keep", [0, 7, 100, 2000, -1])
def test_a_truncated_file_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged"):
        Memory.resume(saved, small_block())


def test_other_files_and_missing_ones_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file; it should be a saved memory"):
        Memory.resume(tmp_path / "none", small_block())
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        new_memory(small_block()).save(tmp_path / "no" / "such" / "folder")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="damaged, or is not a saved memory"):
        Memory.resume(tmp_path / "text", small_block())
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, tmp_path / "weights")
    with pytest.raises(ValueError, match="has the format None; it should be 'minivl-memory-1'"):
        Memory.resume(tmp_path / "weights", small_block())


@pytest.mark.parametrize("mixer", [mixer for mixer in MIXERS if mixer != "gated_delta"])
def test_a_memory_of_another_configuration_is_refused(saved, mixer):
    with pytest.raises(ValueError, match=f"another configuration: mixer is gated_delta there and {mixer} here"):
        Memory.resume(saved, small_block(mixer=mixer))
    with pytest.raises(ValueError, match="sliding_window is 6 there and 7 here"):
        Memory.resume(saved, small_block(window=7))
    with pytest.raises(ValueError, match=r"has layers.0.keys in torch.float64; the model needs it in torch.float32"):
        Memory.resume(saved, small_block().float())


def test_a_save_that_fails_leaves_the_old_file_and_no_draft(saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(*_):
        raise OSError("no space left on device")

    memory = new_memory(small_block())
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="no space left"):
            memory.save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
