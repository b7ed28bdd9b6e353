"""What goes wrong in training, and the claim that catches each: right source, wrong source. See train_claims.py."""

from dataclasses import dataclass

from . import train_claims
from .editing import Edit, edited, find_module, known


@dataclass(frozen=True)
class WrongTraining:
    name: str
    edit: Edit
    claim: object

    def caught(self) -> bool:
        """A crash is not a catch: only an AssertionError of the claim is."""
        try:
            self.claim(edited(self.edit, self.edit.module))
        except AssertionError:
            return True
        return False


def wrong(name: str, where: str, right: str, instead: str, claim: str) -> WrongTraining:
    return shared(name, Edit(f"train.{where}", right, instead), claim)


def shared(name: str, edit: Edit, claim: str) -> WrongTraining:
    """A row whose edit stands elsewhere: see editing.known."""
    return WrongTraining(name, edit, getattr(train_claims, claim))


KL = "the_divergence_is_teacher_times_log_of_teacher_over_student"
DISTANCE = "the_layer_distance_is_a_mean_over_channels_summed_over_real_tokens"
ANSWERS = "only_answers_are_learnt"
OWN_INPUT = "each_layer_runs_on_the_teachers_own_input"
LOGITS = "every_real_token_is_distilled_and_no_padding"
FROZEN = "a_teacher_that_could_learn_is_refused"
LABELS = "answers_and_their_ends_have_labels_and_nothing_else"
TARGETS = "targets_are_the_next_tokens"
MERGED = "merged_gives_what_the_adapters_gave"
ADAPTER = "an_adapter_adds_its_scaled_product"
RATE = "the_rate_is_its_closed_form"
DECAY = "only_matrices_decay"
ACCUMULATION = "accumulation_gives_the_gradient_of_one_batch"
START = "a_linear_layer_starts_as_the_released_training_starts_it"
PARTS = "each_stage_learns_its_own_parts"

WRONG_TRAINING = (
    shared("the divergence is reversed", known("6.2", "the divergence is reversed"), KL),
    wrong("the temperature is not squared", "losses.divergence", "temperature**2", "temperature", KL),
    shared("the temperature softens the student only", known("6.2", "only the student is softened"), KL),
    wrong("the divergence is a mean", "losses.divergence", ".sum()", ".mean()", KL),
    shared("channels are summed", known("6.1", "channels are summed"), DISTANCE),
    shared("padding counts in the distance", known("6.1", "padding counts in the loss"), DISTANCE),
    wrong("answers are averaged in each pass", "losses.answer_loss", 'reduction="sum"', 'reduction="mean"',
          "the_answer_loss_is_minus_the_log_of_what_the_word_got"),
    wrong("the last piece is lost", "losses.over_pieces", "zip(*(x.split(piece) for x in rows), strict=True)",
          "list(zip(*(x.split(piece) for x in rows)))[:-1]", "pieces_give_what_all_rows_give"),
    shared("the student is fed its own outputs", known("6.1", "the student feeds itself"), OWN_INPUT),
    shared("a layer's error reaches the next",
          known("6.1", "the student feeds itself"), "errors_of_one_layer_do_not_reach_another"),
    shared("layers are summed, not averaged", known("6.1", "layers are summed"), OWN_INPUT),
    shared("the factor is lost", known("6.1", "the factor is lost"), OWN_INPUT),
    wrong("padding is distilled", "objectives.LogitDistillation.forward", "chosen(self.read(batch), batch.mask)",
          "self.read(batch).flatten(0, 1)[: batch.mask.sum()]", LOGITS),
    shared("the temperature is not used", known("6.2", "the temperature is not used"), LOGITS),
    wrong("padding counts among the tokens", "objectives.Objective.units", "int(batch.mask.sum())",
          "batch.mask.numel()", "a_batch_gives_what_its_rows_give_alone"),
    wrong("rows are counted as tokens", "objectives.LogitDistillation.units", "len(batch)", "super().units(batch)",
          LOGITS),
    wrong("prompts are learnt too", "objectives.AnswerTuning.forward", "targets = batch.targets",
          "targets = batch.ids.roll(-1, 1).masked_fill(~batch.mask, IGNORED)", ANSWERS),
    wrong("each token is held against itself", "objectives.AnswerTuning.forward", "batch.targets", "batch.labels",
          ANSWERS),
    wrong("all tokens are counted", "objectives.AnswerTuning.units", "(batch.targets != IGNORED)", "batch.mask",
          ANSWERS),
    wrong("a teacher may learn", "objectives.Objective.__init__", "if any(parameter.requires_grad", "if False and "
          "any(parameter.requires_grad", FROZEN),
    wrong("prompts have labels", "examples.spoken", "[IGNORED] * len(asked) + said", "asked + said", LABELS),
    wrong("the end of a turn is not learnt", "examples.spoken", "[IGNORED] * len(asked) + said",
          "[IGNORED] * len(asked) + said[:-1] + [IGNORED]", LABELS),
    wrong("the end of a turn stands twice", "examples.spoken", "asked = asked[1:]", "pass", LABELS),
    wrong("labels are not shifted", "examples.Batch.targets", "self.labels[:, 1:], torch.full_like(self.labels[:, :1]",
          "self.labels[:, :-1], torch.full_like(self.labels[:, :1]", TARGETS),
    wrong("rows are filled up on the left", "examples.collate", "slice(len(example.ids))",
          "slice(T - len(example.ids), T)", TARGETS),
    wrong("the adapter's scale is lost", "lora.Adapted.forward", "self.scale * ", "", ADAPTER),
    wrong("the scale is lost in merging", "lora.Adapted.merged", "self.scale * ", "", MERGED),
    wrong("the scale is the rank's share", "lora.Adapted.__init__", "alpha / rank", "rank / alpha", ADAPTER),
    shared("both halves of an adapter start at random", known("6.3", "both factors are random"), MERGED),
    wrong("merging forgets a bias", "lora.Adapted.merged", "requires_grad=self.weight.requires_grad), self.bias",
          "requires_grad=self.weight.requires_grad), None", MERGED),
    wrong("the first step has a rate of 0", "optimiser.rate", "(step + 1) / warm", "step / warm", RATE),
    wrong("the cosine begins with the warm-up", "optimiser.rate", "(step - warm) / (steps - warm)", "step / steps",
          RATE),
    wrong("the cosine ends a step early", "optimiser.rate", "/ (steps - warm)", "/ max(steps - warm - 1, 1)", RATE),
    wrong("everything decays", "optimiser.adamw", '"weight_decay": 0.0', '"weight_decay": weight_decay', DECAY),
    wrong("accumulation is not divided", "trainer.gradients", "group.count / units",
          "group.count / objective.units(batch)", ACCUMULATION),
    wrong("passes count alike, long or short", "trainer.gradients", "group.count / units",
          "group.count / objective.units(batch) / len(batches)", ACCUMULATION),
    wrong("β starts where chance puts it", "student.fresh", '".b_proj.weight", ', "", START),
    wrong("the convolution looks at the oldest tap", "student.fresh", "identity[..., -1]", "identity[..., 0]", START),
    wrong("the time step is not inverted", "student.fresh", "math.log(math.expm1(TIME_STEP))", "math.log(TIME_STEP)",
          START),
    wrong("window layers learn in the first stage", "freezing.part_of", 'if config.layer_types[layer] == '
          '"linear_attention"', "if True", PARTS),
    wrong("mixers are told by their matrices' names", "freezing.part_of", '".self_attn." in name', '"q_proj" in name',
          PARTS),
)  # fmt: skip


def real(row: WrongTraining):
    return find_module(row.edit.module)
