"""Assignment 6: distillation layer by layer and word by word, adapters, and an experiment that is predicted first."""

from collections.abc import Callable

import torch

from . import a6_mistakes
from .a4 import FAST
from .inputs import Draw
from .sources import Edit
from .tasks import Assignment, Check, Question, Task, Variant

LOSSES, STAGES, ADAPTED = "train.losses", "train.objectives", "train.lora.Adapted"
SIZES = {"width": 5, "words": 7}
NAMES = (
    "model.visual.blocks.0.attn.qkv.weight",
    "model.visual.merger.ln_q.weight",
    "model.language_model.embed_tokens.weight",
    "model.language_model.layers.0.self_attn.q_proj.weight",
    "model.language_model.layers.0.mlp.up_proj.weight",
    "model.language_model.layers.1.self_attn.q_proj.weight",
    "model.language_model.layers.1.self_attn.q_proj.lora_up",
    "model.language_model.norm.weight",
)


def reading(draw: Draw, T: int, *, padded: bool) -> dict[str, torch.Tensor]:
    """Ids, and which of them are real: the second row ends in padding."""
    ids = torch.tensor([[draw.below(SIZES["words"]) for _ in range(T)] for _ in range(2)])
    mask = torch.ones(2, T, dtype=torch.bool)
    if padded:
        mask[1, (T + 1) // 2 :] = False
    return {"ids": ids, "mask": mask}


def distance(seed: int, T: int) -> Question:
    draw = Draw(seed)
    given = {"student": draw.normal(2, T, 5), "teacher": draw.normal(2, T, 5)}
    given["mask"] = reading(draw, T, padded=True)["mask"]
    return Question("values", given, {"function": f"{LOSSES}.layer_distance"}, "a row with padding")


def objective(driver: str, function: str, about: str, padded: bool, **options) -> Callable:
    def ask(seed: int, T: int) -> Question:
        given = reading(Draw(seed), T, padded=padded)
        return Question(driver, given, {"function": f"{STAGES}.{function}", **SIZES, **options}, about)

    return ask


def frozen(seed: int, T: int) -> Question:
    learns = (("linear mixers",), ("adapters",), ("linear mixers", "attention mixers"))[seed % 3]
    options = {"function": "train.freezing.freeze", "learns": list(learns), "names": list(NAMES)}
    return Question("frozen", {}, options, f"{' and '.join(learns)} learn")


def divergence(temperature: float) -> Callable:
    def ask(seed: int, T: int) -> Question:
        draw = Draw(seed)
        given = {"student": 2 * draw.normal(T, 6), "teacher": 2 * draw.normal(T, 6)}
        options = {"function": f"{LOSSES}.divergence", "temperature": temperature}
        return Question("values", given, options, f"temperature {temperature:g}")

    return ask


def adapter(how: str, about: str) -> Callable:
    def ask(seed: int, T: int) -> Question:
        draw = Draw(seed)
        given = {"weight": draw.normal(6, 4), "bias": draw.normal(6), "x": draw.normal(T, 4)}
        given |= {"down": draw.normal(3, 4), "up": draw.normal(6, 3)}
        return Question("adapted", given, {"function": ADAPTED, "rank": 3, "alpha": 6.0, "how": how}, about)

    return ask


def trained(seed: int, T: int) -> Question:
    rank = 1 + seed % 3
    options = {"function": "experiment.run", "rank": rank, "seed": seed % 7, "steps": T}
    return Question("values", {}, options, f"rank {rank}, seed {seed % 7}")


def judged(about: str, results: Callable[[Draw], dict], steps: dict | None = None) -> Callable:
    def ask(seed: int, T: int) -> Question:
        found = results(Draw(seed))
        budgets = steps or dict.fromkeys(found, 100)
        options = {"function": "experiment.verdict", "results": found, "steps": budgets}
        return Question("says", {}, options, f"{about}: {found}, steps {budgets}")

    return ask


def number(draw: Draw, low: float) -> float:
    return round(low + draw.below(80) / 100, 2)


ARMS = ["rank 1", "rank 3"]
STRICT = {"shrinks": False}
LAYERWISE = Task(
    number="6.1",
    title="Layer by layer, on the teacher's own input",
    functions=(f"{LOSSES}.layer_distance", f"{STAGES}.layers_at_work", f"{STAGES}.LayerDistillation.forward",
               "train.freezing.freeze"),
    learns="Each student layer learns alone: it gets what the teacher's layer got, so that no error reaches the next.",
    hint="layers_at_work: forward hooks see what goes into a layer and what comes out; take them away again, whatever "
    "happens. The loss is a sum over real tokens, a mean over layers. Each layer takes `positions` by name. "
    "freeze: `part_of` names a parameter's part; an old gradient is removed; it returns `counted(model)`, and the "
    "errors of the given docstring may be left alone.",
    hours=2,
    checks=(
        Check("the distance is a mean over channels, summed over real tokens", 5, distance, (1, 4)),
        Check("inputs and outputs of each layer, without gradients, and no hook stays", 6,
              objective("at_work", "layers_at_work", "3 layers", False), (2,)),
        Check("the loss, the student's gradients, and none of the teacher's", 9,
              objective("objective", "LayerDistillation.forward", "3 layers, a row with padding", True, factor=0.5),
              (3, 6)),
        Check("what is named learns, and nothing else; old gradients are gone", 5, frozen, (1, 2, 3), **STRICT),
    ),
    mistakes=a6_mistakes.LAYERWISE,
)  # fmt: skip

WORDS = Task(
    number="6.2",
    title="The teacher's whole distribution",
    functions=(f"{LOSSES}.divergence", f"{STAGES}.LogitDistillation.forward"),
    learns="KL from the teacher to the student, and why a temperature is squared.",
    hint="`log_softmax` of both, softened alike; p log(p / q) with p the teacher's. Gradients of softened logits are "
    "smaller by τ², hence the factor. forward: read both, keep real tokens only, score both (`score` takes [B, T, D]), "
    "the teacher without gradients.",
    hours=1.5,
    checks=(
        Check("KL(teacher ‖ student), summed over tokens", 6, divergence(1.0), (1, 3)),
        Check("softened by τ on both sides, and multiplied by τ²", 5, divergence(2.0), (1, 3)),
        Check("every real token counts and no padding; the student learns, the teacher doesn't", 9,
              objective("objective", "LogitDistillation.forward", "a row with padding", True, temperature=2.0), (3, 6)),
    ),
    mistakes=a6_mistakes.WORDS,
)  # fmt: skip

LORA = Task(
    number="6.3",
    title="Adapters",
    functions=(f"{ADAPTED}.__init__", f"{ADAPTED}.forward", f"{ADAPTED}.merged"),
    learns="A low-rank step starts at zero and can still learn, and in the end it is one matrix again.",
    hint="`super().__init__` on the meta device, then the plain layer's own weight and bias, not copies. lora_down "
    "[rank, In] starts uniform within ±1/√In from the generator, lora_up [Out, rank] at zero: were both zero, neither "
    "would ever get a gradient. The scale alpha / rank stands once. merged: a "
    "plain nn.Linear; the adapter stays as it is.",
    hours=2,
    checks=(
        Check("it starts as the plain layer, and one of its factors gets a gradient", 9,
              adapter("start", "rank 3 of a layer [6, 4]"), (2,), **STRICT),
        Check("it adds (alpha / rank) · up (down x)", 8, adapter("adapted", "other factors"), (1, 3)),
        Check("merged, a plain layer gives the same, and the adapted one is untouched", 8, adapter("merged", "merged"),
              (1, 3)),
    ),
    mistakes=a6_mistakes.LORA,
)  # fmt: skip


EVIDENCE = Task(
    number="6.4",
    title="An experiment, predicted first",
    functions=("experiment.predict", "experiment.run", "experiment.verdict"),
    learns="What counts as evidence: a prediction made before, several seeds, equal cost, and the word undecided.",
    hint="Write `predict` first, and don't mend it afterwards: it is the one answer here that need not be right. "
    "`torch.autograd.grad` gives both gradients at once; change `.data`, or work under torch.no_grad().",
    hours=4,
    checks=(
        Check("there is a prediction for each arm, a number above 0", 4,
              lambda seed, T: Question("predicted", {}, {"function": "experiment.predict", "arms": ARMS},
                                       "predict()"), (1,), **STRICT),
        Check("run trains by plain gradient descent, the same for the same seed", 10, trained, (0, 1, 25),
              tolerance=1e-7),
        Check("where no seed overlaps the lower arm is named", 5,
              judged("no overlap", lambda draw: dict(sorted(
                  {"a": [number(draw, 0.1), number(draw, 0.1)], "b": [number(draw, 1), number(draw, 1)]}.items(),
                  reverse=draw.below(2) > 0))), (1, 2, 3), **STRICT),
        Check("where seeds overlap it is undecided", 5,
              judged("an overlap", lambda draw: {"a": [0.1, number(draw, 1)], "b": [number(draw, 0.11), 2.5, 0.95]}),
              (1, 2), **STRICT),
        Check("one seed is refused", 3, judged("one seed", lambda draw: {"a": [0.1], "b": [number(draw, 1)] * 2}), (1,),
              **STRICT),
        Check("unequal budgets are refused", 3,
              judged("unequal", lambda draw: {"a": [0.1, 0.2], "b": [number(draw, 1)] * 2}, {"a": 200, "b": 100}), (1,),
              **STRICT),
    ),
    mistakes=a6_mistakes.EVIDENCE,
)  # fmt: skip

# The divergence from the student to the teacher.
REVERSED = (
    (LOSSES, "p_w (log p_w − log q_w),  ", "q_w (log q_w − log p_w),  "),
    (f"{LOSSES}.divergence", "KL(teacher ‖ student)", "KL(student ‖ teacher)"),
    (f"{LOSSES}.divergence", "log_p.exp() * (log_p - log_q)", "log_q.exp() * (log_q - log_p)"),
)

A6 = Assignment(
    name="A6",
    title="Distillation",
    summary="A student that learns from a teacher by layers and by words, adapters, and what counts as evidence.",
    modules=("train.objectives", "train.lora", "train.freezing"),
    own_files=("experiment.py",),
    tasks=(LAYERWISE, WORDS, LORA, EVIDENCE),
    also_blank=tuple(f"layers.fast.{name}" for name in FAST),
    gives_away=("A1", "A2", "A3", "A4"),
    variants=(
        Variant(
            "the other divergence",
            "The student's words weigh the divergence, not the teacher's: KL(student ‖ teacher).",
            tuple(Edit(where, right, wrong) for where, right, wrong in REVERSED),
        ),
    ),
)
