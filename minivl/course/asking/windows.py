"""Attention over a window: the band, the ring, and a memory of rings."""

import gc
import tempfile
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor


def new_ring(find, k: Tensor, slots: int, window: int):
    B, _, heads, width = k.shape
    return find("ops.sliding_window.Ring")(B, slots, heads, width, window=window, dtype=k.dtype, device=k.device)


def window(find, tensors, *, function: str, window: int, slots: int = 0, pieces: list[int] = ()) -> dict[str, Tensor]:
    """Attention over a window: all at once (no slots), or through a ring, in pieces of these lengths."""
    q, k, v = (tensors[name] for name in "qkv")
    if not slots or function.endswith("banded"):
        return {"out": find(function)(q, k, v, window=window)}
    memory, out = new_ring(find, k, slots, window), []
    for piece in in_pieces(pieces):
        out.append(find(function)(q[:, piece], k[:, piece], v[:, piece], memory=memory))
    return {"out": torch.cat(out, 1)}


def held(find, tensors, *, function: str, window: int, slots: int, rounds: int) -> dict[str, Tensor]:
    """Bytes of all tensors in this process after the ring went round once, and after it went round so many times."""
    q, k, v = (tensors[name] for name in "qkv")
    memory, found = new_ring(find, k, slots, window), []
    for turn in range(rounds):
        for t in range(slots):
            find(function)(q[:, t : t + 1], k[:, t : t + 1], v[:, t : t + 1], memory=memory)
        if turn in (0, rounds - 1):
            found.append(alive())
    return {"bytes": torch.tensor(found)}


def refuses(find, tensors, *, function: str, window: int, slots: int) -> dict[str, Tensor]:
    """Whether writes of the longest length and of one more are taken (1) or refused with a ValueError (0)."""
    q, k, v = (tensors[name] for name in "qkv")
    taken = []
    for length in (slots - window + 1, slots - window + 2):
        try:
            find(function)(q[:, :length], k[:, :length], v[:, :length], memory=new_ring(find, k, slots, window))
            taken.append(1)
        except ValueError:
            taken.append(0)
    return {"taken": torch.tensor(taken)}


def writes(find, tensors, *, function: str, window: int, slots: int, pieces: list[int]) -> dict[str, Tensor]:
    """What lies in a ring after writes of these lengths."""
    k, v = tensors["k"], tensors["v"]
    memory, numbers = new_ring(find, k, slots, window), []
    for piece in in_pieces(pieces):
        numbers.append(memory.write(k[:, piece], v[:, piece])[0])
    held = {name: getattr(memory, name) for name in ("positions", "seen", "keys", "values")}
    return held | {"numbers": torch.cat(numbers, 1)}


def longest_writes(find, tensors, *, function: str, rings: list[list[int]]) -> dict[str, Tensor]:
    k = torch.zeros(1, 1, 1, 2)
    return {"longest_write": torch.tensor([new_ring(find, k, *ring).longest_write for ring in rings])}


def in_pieces(lengths: list[int]) -> list[slice]:
    edges = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    return [slice(*pair) for pair in pairwise(edges)]


def remembering(find, tensors, *, function: str, window: int, how: str) -> dict[str, Tensor]:
    """A memory of two window layers: read some tokens, clone it or save and resume it, and go on with both."""
    q, k, v = (tensors[name] for name in "qkv")
    sizes = {"num_attention_heads": q.shape[2], "num_key_value_heads": k.shape[2], "head_dim": q.shape[3]}
    sizes |= {"sliding_window": window, "mrope_section": (q.shape[3] // 2, 0, 0)}
    config = find("config.DecoderConfig")(layer_types=("sliding_attention",) * 2, **sizes)
    Memory = find("memory.Memory")

    class Model:
        def __init__(self):
            self.config = config

        def new_memory(self, batch_size=1, *, longest_write=None, room=None):
            return Memory(config, batch_size, longest_write=longest_write, room=room, dtype=k.dtype)

    def read(memory, piece: slice) -> Tensor:
        run = find("ops.sliding_window.ring")
        out = [run(q[:, piece], (i + 1) * k[:, piece], v[:, piece], memory=one) for i, one in enumerate(memory.layers)]
        places = torch.arange(q.shape[1])[piece] + 100
        memory.advance(places.expand(3, q.shape[0], -1), None)
        return torch.cat(out, 1)

    memory = Model().new_memory(q.shape[0], longest_write=4)
    first, second, third = (slice(start, start + 4) for start in (0, 4, 8))
    read(memory, first)
    if how == "clone":
        other = memory.clone()
        ahead = read(memory, second)
        behind = read(other, third)
        again = read(memory, third)
        return {"ahead": ahead, "behind": behind, "again": again, "next": memory.next_position}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "memory")
        memory.save(path)
        if how == "damaged":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            try:
                Memory.resume(path, Model())
            except ValueError:
                return {"refused": torch.tensor(1)}
            return {"refused": torch.tensor(0)}
        other = Memory.resume(path, Model())
    counters = {"seen": other.seen.clone(), "next": other.next_position.clone()}
    return {"resumed": read(other, second), "uninterrupted": read(memory, second), **counters}


def alive() -> int:
    """Bytes of all tensors in this process, however they are held."""
    gc.collect()
    held = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in gc.get_objects() if type(x) is Tensor}
    return sum(held.values())
