"""Two passes: all off, then some on."""
# ruff: noqa: F821 (it is set into a file that has these names)


def freeze(model, learns):
    for _, parameter in model.named_parameters():
        parameter.requires_grad, parameter.grad = False, None
    for name, parameter in model.named_parameters():
        if part_of(name, model.config) in set(learns):
            parameter.requires_grad = True
    return counted(model)
