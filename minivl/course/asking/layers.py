"""Convolution, layers with weights, and a checkpoint's names."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from .windows import in_pieces


def conv(find, tensors, *, function: str, pieces: list[int]) -> dict[str, Tensor]:
    """A convolution in calls of these lengths, each with the tail that the last one left."""
    x, weight, tail, out = tensors["x"], tensors["weight"], tensors.get("tail"), []
    for piece in in_pieces(pieces):
        given = {} if tail is None else {"tail": tail}
        y, tail = find(function)(x[:, piece], weight, **given)
        out.append(y)
    return {"out": torch.cat(out, 1), "tail": tail}


SMALL = {  # a decoder in which every size is another number
    "layer_types": ("sliding_attention", "linear_attention"),
    "hidden_size": 12, "intermediate_size": 20, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "sliding_window": 4, "rope_theta": 100.0, "mrope_section": (2, 1, 1), "num_linear_heads": 3, "linear_head_dim": 4,
}  # fmt: skip


def filled(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """All parameters drawn from a seed, large enough that nothing is nearly linear."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for _, x in sorted(module.named_parameters()):
        size = x.shape[-1] ** -0.5 if x.ndim > 1 else 0.3
        x.data = (x.ndim == 1) + size * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return module.requires_grad_(False)


def layer(find, tensors, *, function: str, part: str, pieces: list[int] = (), **arguments) -> dict[str, Tensor]:
    """A layer with weights, on x; in calls of these lengths with a memory, if there are any."""
    config = find("config.DecoderConfig")(**SMALL)
    x, positions = tensors["x"], tensors.get("positions")
    if part == "decoder":
        module = filled(find("layers.decoder.DecoderLayer")(config, arguments["kind"]), 0)
        return {"out": module(x, positions=positions)}
    if part == "norm":
        module = filled(find("layers.norm.GatedRMSNorm")(x.shape[-1], 1e-5), 0)
        return {"out": module(x, tensors["gate"])}
    linear = part != "window"
    kind = find("layers.gated_deltanet.GatedDeltaNet" if linear else "layers.window_attention.WindowAttention")
    module = filled(kind(config), 0)
    if part == "gates":
        return module.gates(x)
    if not pieces:
        return {"out": module(x, positions=positions)}
    memory = (
        find("memory.LinearState")(x.shape[0], config, dtype=x.dtype)
        if linear
        else find("ops.sliding_window.Ring")(x.shape[0], 7, 2, 8, window=4, dtype=x.dtype)
    )
    out = []
    for piece in in_pieces(pieces):
        places = None if positions is None else positions[..., piece]
        out.append(module(x[:, piece], positions=places, memory=memory))
    return {"out": torch.cat(out, 1), **{f"memory {name}": y for name, y in memory.tensors().items()}}


def names(find, tensors, *, function: str, given: list[str]) -> dict[str, Tensor]:
    """A function of names; the answers are letters as numbers."""
    return {name: torch.tensor(list(find(function)(name).encode())) for name in given}


def loading(find, tensors, *, function: str, model: dict[str, list[int]]) -> dict[str, Tensor]:
    """A file of tensors matched with a model's parameters: what each gets, or that there was a fault."""
    from safetensors.torch import save_file

    module = torch.nn.Module()
    for name, shape in model.items():
        *path, own = name.split(".")
        at = module
        for step in path:
            if not hasattr(at, step):
                at.add_module(step, torch.nn.Module())
            at = getattr(at, step)
        at.register_parameter(own, torch.nn.Parameter(torch.zeros(shape)))
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder, "model.safetensors"))
        faults = find("checkpoint_names.Faults")()
        listing = find("safetensors_reading.listing")(Path(folder))
        try:
            matches = find("checkpoint_names.match")(listing, module, faults, dtype=None, allow_extra=False)
        except ValueError:
            return {"refused": torch.tensor(1)}
        if faults:
            return {"refused": torch.tensor(1)}
        read = find("safetensors_reading.numbers")
        return {"refused": torch.tensor(0)} | {found.name: read(found.stored).clone() for found in matches}
