"""By a table of names."""
# ruff: noqa: F821 (it is set into a file that has these names)


def freeze(model, learns):
    parameters = dict(model.named_parameters())
    wanted = {name for name in parameters if part_of(name, model.config) in learns}
    for name in parameters:
        parameters[name].grad = None
        parameters[name].requires_grad_(name in wanted)
    return counted(model)
