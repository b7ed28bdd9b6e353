"""The step as one matrix, made anew each time."""

import torch
from torch import nn


class Adapted:
    def __init__(self, plain, rank, alpha, generator):
        super().__init__(plain.in_features, plain.out_features, bias=plain.bias is not None, device="meta")
        self.weight, self.bias, self.scale = plain.weight, plain.bias, alpha / rank
        start = 2 * torch.rand(rank, plain.in_features, generator=generator, dtype=torch.float64) - 1
        self.lora_down = nn.Parameter((start / plain.in_features**0.5).to(plain.weight.dtype))
        self.lora_up = nn.Parameter(plain.weight.new_zeros(plain.out_features, rank))

    def _step(self):
        return self.scale * self.lora_up @ self.lora_down

    def forward(self, x):
        out = x @ (self.weight + self._step()).T
        return out if self.bias is None else out + self.bias

    def merged(self):
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, dtype=self.weight.dtype)
        with torch.no_grad():
            plain.weight.copy_(self.weight + self._step())
            if self.bias is not None:
                plain.bias.copy_(self.bias)
        return plain
