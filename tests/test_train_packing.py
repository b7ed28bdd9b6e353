"""Passes packed by length: what goes into each, that gradients are what they were, and that processes agree.

python -m tests.test_train_packing FOLDER      two processes, each of which leaves what it found in FOLDER
"""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.train import freezing, progress, trainer
from minivl.train.distributed import Processes, processes
from minivl.train.examples import collate
from minivl.train.feeding import loader, next_step, packed
from minivl.train.objectives import AnswerTuning, LayerDistillation, LogitDistillation
from minivl.train.settings import Settings
from minivl.train.trainer import LOG

from .pages import ROOT
from .tolerances import close
from .train_processes import together
from .training import Endless, example, example_with, plainly, settings, small_config, student, teacher, tuned

EXACT = 1e-10
CONFIG = small_config()
KINDS = ("words", "pixels", "vectors")


def made(number: int, T: int, kind: str):
    one = example(CONFIG, number, T=T, picture=kind != "words")
    vectors = torch.randn(4, CONFIG.hidden_size, generator=torch.Generator().manual_seed(number))
    return example_with(one, pixels=None, vectors=vectors) if kind == "vectors" else one


rows = st.lists(st.tuples(st.integers(3, 40), st.sampled_from(KINDS)), min_size=1, max_size=20)


@given(rows=rows, tokens=st.integers(1, 120))
def test_a_pass_holds_so_many_tokens_at_most_or_a_single_row(rows, tokens):
    examples = [made(number, T, kind) for number, (T, kind) in enumerate(rows)]
    passes = packed(examples, tokens)
    for some in passes:
        batch = collate(some, CONFIG)  # pixels and vectors in one would be refused
        assert batch.ids.numel() <= tokens or len(some) == 1
    assert sorted(id(one) for some in passes for one in some) == sorted(map(id, examples)), "each exactly once"


@given(rows=rows, tokens=st.integers(1, 120))
def test_no_pass_ends_before_it_is_full_and_each_begins_with_its_longest(rows, tokens):
    passes = packed([made(number, T, kind) for number, (T, kind) in enumerate(rows)], tokens)
    assert all(some[0] is max(some, key=lambda one: len(one.ids)) for some in passes)
    for some, after in pairwise(passes):
        alike = (some[0].vectors is None) == (after[0].vectors is None)
        assert not alike or len(some[0].ids) * (len(some) + 1) > tokens
        assert not alike or len(some[-1].ids) >= len(after[0].ids)


def test_pixels_and_vectors_go_apart_and_words_go_with_pixels():
    passes = packed([made(0, 9, "pixels"), made(1, 9, "vectors"), made(2, 9, "words"), made(3, 9, "vectors")], 1000)
    forms = [{(one.pixels is not None, one.vectors is not None) for one in some} for some in passes]
    assert sorted(map(sorted, forms)) == [[(False, False), (True, False)], [(False, True)]]


def test_nothing_is_packed_into_nothing():
    assert packed([], 10) == []


# Losses and gradients


def step(objective, data, group=Processes(), **changes) -> tuple[float, int, dict, int]:  # noqa: B008 - it is frozen
    """One step's loss, units, gradients and passes."""
    own = settings(**({"batch": 6} | changes))
    passes = trainer.prepared(objective, own, group, False)
    batches = next_step(iter(loader(data, objective.student.config, own, group, 0)), own, group)
    loss, units = trainer.gradients(objective, passes, batches, own, group, plainly(passes))
    return loss, units, {name: x.grad for name, x in freezing.learning(objective.student).items()}, len(batches)


def answers():
    learner = student()
    freezing.freeze(learner, freezing.LEARNS["teacher"])
    return AnswerTuning(learner)


def layers():
    taught = teacher()
    learner = student(taught)
    freezing.freeze(learner, freezing.LEARNS["layers"])
    return LayerDistillation(learner, taught)


def logits():
    taught = teacher()
    learner = student(taught)
    freezing.freeze(learner, freezing.LEARNS["tuning"])
    return LogitDistillation(learner, taught)


@pytest.mark.parametrize("make", [answers, layers, logits])
def test_a_packed_step_has_the_losses_and_gradients_of_any_other(make):
    data = Endless(CONFIG)
    loss, units, gradients, count = step(make(), data)
    assert count == 6
    seen = set()
    for tokens in (1, 20, 40, 1000):
        found, of, packed_ones, passes = step(make(), data, tokens_at_once=tokens)
        assert of == units
        assert math.isclose(found, loss, rel_tol=EXACT)
        for name, x in gradients.items():
            close(packed_ones[name], x, tolerance=EXACT, what=name)
        seen.add(passes)
    assert len(seen) >= 3, "the steps were cut alike"
    assert {1, 6} <= seen


class Counted(Endless):
    """Counts how often each number is asked for."""

    def __init__(self, config):
        super().__init__(config)
        self.asked = []

    def __getitem__(self, number):
        self.asked.append(number)
        return super().__getitem__(number)


def test_each_process_packs_its_own_part_of_each_step_and_a_run_that_goes_on_the_steps_that_are_left():
    own = settings(steps=3, batch=4, tokens_at_once=30)
    for group, done in ((Processes(0, 2), 0), (Processes(1, 2), 0), (Processes(), 2)):
        data = Counted(CONFIG)
        batches = iter(loader(data, CONFIG, own, group, done))
        for number in range(done, own.steps):
            data.asked.clear()
            found = next_step(batches, own, group)
            wanted = [number * own.batch + i for i in range(group.rank, own.batch, group.count)]
            assert data.asked == wanted
            assert sum(map(len, found)) == len(wanted)
        assert next(batches, None) is None


def test_other_processes_make_the_same_passes():
    plain, made_elsewhere = (
        next(iter(loader(Endless(CONFIG), CONFIG, settings(batch=6, tokens_at_once=30, workers=n), Processes(), 0)))
        for n in (0, 1)
    )
    assert len(plain) == len(made_elsewhere) > 1
    for a, b in zip(plain, made_elsewhere, strict=True):
        assert a.ids.equal(b.ids)
        assert a.labels.equal(b.labels)


def test_a_run_may_go_on_with_another_number_of_tokens_at_once(tmp_path):
    tuned(tmp_path / "whole", batch=4)
    tuned(tmp_path / "moved", batch=4, stop=3)
    tuned(tmp_path / "moved", batch=4, tokens_at_once=25)
    tuned(tmp_path / "packed", batch=4, tokens_at_once=1000)
    whole, *others = (progress.losses(tmp_path / name / LOG) for name in ("whole", "moved", "packed"))
    for losses in others:
        assert len(losses) == 4
        assert all(math.isclose(a, b, rel_tol=EXACT) for a, b in zip(whole, losses, strict=True))


# What is refused


def test_fsdp_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match='tokens_at_once is for spread="ddp"; with "fsdp" passes are told by at_once'):
        Settings(steps=1, spread="fsdp", tokens_at_once=10)


@pytest.mark.parametrize("tokens", [0, -1, 2.5, True, "many"])
def test_a_number_of_tokens_that_is_none_is_told(tokens):
    with pytest.raises(ValueError, match=r"tokens_at_once is .* whole number of at least 1, or None"):
        Settings(steps=1, tokens_at_once=tokens)


def test_a_batch_that_cannot_be_shared_out_is_told_before_anything_is_read(tmp_path):
    data = Counted(CONFIG)
    own = settings(batch=3, tokens_at_once=10)
    with pytest.raises(ValueError, match="batch is 3; it should be a multiple of 2"):
        trainer.train(answers(), data, tmp_path / "out", own, group=Processes(0, 2), quiet=True)
    assert not data.asked
    assert not (tmp_path / "out").exists()


# Two processes

TOKENS = 36  # so that one process has fewer passes than the other


def leave(out: Path) -> None:
    """What this process finds, written down."""
    with processes() as group:
        torch.save(step(answers(), Endless(CONFIG), group, tokens_at_once=TOKENS), out / f"{group.rank}.pt")


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.fork")
def test_two_processes_with_different_numbers_of_passes_find_the_gradients_of_one(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "tests.test_train_packing", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    loss, units, gradients, _ = step(answers(), Endless(CONFIG), tokens_at_once=TOKENS)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert both[0][3] != both[1][3], "both have as many passes"
    for found, of, own, _ in both:
        assert of == units
        assert math.isclose(found, loss, rel_tol=EXACT)
        assert set(own) == set(gradients)
        for name, x in gradients.items():
            close(own[name], x, tolerance=EXACT, what=name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    home = Path(sys.argv[1])
    sys.exit(max(map(abs, together(2, lambda: leave(home), home / "met"))))
