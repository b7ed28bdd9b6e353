"""By regular expressions, and sets of names."""
# ruff: noqa: F821 (it is set into a file that has these names)

import re

from .safetensors_reading import numbers


def new_style(name):
    name = re.sub(r"^visual\.", "model.visual.", name)
    return re.sub(r"^model\.(?!visual\.|language_model\.)", "model.language_model.", name)


def old_style(name):
    return re.sub(r"^model\.visual\.", "visual.", re.sub(r"^model\.language_model\.", "model.", name))


def match(listing, model, faults, *, dtype, allow_extra):
    stored = {new_style(name): one for name, one in listing.tensors.items()}
    wanted = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    extra = set(stored) - set(wanted) - {"lm_head.weight"}
    for kind, names in (("missing", set(wanted) - set(stored)), ("extra", extra)):
        faults.add(kind, *sorted(names))
    faults.add("shape", *[name for name in wanted if name in stored and stored[name].shape != wanted[name]])
    tied = "model.language_model.embed_tokens.weight"
    if "lm_head.weight" in stored and tied in stored:
        one, other = (numbers(stored[name]) for name in ("lm_head.weight", tied))
        if one.shape != other.shape or (one != other).any():
            faults.add("contradiction", "lm_head.weight")
    return [] if faults else [Match(name, stored[name], dtype or stored[name].dtype) for name in wanted]
