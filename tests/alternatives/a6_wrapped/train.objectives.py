"""Layers that are wrapped while the teacher reads, and losses by index."""

import torch

from .losses import divergence, layer_distance


def layers_at_work(model, batch):
    layers, taken = model.model.language_model.layers, []

    def watched(forward):
        def run(x, **arguments):
            out = forward(x, **arguments)
            taken.append((x.detach(), out.detach()))
            return out

        return run

    kept = [layer.forward for layer in layers]
    for layer in layers:
        layer.forward = watched(layer.forward)
    try:
        with torch.no_grad():
            model.read(batch.ids, **batch.arguments)
    finally:
        for layer, forward in zip(layers, kept, strict=True):
            layer.forward = forward
    return taken


class LayerDistillation:
    def forward(self, batch):
        losses = []
        for i, (x, wanted) in enumerate(layers_at_work(self.teacher, batch)):
            layer = self.student.model.language_model.layers[i]
            out = layer(x, positions=batch.positions, mask=batch.mask)
            losses.append(layer_distance(out, wanted, batch.mask))
        return self.factor * torch.stack(losses).mean()


class LogitDistillation:
    def forward(self, batch):
        with torch.no_grad():
            wanted = self.teacher.score(self.teacher.read(batch.ids, **batch.arguments))
        found = self.student.score(self.student.read(batch.ids, **batch.arguments))
        return divergence(found[batch.mask], wanted[batch.mask], temperature=self.temperature)
