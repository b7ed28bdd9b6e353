"""Rank by rank: a sum of outer products, as the name says."""

import copy

import torch
from torch import nn


class Adapted:
    def __init__(self, plain, rank, alpha, generator):
        nn.Linear.__init__(self, plain.in_features, plain.out_features, plain.bias is not None, device="meta")
        self.weight = plain.weight
        self.bias = plain.bias
        bound = 1 / plain.in_features**0.5
        down = torch.rand(rank, plain.in_features, generator=generator, dtype=torch.float64) * 2 * bound - bound
        self.lora_down, self.lora_up = nn.Parameter(down), nn.Parameter(torch.zeros(plain.out_features, rank).double())
        self.scale = alpha / rank

    def forward(self, x):
        out = nn.functional.linear(x, self.weight, self.bias)
        for r in range(self.lora_down.shape[0]):
            out = out + self.scale * (x @ self.lora_down[r])[..., None] * self.lora_up[:, r]
        return out

    def merged(self):
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        step = torch.einsum("or,ri->oi", self.lora_up.detach(), self.lora_down.detach())
        plain.weight = nn.Parameter(torch.add(self.weight, step, alpha=self.scale), requires_grad=False)
        plain.bias = copy.deepcopy(self.bias)
        return plain
