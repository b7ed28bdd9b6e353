"""The model's parameters one after the other, each with the names that it may have."""
# ruff: noqa: F821 (it is set into a file that has these names)

import torch

from .safetensors_reading import numbers

DECODER, TOWER = "model.language_model.", "model.visual."


def new_style(name):
    if name.startswith((DECODER, TOWER)) or name == "lm_head.weight":
        return name
    if name.startswith("visual."):
        return TOWER + name[len("visual.") :]
    return DECODER + name[len("model.") :] if name.startswith("model.") else name


def old_style(name):
    for new, old in ((DECODER, "model."), (TOWER, "visual.")):
        if name.startswith(new):
            return old + name[len(new) :]
    return name


def match(listing, model, faults, *, dtype, allow_extra):
    left, found = dict(listing.tensors), []
    for name, x in model.state_dict().items():
        stored = left.pop(name, None) or left.pop(old_style(name), None)
        if stored is None:
            faults.add("missing", name)
        elif stored.shape != tuple(x.shape):
            faults.add("shape", f"{name} is {stored.shape} and should be {tuple(x.shape)}")
        else:
            found.append(Match(name, stored, dtype or stored.dtype))
    head = left.pop("lm_head.weight", None)
    words = next((one.stored for one in found if one.name.endswith("embed_tokens.weight")), None)
    if head is not None and words is not None and not torch.equal(numbers(head), numbers(words)):
        faults.add("head", "it differs from the embedding")
    faults.add("left over", *left)
    return found
