"""Hooks before and after each layer; losses added up one at a time."""

import torch

from .losses import divergence, layer_distance


def layers_at_work(model, batch):
    inputs, outputs, handles = [], [], []
    for layer in model.model.language_model.layers:
        handles.append(layer.register_forward_pre_hook(lambda module, given: inputs.append(given[0])))
        handles.append(layer.register_forward_hook(lambda module, given, out: outputs.append(out)))
    with torch.no_grad():
        try:
            model.read(batch.ids, **batch.arguments)
        finally:
            while handles:
                handles.pop().remove()
    return list(zip(inputs, outputs, strict=True))


class LayerDistillation:
    def forward(self, batch):
        loss, count = 0.0, 0
        pairs = iter(layers_at_work(self.teacher, batch))
        for layer in self.student.model.language_model.layers:
            given, wanted = next(pairs)
            loss = loss + layer_distance(layer(given, positions=batch.positions), wanted, batch.mask)
            count += 1
        return loss * self.factor / count


class LogitDistillation:
    def forward(self, batch):
        total = 0
        for b in range(len(batch.ids)):
            real = batch.mask[b]
            with torch.no_grad():
                wanted = self.teacher.score(self.teacher.read(batch.ids, **batch.arguments)[b : b + 1, real])
            found = self.student.score(self.student.read(batch.ids, **batch.arguments)[b : b + 1, real])
            total = total + divergence(found, wanted, temperature=self.temperature)
        return total
