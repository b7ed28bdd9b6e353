"""What a recorded pass must not do, checked where there is no GPU: nothing in a pass may depend on the batch's numbers.

A pass becomes a CUDA graph only where no step of it waits for the device, has a shape that numbers decide, or brings
numbers from the host. Each objective of the claims' arms goes through a pass here, forward and backward, on a CPU that
takes itself for a device being recorded, and everything of this kind is an error.
"""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minivl.train.claims_arms import ARMS, Protocol
from minivl.train.claims_runs import DECODER, arm_config
from minivl.train.examples import collate
from minivl.train.freezing import LEARNS, freeze
from minivl.train.objectives import AnswerTuning, LayerDistillation, LogitDistillation
from minivl.train.recorded import filled_up

from .fakes import tiny_config
from .tolerances import close
from .training import example, example_with, plainly, small_model

WAITS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"}
SHAPED_BY_NUMBERS = {"nonzero", "masked_select", "unique", "_unique2", "bincount", "histc"}
FROM_THE_HOST = {"lift_fresh", "lift"}  # torch.tensor(…)
READ_ON_THE_HOST = ("tolist", "cpu", "numpy")  # of a tensor on a CPU, nobody else hears of it
CONFIG = tiny_config()
CELLS = 4


class Recording(TorchDispatchMode):
    """What can't be recorded is told."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.partition("::")[2]
        if name in WAITS | SHAPED_BY_NUMBERS | FROM_THE_HOST:
            raise AssertionError(f"{function} can't be recorded")
        if name.startswith("index") and any(x.dtype == torch.bool for x in tensors(args)):
            raise AssertionError(f"{function} by a mask can't be recorded")
        return function(*args, **(kwargs or {}))


def tensors(args) -> list[torch.Tensor]:
    """Those that an operation picks by: its lists of tensors."""
    return [x for arg in args if isinstance(arg, list | tuple) for x in arg if isinstance(x, torch.Tensor)]


class OnDevice(torch.Tensor):
    """Tokens that say that they are on a GPU, where nobody looks at them."""

    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl


def as_recorded(run, batch, monkeypatch) -> torch.Tensor:
    """A pass as `Recorded` records it: rows filled up, the factor of the loss a tensor."""
    batch = filled_up(batch, CONFIG)
    batch = dataclasses.replace(batch, ids=batch.ids.as_subclass(OnDevice))
    factor = torch.ones(())
    with monkeypatch.context() as patch:
        for module in ("model", "train.objectives"):
            patch.setattr(f"minivl.{module}.recording", lambda x: True)
        for name in READ_ON_THE_HOST:
            patch.setattr(torch.Tensor, name, lambda *arguments: pytest.fail("numbers are read on the host"))
        with Recording():
            return run(batch, factor)


def some_batch(T: int = 120):
    """Rows of several chunks and windows, one of them with a picture that has been seen before."""
    rows = [example(CONFIG, number, T=T - 30 * number, picture=number == 1) for number in range(2)]
    vectors = torch.randn(CELLS, CONFIG.hidden_size, generator=torch.Generator().manual_seed(0))
    return collate([rows[0], example_with(rows[1], pixels=None, vectors=vectors)], CONFIG)


def model_of(name: str):
    return small_model(arm_config(CONFIG, ARMS[name], Protocol(window=64)), dtype=torch.float32)


def objective_of(arm: str, stage: str):
    learner = model_of(arm)
    freeze(learner, DECODER if stage == "answers" else LEARNS[stage])
    if stage in ("answers", "tuning"):
        return AnswerTuning(learner)
    taught = model_of("full").requires_grad_(False)
    return {"layers": LayerDistillation, "logits": LogitDistillation}[stage](learner, taught)


CASES = {
    (arm.layer_types, arm.mixer, stage): (arm.name, stage)
    for arm in reversed(ARMS.values())  # of arms that are alike in these, the first
    for stage, _ in arm.course
}.values()


@pytest.mark.parametrize(("arm", "stage"), CASES)
def test_a_pass_of_each_arm_can_be_recorded_and_gives_the_loss_of_one_that_is_not(arm, stage, monkeypatch):
    objective = objective_of(arm, stage)
    run, batch = plainly(objective), some_batch()
    found = as_recorded(run, batch, monkeypatch)
    gradients = {name: x.grad.clone() for name, x in objective.student.named_parameters() if x.grad is not None}
    assert gradients
    objective.zero_grad()
    close(found, run(batch, 1.0), tolerance=1e-5)
    for name, gradient in gradients.items():
        close(gradient, objective.student.get_parameter(name).grad, tolerance=1e-4, what=f"the gradient of {name}")


FAULTS = {
    "a number that is looked at": lambda x: x if x.sum() > -1e9 else 2 * x,
    "a mask that picks": lambda x: torch.where(x > 0, x, 0) + x[x > 0].sum(),
    "numbers that are counted": lambda x: x + x.nonzero().shape[0],
    "numbers from the host": lambda x: x * torch.tensor([1.0]),
    "numbers that go to the host": lambda x: x * x.flatten().tolist()[0],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_recorded_is_found(fault, monkeypatch):
    objective = objective_of("rule-delta", "answers")
    last = objective.student.model.language_model.norm
    last.register_forward_hook(lambda module, given, out: FAULTS[fault](out))
    with pytest.raises((AssertionError, pytest.fail.Exception), match=r"can't be recorded|read on the host"):
        as_recorded(plainly(objective), some_batch(), monkeypatch)
