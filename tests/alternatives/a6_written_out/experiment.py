"""Gradients by hand: the chain rule of two factors."""
# ruff: noqa: F821 (it is set into a file that has these names)

import torch

from minivl.train.lora import Adapted


def predict():
    return dict.fromkeys(("rank 3", "rank 1"), 1e-3)


@torch.no_grad()
def run(rank, seed, steps):
    plain, x, wanted = problem(seed)
    start = Adapted(plain, rank, 2.0 * rank, torch.Generator().manual_seed(seed))
    down, up, scale = start.lora_down.clone(), start.lora_up.clone(), 2.0
    for _ in range(steps):
        slope = 2 * (plain(x) + scale * x @ down.T @ up.T - wanted) / wanted.numel()
        of_up, of_down = scale * slope.T @ (x @ down.T), scale * up.T @ slope.T @ x
        up, down = up - 0.02 * of_up, down - 0.02 * of_down
    return ((plain(x) + scale * x @ down.T @ up.T - wanted) ** 2).mean().item()


def verdict(results, steps):
    arms = list(results)
    for arm in arms:
        if len(results[arm]) == 1 or steps[arm] != steps[arms[0]]:
            raise ValueError(arm)
    for arm, rival in (arms, arms[::-1]):
        if sorted(results[arm])[-1] < sorted(results[rival])[0]:
            return arm
    return "undecided"
