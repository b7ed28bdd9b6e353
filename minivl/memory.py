"""All that a stream remembers, in constant size: one ring or one state per layer, and two counters.

A window layer remembers its last keys and values in a ring; a linear layer remembers a K×V matrix per head and the
last inputs of its three convolutions, all in float32. Nothing here grows, and nothing moves: every tensor keeps its
address for the life of the memory, and the counters live on the device, so that a step captured once in a CUDA graph
stays valid for ever. A memory carries no gradient.

    code            shape            dtype                   what
    state           [B, H, K, V]     float32 or float64      a linear layer's matrix
    q_tail …        [B, taps − 1, D] float32 or float64      the last inputs of its convolutions
    seen            [B]              int64                   real tokens seen by each row
    next_position   [B]              int64                   the position that the next text token gets
"""

import copy
import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .config import DecoderConfig
from .ops import checks
from .ops.sliding_window import Ring

FORMAT = "minivl-memory-1"


class LinearState:
    """What a linear layer remembers: the state of its rule, and its convolutions' tails."""

    def __init__(self, batch: int, config: DecoderConfig, *, dtype: torch.dtype, device=None):
        H, K, V = config.num_linear_heads, config.linear_head_dim, config.linear_value_dim
        kept = config.conv_size - 1
        options = {"dtype": checks.state_dtype(dtype), "device": device}
        self.state = torch.zeros(batch, H, K, V, **options)
        self.q_tail = torch.zeros(batch, kept, H * K, **options)
        self.k_tail = torch.zeros(batch, kept, H * K, **options)
        self.v_tail = torch.zeros(batch, kept, H * V, **options)
        self.arrivals = torch.zeros(batch, H, dtype=torch.int32, device=device)  # a kernel's count; zero between calls

    def tensors(self) -> dict[str, Tensor]:
        return {"state": self.state, "q_tail": self.q_tail, "k_tail": self.k_tail, "v_tail": self.v_tail}

    def start(self) -> Tensor:
        """The state to start a call from: a copy while gradients are on, since the backward pass will read it."""
        return self.state.clone() if torch.is_grad_enabled() else self.state

    @torch.no_grad()
    def store(self, state: Tensor, q_tail: Tensor, k_tail: Tensor, v_tail: Tensor) -> None:
        """Take over what a call leaves, in place."""
        self.state.copy_(state)
        self.q_tail.copy_(q_tail)
        self.k_tail.copy_(k_tail)
        self.v_tail.copy_(v_tail)


class Memory:
    """One memory per layer of `config.layer_types`, for a batch of streams.

    `longest_write` is how many tokens one write may hold; longer calls are split into pieces of it. It costs that many
    more slots in each ring. `room` is needed with full attention only, which has no constant memory: how many tokens it
    shall hold before it refuses more.
    """

    def __init__(
        self,
        config: DecoderConfig,
        batch_size: int = 1,
        *,
        longest_write: int | None = None,
        room: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ):
        checks.positive("batch_size", batch_size)
        if longest_write is None:
            longest_write = min(max(config.sliding_window, 64), 4096)
        checks.positive("longest_write", longest_write)
        if "full_attention" in config.layer_types:
            if room is None:
                raise ValueError(
                    "room is missing; full attention keeps every token, so it needs the number of tokens to hold"
                )
            checks.positive("room", room)
        else:
            room = None
        self.config, self.longest_write, self.room = config, longest_write, room
        self.notes: dict = {}  # what its owner wants saved with it, in what JSON can say
        self._taken = 0  # tokens of all calls, padding included: known without asking the device

        def ring(window: int) -> Ring:
            slots = window - 1 + longest_write
            heads, width = config.num_key_value_heads, config.head_dim
            return Ring(batch_size, slots, heads, width, window=window, dtype=dtype, device=device)

        make = {
            "sliding_attention": lambda: ring(config.sliding_window),
            "full_attention": lambda: ring(room),
            "linear_attention": lambda: LinearState(batch_size, config, dtype=dtype, device=device),
        }
        self.layers = [make[layer_type]() for layer_type in config.layer_types]
        self.seen = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self.next_position = torch.zeros(batch_size, dtype=torch.int64, device=device)

    @property
    def tokens_seen(self) -> int:
        """Real tokens seen by the row that saw most; `seen` has each row's. Reading it waits for the device."""
        return int(self.seen.max())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: the same for ever."""
        return sum(x.numel() * x.element_size() for x in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the memory, by name."""
        layers = {f"layers.{i}.{name}": x for i, layer in enumerate(self.layers) for name, x in layer.tensors().items()}
        return {"seen": self.seen, "next_position": self.next_position, **layers}

    def clone(self) -> "Memory":
        """A memory of its own with the same content: what happens to one never touches the other."""
        return copy.deepcopy(self)

    def admit(self, config: DecoderConfig, batch: int, T: int) -> None:
        """Refuse a call of T tokens that this memory doesn't fit, before anything is written."""
        if config != self.config:
            told = _differences(dataclasses.asdict(self.config), dataclasses.asdict(config))
            raise ValueError(f"memory belongs to another configuration: {told}")
        if batch != len(self.seen):
            raise ValueError(f"memory is for a batch of {len(self.seen)}; it should be for {batch}, the batch of x")
        if self.room is not None and self._taken + T > self.room:
            raise ValueError(
                f"memory has room for {self.room} tokens under full attention, and {self._taken} are taken; "
                f"{T} more do not fit"
            )

    def take(self, T: int) -> None:
        """Count T tokens against the room. On the host: a replayed CUDA graph leaves this to whoever replays it."""
        self._taken += T

    def advance(self, positions: Tensor, mask: Tensor | None) -> None:
        """Count the tokens of one call: positions [3, B, T], and which of them are real."""
        if positions.shape[-1] == 0:
            return
        self.take(positions.shape[-1])
        if mask is None:
            self.next_position.copy_(positions.amax((0, 2)) + 1)
            self.seen += positions.shape[-1]
            return
        largest = positions.amax(0).masked_fill(~mask, -1).amax(1)
        self.next_position.copy_(torch.where(mask.any(1), largest + 1, self.next_position))
        self.seen += mask.sum(1)

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file with a checksum, atomically: after a crash the old file is there, or the new one."""
        tensors = {name: x.detach().cpu().contiguous() for name, x in self.tensors().items()}
        about = {
            "format": FORMAT,
            "config": json.dumps(dataclasses.asdict(self.config)),
            "batch_size": str(len(self.seen)),
            "longest_write": str(self.longest_write),
            "room": str(self.room or 0),
            "taken": str(self._taken),
            "notes": json.dumps(self.notes),
        }
        content = save(tensors, {**about, "checksum": _checksum(tensors, about)})
        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; a memory is saved into a file")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path.parent} is not a folder; a memory can't be saved into it")
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".draft")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    @classmethod
    def resume(cls, path: str | os.PathLike, model) -> "Memory":
        """Read a saved memory for `model` (anything with `config` and `new_memory`), onto its device."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is not a file; it should be a saved memory")
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged, or is not a saved memory: {error}") from None
        if about.get("format") != FORMAT:
            raise ValueError(f"{path} has the format {about.get('format')!r}; it should be {FORMAT!r}")
        checksum = about.pop("checksum", None)
        if checksum != _checksum(tensors, about):
            raise ValueError(f"{path} is damaged: its content does not match its checksum")
        saved = json.loads(about["config"])
        own = json.loads(json.dumps(dataclasses.asdict(model.config)))
        if saved != own:
            raise ValueError(f"{path} was saved by another configuration: {_differences(saved, own)}")
        memory = model.new_memory(
            int(about["batch_size"]), longest_write=int(about["longest_write"]), room=int(about["room"]) or None
        )
        for name, x in memory.tensors().items():
            if tensors[name].dtype != x.dtype:
                raise ValueError(f"{path} has {name} in {tensors[name].dtype}; the model needs it in {x.dtype}")
            x.copy_(tensors[name])
        memory.notes = json.loads(about.get("notes", "{}"))
        memory._taken = int(about["taken"])
        return memory


def _checksum(tensors: dict[str, Tensor], about: dict[str, str]) -> str:
    """SHA-256 over what the file says about itself and over every tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"{name} {x.dtype} {list(x.shape)}".encode())
        digest.update(x.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _differences(there: dict, here: dict) -> str:
    """What differs between two configurations, for an error's sentence."""
    names = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    return "; ".join(f"{name} is {there.get(name)} there and {here.get(name)} here" for name in names)
