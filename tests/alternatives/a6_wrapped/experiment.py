"""With backward and PyTorch's own SGD."""
# ruff: noqa: F821 (it is set into a file that has these names)

import statistics

import torch

from minivl.train.lora import Adapted


def predict():
    return {"rank 1": 5, "rank 3": 5.5}


def run(rank, seed, steps):
    plain, x, wanted = problem(seed)
    adapted = Adapted(plain, rank, 2.0 * rank, torch.Generator().manual_seed(seed))
    optimiser = torch.optim.SGD([adapted.lora_down, adapted.lora_up], lr=0.02)
    for step in range(steps + 1):
        loss = torch.nn.functional.mse_loss(adapted(x), wanted)
        if step < steps:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return float(loss)


def verdict(results, steps):
    if any(len(losses) < 2 for losses in results.values()) or len({*steps.values()}) != 1:
        raise ValueError("no evidence")
    ordered = sorted(results, key=lambda arm: statistics.median(results[arm]))
    apart = all(x < y for x in results[ordered[0]] for y in results[ordered[1]])
    return ordered[0] if apart else "undecided"
