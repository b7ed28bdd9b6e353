"""A clone by way of a new memory; one safetensors file, written plainly."""

import torch
from safetensors.torch import load, save_file


class Memory:
    def clone(self):
        some = next(iter(self.layers)).tensors()["keys"]
        other = Memory(self.config, len(self.seen), longest_write=self.longest_write, room=self.room, dtype=some.dtype)
        for name, x in other.tensors().items():
            x.copy_(self.tensors()[name])
        other.notes, other._taken = dict(self.notes), self._taken
        return other

    def save(self, path):
        more = {"taken": torch.tensor(self._taken), "longest_write": torch.tensor(self.longest_write)}
        save_file({name: x.contiguous() for name, x in (self.tensors() | more).items()}, path)

    @classmethod
    def resume(cls, path, model):
        with open(path, "rb") as file:
            content = file.read()
        try:
            saved = load(content)
        except Exception as fault:
            raise ValueError(f"{path} is damaged") from fault
        memory = model.new_memory(len(saved["seen"]), longest_write=int(saved["longest_write"]))
        for name, x in memory.tensors().items():
            x.copy_(saved[name])
        memory._taken = int(saved["taken"])
        return memory
