"""Losses, labels, adapters, rates and starts against what is written out by hand; and what their claims catch."""

import inspect
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minivl.train import losses, objectives, optimiser, trainer
from minivl.train.distributed import Processes
from minivl.train.settings import Settings

from . import train_claims
from .editing import find_module
from .tolerances import close
from .train_claims import EXACT, batch_of_examples
from .training import Endless, plainly, student
from .wrong_train import WRONG_TRAINING, real

CLAIMS = {
    "losses": (
        train_claims.the_divergence_is_teacher_times_log_of_teacher_over_student,
        train_claims.the_layer_distance_is_a_mean_over_channels_summed_over_real_tokens,
        train_claims.the_answer_loss_is_minus_the_log_of_what_the_word_got,
        train_claims.pieces_give_what_all_rows_give,
    ),
    "objectives": (
        train_claims.each_layer_runs_on_the_teachers_own_input,
        train_claims.errors_of_one_layer_do_not_reach_another,
        train_claims.every_real_token_is_distilled_and_no_padding,
        train_claims.only_answers_are_learnt,
        train_claims.a_teacher_that_could_learn_is_refused,
        train_claims.a_batch_gives_what_its_rows_give_alone,
    ),
    "examples": (
        train_claims.answers_and_their_ends_have_labels_and_nothing_else,
        train_claims.targets_are_the_next_tokens,
    ),
    "lora": (train_claims.merged_gives_what_the_adapters_gave, train_claims.an_adapter_adds_its_scaled_product),
    "optimiser": (train_claims.the_rate_is_its_closed_form, train_claims.only_matrices_decay),
    "trainer": (train_claims.accumulation_gives_the_gradient_of_one_batch,),
    "student": (train_claims.a_linear_layer_starts_as_the_released_training_starts_it,),
    "freezing": (train_claims.each_stage_learns_its_own_parts,),
}
ROWS = [(module, claim) for module, claims in CLAIMS.items() for claim in claims]


@pytest.mark.parametrize(("module", "claim"), ROWS, ids=lambda value: getattr(value, "__name__", value))
def test_it_holds(module, claim):
    claim(find_module(f"train.{module}"))


@pytest.mark.parametrize("row", WRONG_TRAINING, ids=lambda row: row.name.replace(" ", "_"))
def test_a_wrong_one_is_caught(row):
    assert row.caught(), f"{row.claim.__name__} lets this pass: {row.name}"


def test_every_claim_stands_in_the_table_and_is_tried_on_the_module_that_it_catches():
    tried = {claim: find_module(f"train.{module}") for module, claim in ROWS}
    assert {row.claim for row in WRONG_TRAINING} == set(tried)
    assert all(tried[row.claim] is real(row) for row in WRONG_TRAINING)
    written = {
        f
        for _, f in inspect.getmembers(train_claims, inspect.isfunction)
        if "module" in inspect.signature(f).parameters
    }
    assert written == set(tried)


@given(
    rows=st.integers(1, 9), words=st.integers(2, 40), temperature=st.sampled_from([0.5, 1, 2]), seed=st.integers(0, 99)
)
def test_the_divergence_is_zero_for_the_teacher_itself_and_positive_for_others(rows, words, temperature, seed):
    draw = torch.Generator().manual_seed(seed)
    a, b = (5 * torch.randn(rows, words, generator=draw, dtype=torch.float64) for _ in range(2))
    assert abs(losses.divergence(a, a, temperature=temperature)) < EXACT
    assert losses.divergence(a, b, temperature=temperature) > 0
    moved = losses.divergence(a + 3.0, b - 7.0, temperature=temperature)  # the same two distributions
    close(moved, losses.divergence(a, b, temperature=temperature), tolerance=1e-9)


@given(steps=st.integers(1, 400), share=st.floats(0, 1))
def test_the_rate_climbs_and_then_falls_and_never_stands_at_zero(steps, share):
    warm = optimiser.warm_steps(steps, share)
    rates = [optimiser.rate(step, steps=steps, warm=warm, peak=1.0) for step in range(steps)]
    assert 0 <= warm < steps
    assert math.isclose(max(rates), 1.0)
    assert all(a < b for a, b in pairwise(rates[:warm]))
    assert all(a > b for a, b in pairwise(rates[warm:]))
    assert min(rates) > 0


@given(data=st.data())
def test_any_cut_of_a_step_into_passes_gives_the_same_gradient(data):
    """Of any examples, with pictures and without, in float64."""
    first = data.draw(st.integers(0, 1000), label="first example")
    cuts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4), label="examples in each pass")
    learner = student()
    learner.model.visual.requires_grad_(False)
    objective, source = objectives.AnswerTuning(learner), Endless(learner.config)

    def gradient(parts: list[int]) -> tuple[float, torch.Tensor]:
        learner.zero_grad()
        numbers, batches = iter(range(first, first + sum(parts))), []
        for size in parts:
            batches.append(batch_of_examples(source, [next(numbers) for _ in range(size)], learner.config))
        settings = Settings(steps=1, batch=sum(parts))
        loss, _ = trainer.gradients(objective, objective, batches, settings, Processes(), plainly(objective))
        return loss, torch.cat([x.grad.flatten() for x in learner.parameters() if x.grad is not None])

    loss, whole = gradient([sum(cuts)])
    cut_loss, cut = gradient(cuts)
    assert math.isclose(loss, cut_loss, rel_tol=1e-10)
    close(cut, whole, tolerance=1e-9, what="the gradient")
