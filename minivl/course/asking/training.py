"""Objectives on a toy student and teacher, adapters, and what an experiment says."""

from types import SimpleNamespace

import torch
from torch import Tensor

from .layers import filled


def toy(seed: int, width: int, vocabulary: int) -> torch.nn.Module:
    """What a language model looks like to an objective: layers that read, and a table that scores."""

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(width, width)

        def forward(self, x, *, positions=None, memory=None, mask=None):
            return x + torch.tanh(self.inner(x))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = SimpleNamespace(layer_types=("linear_attention",) * 3, vocab_size=vocabulary)
            self.model = torch.nn.Module()
            self.model.language_model = torch.nn.Module()
            self.model.language_model.layers = torch.nn.ModuleList(Layer() for _ in range(3))
            self.model.language_model.embed_tokens = torch.nn.Embedding(vocabulary, width)
            self.model.visual = torch.nn.Module()

        def read(self, ids, *, positions=None, mask=None):
            x = self.model.language_model.embed_tokens(ids)
            for layer in self.model.language_model.layers:
                x = layer(x, positions=positions, mask=mask)
            return x

        def score(self, x):
            return x @ self.model.language_model.embed_tokens.weight.T

    return filled(Model(), seed)


def batch_of(tensors) -> SimpleNamespace:
    ids, mask = tensors["ids"], tensors["mask"]
    positions = torch.arange(ids.shape[1]).expand(3, *ids.shape)
    arguments = {"positions": positions}
    return SimpleNamespace(ids=ids, mask=mask, pixels=None, positions=positions, arguments=arguments)


def gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    named = module.named_parameters()
    return {f"gradient of {name}": torch.zeros_like(x) if x.grad is None else x.grad for name, x in named}


def objective(find, tensors, *, function: str, width: int, words: int, **options) -> dict[str, Tensor]:
    """The loss of a stage on a toy student and teacher, and the gradients of both."""
    student, teacher = toy(1, width, words).requires_grad_(True), toy(2, width, words)
    loss = find(function.removesuffix(".forward"))(student, teacher, **options)(batch_of(tensors))
    loss.backward()
    taught = any(x.grad is not None for x in teacher.parameters())
    return {"loss": loss, "teacher learns": torch.tensor(int(taught)), **gradients(student)}


def at_work(find, tensors, *, function: str, width: int, words: int) -> dict[str, Tensor]:
    """What goes into and comes out of each layer, whether it could carry gradients, and whether hooks stay behind."""
    model = toy(3, width, words).requires_grad_(True)
    pairs = find(function)(model, batch_of(tensors))
    taken = [x for pair in pairs for x in pair]
    hooks = sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model.modules())
    marks = {"carries gradients": sum(x.requires_grad for x in taken), "hooks left": hooks}
    found = {f"{way} {i}": x for i, pair in enumerate(pairs) for way, x in zip(("in", "out"), pair, strict=True)}
    return found | {name: torch.tensor(int(x)) for name, x in marks.items()}


def frozen(find, tensors, *, function: str, learns: list[str], names: list[str]) -> dict[str, Tensor]:
    """Which parameters of these names learn after `freeze`, and whether an old gradient is still there."""
    parameters = {name: torch.nn.Parameter(torch.zeros(2), requires_grad=i % 2 == 0) for i, name in enumerate(names)}
    for x in parameters.values():
        x.grad = torch.ones(2)
    config = SimpleNamespace(layer_types=("sliding_attention", "linear_attention"))
    find(function)(SimpleNamespace(config=config, named_parameters=parameters.items), tuple(learns))
    stale = sum(x.grad is not None for x in parameters.values())
    learning = {name: torch.tensor(int(x.requires_grad)) for name, x in parameters.items()}
    return learning | {"gradients left": torch.tensor(stale)}


def adapted(find, tensors, *, function: str, rank: int, alpha: float, how: str) -> dict[str, Tensor]:
    """An adapter on a linear layer: as it starts, with other factors, or merged."""
    plain = torch.nn.Linear(tensors["weight"].shape[1], tensors["weight"].shape[0]).double().requires_grad_(False)
    plain.weight.copy_(tensors["weight"])
    plain.bias.copy_(tensors["bias"])
    module, x = find("train.lora.Adapted")(plain, rank, alpha, torch.Generator().manual_seed(0)), tensors["x"]
    if how == "start":
        module(x).square().sum().backward()
        moved = [name for name, y in module.named_parameters() if y.grad is not None and y.grad.abs().sum() > 0]
        marks = {"factors that get a gradient": len(moved), "plain weight learns": int(plain.weight.requires_grad)}
        shapes = [*module.lora_down.shape, *module.lora_up.shape]
        return {
            "out": module(x),
            "shapes": torch.tensor(shapes),
            **{name: torch.tensor(y) for name, y in marks.items()},
        }
    with torch.no_grad():
        module.lora_down.copy_(tensors["down"])
        module.lora_up.copy_(tensors["up"])
    if how == "adapted":
        return {"out": module(x)}
    merged = module.merged()
    names = sorted(name for name, _ in merged.named_parameters())
    is_plain = type(merged) is torch.nn.Linear and names == ["bias", "weight"]
    kept = {"weight of the adapted": module.weight, "is plain": torch.tensor(int(is_plain))}
    return {"out": merged(x), "weight": merged.weight, **kept}


def says(find, tensors, *, function: str, **options) -> dict[str, Tensor]:
    """What a function says, letters as numbers, or that it refuses with a ValueError."""
    try:
        return {"says": torch.tensor(list(find(function)(**options).encode()))}
    except ValueError:
        return {"refuses": torch.tensor(1)}


def predicted(find, tensors, *, function: str, arms: list[str]) -> dict[str, Tensor]:
    """Whether there is a prediction, a number above 0, for each arm and for nothing else."""
    found = find(function)()
    fits = sorted(found) == sorted(arms) and all(0 < float(x) < float("inf") for x in found.values())
    return {"fits": torch.tensor(int(fits))}
