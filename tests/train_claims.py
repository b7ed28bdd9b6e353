"""What must hold of training, each claim on a module that may be the real one or one with an edit in it."""

import math
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn

from minivl.processor import load_processor
from minivl.tokenizer_file import END_OF_TURN
from minivl.train import freezing, losses, objectives
from minivl.train.distributed import Processes
from minivl.train.examples import IGNORED, collate
from minivl.train.settings import Settings

from .fakes import tiny_folder
from .tolerances import close
from .training import Endless, example, plainly, student, teacher

EXACT = 1e-10


def batch_of(config, numbers=range(3), **options):
    return collate([example(config, number, **options) for number in numbers], config)


# losses


def the_divergence_is_teacher_times_log_of_teacher_over_student(module: ModuleType) -> None:
    draw = torch.Generator().manual_seed(0)
    q, p = (3 * torch.randn(5, 7, generator=draw, dtype=torch.float64) for _ in range(2))
    for temperature in (1.0, 2.0):
        total = 0.0
        for student_row, teacher_row in zip((q / temperature).tolist(), (p / temperature).tolist(), strict=True):
            of_q, of_p = (sum(map(math.exp, row)) for row in (student_row, teacher_row))
            for a, b in zip(student_row, teacher_row, strict=True):
                total += math.exp(b) / of_p * math.log((math.exp(b) / of_p) / (math.exp(a) / of_q))
        found = module.divergence(q, p, temperature=temperature)
        close(found, torch.tensor(temperature**2 * total, dtype=torch.float64), tolerance=EXACT)


def the_layer_distance_is_a_mean_over_channels_summed_over_real_tokens(module: ModuleType) -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 4, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[False, True, True, True], [True, True, True, True]])
    total = 0.0
    for row in range(2):
        for t in range(4):
            if mask[row, t]:
                total += sum((a[row, t, d] - b[row, t, d]).item() ** 2 for d in range(6)) / 6
    padded = a.masked_fill(~mask[..., None], math.nan)
    close(module.layer_distance(padded, b, mask), torch.tensor(total, dtype=torch.float64), tolerance=EXACT)
    close(module.layer_distance(a[1:], b[1:]), (a[1] - b[1]).square().mean(-1).sum(), tolerance=EXACT)


def the_answer_loss_is_minus_the_log_of_what_the_word_got(module: ModuleType) -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = [3, 0, 5, 5]
    total = -sum(
        math.log(math.exp(row[word]) / sum(map(math.exp, row)))
        for row, word in zip(logits.tolist(), targets, strict=True)
    )
    close(module.answer_loss(logits, torch.tensor(targets)), torch.tensor(total, dtype=torch.float64), tolerance=EXACT)


def pieces_give_what_all_rows_give(module: ModuleType) -> None:
    logits = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.arange(7) % 6
    whole = losses.answer_loss(logits, targets)
    (wanted,) = torch.autograd.grad(whole, logits)
    cut = module.over_pieces(losses.answer_loss, logits, targets, piece=3)
    (found,) = torch.autograd.grad(cut, logits)
    close(cut, whole, tolerance=EXACT)
    close(found, wanted, tolerance=EXACT)
    with torch.no_grad():
        close(module.over_pieces(losses.answer_loss, logits, targets, piece=3), whole, tolerance=EXACT)


# objectives


def each_layer_runs_on_the_teachers_own_input(module: ModuleType) -> None:
    """Against a loop that walks the teacher's layers itself, with padding and a picture; mean over layers, × factor."""
    taught = teacher()
    learner = student(taught)
    batch = batch_of(taught.config, range(4), picture=True)
    x = taught.model.language_model.embed_tokens(batch.ids)
    pads = batch.ids == taught.config.image_token_id
    x[pads] = taught.model.visual(batch.pixels.double(), batch.grids)
    total = 0.0
    for ours, theirs in zip(learner.model.language_model.layers, taught.model.language_model.layers, strict=True):
        wanted = theirs(x, positions=batch.positions, mask=batch.mask)
        found = ours(x, positions=batch.positions, mask=batch.mask)
        total += (found - wanted)[batch.mask].square().sum().item() / taught.config.hidden_size
        x = wanted
    found = module.LayerDistillation(learner, taught, factor=10.0)(batch)
    wanted = 10 * total / len(taught.config.layer_types)
    close(found, torch.tensor(wanted, dtype=torch.float64), tolerance=EXACT)


def errors_of_one_layer_do_not_reach_another(module: ModuleType) -> None:
    """Only the spoilt layer's own part of the loss changes its gradient: the others' gradients stay bit for bit."""
    taught = teacher()
    learner = student(taught)
    batch, layers = batch_of(taught.config), learner.model.language_model.layers

    def gradients() -> list[torch.Tensor]:
        weights = [layer.self_attn.q_proj.weight for layer in layers[1:]]
        return list(torch.autograd.grad(module.LayerDistillation(learner, taught)(batch), weights))

    before = gradients()
    with torch.no_grad():
        layers[0].mlp.down_proj.weight.mul_(-3)
    for old, new in zip(before, gradients(), strict=True):
        assert torch.equal(old, new)


def every_real_token_is_distilled_and_no_padding(module: ModuleType) -> None:
    taught = teacher()
    learner = student(taught)
    batch = batch_of(taught.config)
    ours, theirs = (model(batch.ids, **batch.arguments) for model in (learner, taught))
    for temperature in (1.0, 2.0):
        wanted = losses.divergence(ours[batch.mask], theirs[batch.mask], temperature=temperature)
        objective = module.LogitDistillation(learner, taught, temperature=temperature)
        close(objective(batch), wanted, tolerance=EXACT)
        assert objective.units(batch) == int(batch.mask.sum())
    assert module.LogitDistillation(learner, taught, temperature=2.0, per="row").units(batch) == len(batch)


def only_answers_are_learnt(module: ModuleType) -> None:
    """Against a loop over tokens: the logits at t are held against the label at t + 1."""
    learner = student()
    batch = batch_of(learner.config)
    logits = learner(batch.ids, **batch.arguments)
    total, count = 0.0, 0
    for row in range(len(batch)):
        for t in range(batch.ids.shape[1] - 1):
            word = batch.labels[row, t + 1].item()
            if word != IGNORED:
                total -= F.log_softmax(logits[row, t], dim=0)[word].item()
                count += 1
    objective = module.AnswerTuning(learner)
    close(objective(batch), torch.tensor(total, dtype=torch.float64), tolerance=EXACT)
    assert objective.units(batch) == count


def a_teacher_that_could_learn_is_refused(module: ModuleType) -> None:
    taught = teacher()
    learner = student(taught)
    for make in (module.LayerDistillation, module.LogitDistillation):
        make(learner, taught.requires_grad_(False))
        taken = True
        try:
            make(learner, taught.requires_grad_(True))
        except ValueError:
            taken = False
        assert not taken, "a teacher with parameters that learn was taken"


def a_batch_gives_what_its_rows_give_alone(module: ModuleType) -> None:
    """Sums, not means: padding and the other rows change nothing."""
    taught = teacher()
    learner = student(taught)
    numbers = range(5)
    for make in (lambda: module.AnswerTuning(learner), *(
        lambda make=make: make(learner, taught) for make in (module.LayerDistillation, module.LogitDistillation)
    )):  # fmt: skip
        objective = make()
        whole = batch_of(taught.config, numbers)
        alone = [batch_of(taught.config, [number]) for number in numbers]
        close(objective(whole), sum(objective(one) for one in alone), tolerance=EXACT)
        assert objective.units(whole) == sum(objective.units(one) for one in alone)


# examples


def answers_and_their_ends_have_labels_and_nothing_else(module: ModuleType) -> None:
    processor = load_processor(tiny_folder())
    say = processor.tokenizer.encode
    end = processor.tokenizer.special(END_OF_TURN)
    messages = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Which colour?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Black"}, {"type": "text", "text": " it is."}]},
    ]
    made = module.example_of(processor, messages)
    wanted = [*say("A cat."), end, *say("Black it is."), end]
    assert made.labels[made.labels != IGNORED].tolist() == wanted
    first = processor([messages[0]]).ids[0].tolist()
    asked = len(first) + len(say("A cat."))
    assert made.ids[: len(first)].tolist() == first, "the prompt is not the one that chat makes"
    assert (made.labels[: len(first)] == IGNORED).all()
    assert made.labels[len(first) : asked + 1].tolist() == wanted[: asked + 1 - len(first)]
    after = processor([messages[2]], start=torch.tensor([asked])).ids[0].tolist()
    assert made.ids[asked : asked + len(after)].tolist() == after, "what continues is not what chat makes of it"
    assert made.ids[asked + len(after) :].tolist() == [*say("Black it is."), end]
    assert made.positions.tolist() == 3 * [list(range(len(made.ids)))]


def targets_are_the_next_tokens(module: ModuleType) -> None:
    learner = student()
    batch = module.collate([example(learner.config, n) for n in range(3)], learner.config)
    for row in range(3):
        one = example(learner.config, row)
        T = len(one.ids)
        assert batch.mask[row].tolist() == [True] * T + [False] * (batch.ids.shape[1] - T)
        assert batch.ids[row, :T].equal(one.ids)
        assert batch.positions[:, row, :T].equal(one.positions)
        assert batch.targets[row, :T].tolist() == [*one.labels[1:].tolist(), IGNORED]
        assert (batch.targets[row, T:] == IGNORED).all()


# adapters


def merged_gives_what_the_adapters_gave(module: ModuleType) -> None:
    learner = student()
    batch = batch_of(learner.config)
    start = learner(batch.ids, **batch.arguments).detach()
    names = set(learner.state_dict())
    module.adapt(learner, rank=3, alpha=12.0)
    close(learner(batch.ids, **batch.arguments), start, tolerance=EXACT, what="the model with fresh adapters")
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if "lora_up" in name:
                parameter.normal_(std=0.3)
    adapted = learner(batch.ids, **batch.arguments).detach()
    assert (adapted - start).norm() > 0.01 * start.norm()
    module.merge(learner)
    close(learner(batch.ids, **batch.arguments), adapted, tolerance=EXACT, what="the merged model")
    assert set(learner.state_dict()) == names
    assert all(type(x) is nn.Linear for x in learner.modules() if isinstance(x, nn.Linear))


def an_adapter_adds_its_scaled_product(module: ModuleType) -> None:
    plain = nn.Linear(5, 4, dtype=torch.float64)
    adapted = module.Adapted(plain, 2, 6.0, torch.Generator())
    with torch.no_grad():
        adapted.lora_up.normal_()
    x = torch.randn(3, 5, dtype=torch.float64)
    wanted = plain(x) + 3.0 * x @ adapted.lora_down.T @ adapted.lora_up.T
    close(adapted(x), wanted, tolerance=EXACT)


# the optimiser


def the_rate_is_its_closed_form(module: ModuleType) -> None:
    peak = 3e-4
    for steps, warm in ((20, 5), (7, 0), (100, 1), (1, 0)):
        rates = [module.rate(step, steps=steps, warm=warm, peak=peak) for step in range(steps)]
        for step in range(warm):
            assert math.isclose(rates[step], peak * (step + 1) / warm)
        for step in range(warm, steps):
            assert math.isclose(rates[step], peak * math.cos(math.pi / 2 * (step - warm) / (steps - warm)) ** 2)
        assert min(rates) > 0, "a step is wasted at a rate of 0"
        assert max(rates) == rates[max(warm - 1, 0)] == rates[warm] == peak


def only_matrices_decay(module: ModuleType) -> None:
    learner = student()
    freezing.freeze(learner, ("linear mixers", "norms"))
    learns = freezing.learning(learner)
    optimiser = module.adamw(learns, weight_decay=0.1)
    before = {name: x.detach().clone() for name, x in learns.items()}
    module.set_rate(optimiser, 0.5)
    module.fill_gradients(learns.values())
    optimiser.step()
    assert {x.ndim for x in learns.values()} == {1, 2, 3}
    for name, x in learns.items():
        close(x, before[name] * (1 - 0.5 * 0.1 if x.ndim == 2 else 1), tolerance=EXACT, what=name)


# the loop


def accumulation_gives_the_gradient_of_one_batch(module: ModuleType) -> None:
    """Whose loss is the sum of all answers' tokens divided by their number, though passes differ in both."""
    learner = student()
    data = Endless(learner.config)
    whole = batch_of_examples(data, range(6), learner.config)
    objective = objectives.AnswerTuning(learner)
    (objective(whole) / objective.units(whole)).backward()
    wanted = {name: x.grad.clone() for name, x in learner.named_parameters()}
    for at_once in (6, 2, 1):
        learner.zero_grad()
        parts = [range(i, i + at_once) for i in range(0, 6, at_once)]
        batches = [batch_of_examples(data, numbers, learner.config) for numbers in parts]
        settings = Settings(steps=1, batch=6, at_once=at_once)
        loss, units = module.gradients(objective, objective, batches, settings, Processes(), plainly(objective, module))
        assert units == objective.units(whole)
        assert math.isclose(loss, objective(whole).item() / units, rel_tol=1e-12)
        for name, x in learner.named_parameters():
            close(x.grad, wanted[name], tolerance=1e-9, what=f"the gradient of {name} with {at_once} at once")


def batch_of_examples(data, numbers, config):
    return collate([data[number] for number in numbers], config)


# the student


def a_linear_layer_starts_as_the_released_training_starts_it(module: ModuleType) -> None:
    taught = teacher()
    learner = module.student_from(taught, module.student_config(taught.config, period=LAYERS_BETWEEN))
    theirs, ours = taught.state_dict(), learner.state_dict()
    x = torch.randn(1, 5, taught.config.hidden_size, dtype=torch.float64)
    for layer, layer_type in zip(learner.model.language_model.layers, learner.config.layer_types, strict=True):
        if layer_type != "linear_attention":
            continue
        mixer = layer.self_attn
        gates = mixer.gates(x)
        close(gates["beta"], torch.full_like(gates["beta"], 0.5), tolerance=EXACT, what="β")
        close(gates["log_decay"], torch.full_like(gates["log_decay"], -0.001), tolerance=1e-9, what="log α")
        assert not mixer.A_log.any()
        assert not mixer.a_proj.weight.any()
        assert not mixer.b_proj.weight.any()
        for conv in (mixer.q_conv1d, mixer.k_conv1d, mixer.v_conv1d):
            y = torch.randn(1, 6, conv.weight.shape[0], dtype=torch.float64)
            close(conv(y, None, None)[0], F.silu(y), tolerance=EXACT, what="the convolution")
        bound = taught.config.hidden_size**-0.5
        for name in ("q_proj", "k_proj", "v_proj", "g_proj", "o_proj"):
            weight = getattr(mixer, name).weight
            bound = weight.shape[1] ** -0.5
            assert 0.97 * bound < weight.max() <= bound
            assert -0.97 * bound > weight.min() >= -bound
    kept = [name for name in ours if freezing.part_of(name, learner.config) != "linear mixers"]
    assert set(kept) == {name for name in theirs if not name.startswith(LINEAR_LAYERS)}
    assert all(torch.equal(ours[name], theirs[name]) for name in kept)


LAYERS_BETWEEN = 3
LINEAR_LAYERS = tuple(f"model.language_model.layers.{i}.self_attn." for i in (1, 2))


# freezing


def each_stage_learns_its_own_parts(module: ModuleType) -> None:
    learner = student()
    linear = {name for name in learner.state_dict() if name.startswith(LINEAR_LAYERS)}
    window = {name for name in learner.state_dict() if name.startswith("model.language_model.layers.0.self_attn.")}
    wanted = {"layers": linear, "logits": linear, "tuning": linear | window, "teacher": set(learner.state_dict())}
    for stage, names in wanted.items():
        counts = module.freeze(learner, module.LEARNS[stage])
        assert set(module.learning(learner)) == names, stage
        assert sum(count.learns for count in counts) == sum(learner.state_dict()[name].numel() for name in names)
        assert sum(count.numbers for count in counts) == sum(x.numel() for x in learner.state_dict().values())
