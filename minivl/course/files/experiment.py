"""An experiment: does an adapter of rank 1 learn what one of rank 3 learns, in as many steps?

Predict first: fill in `predict` before you run anything, and leave it as it was, right or wrong. Then

    python experiment.py

prints your prediction beside what came out, over three seeds, and your verdict.
"""

import torch

from minivl.train.lora import Adapted

ARMS = {"rank 1": 1, "rank 3": 3}


def problem(seed):
    """(plain layer, x, wanted): a layer, inputs, and outputs of a layer that differs from it by a matrix of rank 2."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    plain = torch.nn.Linear(6, 5).double().requires_grad_(False)
    plain.weight.copy_(normal(5, 6))
    plain.bias.copy_(normal(5))
    x = normal(40, 6)
    return plain, x, plain(x) + x @ normal(6, 2) @ normal(2, 5)


def predict():
    """The loss after 100 steps that you expect of each arm, by its name: {"rank 1": …, "rank 3": …}."""
    return {"rank 1": 3.0, "rank 3": 0.1}


def run(rank, seed, steps):
    """Train an adapter of this rank (alpha = 2 · rank, generator of this seed) on problem(seed); return its last loss.

    Each step: loss = mean over all entries of (adapted(x) − wanted)²; both factors ← factor − 0.02 · its gradient. What
    is returned is the loss after the last step, as a number.
    """
    plain, x, wanted = problem(seed)
    adapted = Adapted(plain, rank, 2.0 * rank, torch.Generator().manual_seed(seed))
    factors = [adapted.lora_down, adapted.lora_up]
    for _ in range(steps):
        loss = (adapted(x) - wanted).square().mean()
        for factor, gradient in zip(factors, torch.autograd.grad(loss, factors), strict=True):
            factor.data -= 0.02 * gradient
    return (adapted(x) - wanted).square().mean().item()


def verdict(results, steps):
    """The name of the arm with the lower losses, or "undecided".

    results {arm: [its loss for each seed]} and steps {arm: how many}. An arm is lower if its worst seed is below the
    other's best; where they overlap it is undecided. Fewer than two seeds of an arm, or arms that had different numbers
    of steps, are no evidence: ValueError.
    """
    if min(map(len, results.values())) < 2:
        raise ValueError("one seed is no evidence; run at least two")
    if len(set(steps.values())) > 1:
        raise ValueError("the arms had different numbers of steps; compare at equal cost")
    (one, ones), (other, others) = results.items()
    if max(ones) < min(others):
        return one
    return other if max(others) < min(ones) else "undecided"


def main():
    expected = predict()
    found = {arm: [run(rank, seed, 100) for seed in range(3)] for arm, rank in ARMS.items()}
    for arm, losses in found.items():
        print(f"{arm}: predicted {expected[arm]:.3g}, found {', '.join(f'{loss:.3g}' for loss in losses)}")
    print("lower:", verdict(found, dict.fromkeys(ARMS, 100)))


if __name__ == "__main__":
    main()
