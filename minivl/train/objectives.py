"""What a stage minimises, as modules: a batch in, a sum of losses out, and how many units the sum is over.

An objective's submodules are the student and what learns `beside` it and is dropped at the end, so that whatever
spreads a module over processes sees one forward pass and all that learns; the teacher is out of its sight. The step's
loss is the sum over all its batches of `objective(batch)` divided by the sum of `objective.units(batch)`.

    stage 1a   LayerDistillation    per layer, on the teacher's own input to that layer; mean over layers, × factor
    stage 1b   LogitDistillation    KL(teacher ‖ student) of every next word
    2 and 3    AnswerTuning         cross-entropy of the answers' tokens
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..captured import recording
from ..model import InfiniteVL
from .examples import IGNORED, Batch
from .losses import answer_loss, divergence, layer_distance, over_pieces, rows_at_once


class Objective(nn.Module):
    per = "token"  # what a unit is, for those who read the log

    def __init__(self, student: InfiniteVL, teacher: InfiniteVL | None = None):
        super().__init__()
        self.student = student
        self.beside: nn.Module | None = None
        self._unseen = (teacher,)  # in a tuple, a module is no submodule: it is neither saved nor spread nor trained
        if teacher is not None:
            if any(parameter.requires_grad for parameter in teacher.parameters()):
                raise ValueError(
                    "the teacher has parameters that learn; a teacher is frozen: teacher.requires_grad_(False)"
                )
            if teacher.config.vocab_size != student.config.vocab_size:
                raise ValueError(
                    f"the teacher has a vocabulary of {teacher.config.vocab_size}; the student's is "
                    f"{student.config.vocab_size}, and they should be the same"
                )

    @property
    def teacher(self) -> InfiniteVL | None:
        return self._unseen[0]

    def described(self) -> str:
        """What must be the same for a run to go on."""
        return type(self).__name__

    def units(self, batch: Batch) -> int:
        """What the sum of this batch is divided by, once all batches of a step are summed."""
        return int(batch.mask.sum())

    def reaches(self, name: str) -> bool:
        """Whether this parameter of the student's has any say in the loss."""
        return True

    def read(self, batch: Batch) -> Tensor:
        """The student's vectors. Where eyes learn in several processes, one without a picture looks at a blank one:
        each process must have a gradient for every parameter that any of them has one for."""
        x = self.student.read(batch.ids, **batch.arguments)
        eyes = self.student.model.visual
        if batch.pixels is None and dist.is_initialized() and any(y.requires_grad for y in eyes.parameters()):
            side = eyes.config.spatial_merge_size
            blank = torch.zeros(side**2, eyes.config.patch_width, dtype=self.student.dtype, device=x.device)
            x = x + 0 * eyes(blank, torch.tensor([[1, side, side]], device=x.device)).sum().to(x.dtype)
        return x

    def forward(self, batch: Batch) -> Tensor:
        raise NotImplementedError


def chosen(x: Tensor, which: Tensor, *, otherwise: float = 0) -> Tensor:
    """x's tokens where `which` is True, one after another. A recorded pass takes all tokens, whose number it knows:
    those that were not chosen are `otherwise`, of which no loss here makes anything."""
    if not recording(x):
        return x[which]
    return x.masked_fill(~(which if x.ndim == which.ndim else which[..., None]), otherwise).flatten(0, 1)


class LayerDistillation(Objective):
    """Each student layer on the teacher's own input to it. Errors of one layer never reach the next."""

    def __init__(self, student: InfiniteVL, teacher: InfiniteVL, *, factor: float = 1.0):
        super().__init__(student, teacher)
        if (found := len(student.config.layer_types)) != (wanted := len(teacher.config.layer_types)):
            raise ValueError(f"the student has {found} layers and the teacher {wanted}; they should be as many")
        self.factor = factor

    def reaches(self, name: str) -> bool:
        return name.startswith("model.language_model.layers.")

    def forward(self, batch: Batch) -> Tensor:
        taken = layers_at_work(self.teacher, batch)
        layers = self.student.model.language_model.layers
        total = sum(
            layer_distance(layer(x, positions=batch.positions), out, batch.mask)
            for layer, (x, out) in zip(layers, taken, strict=True)
        )
        return self.factor * total / len(layers)


@torch.no_grad()
def layers_at_work(model: InfiniteVL, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """What goes into each of the model's layers, and what comes out, as it reads this batch."""
    taken: list[tuple[Tensor, Tensor]] = []
    layers = model.model.language_model.layers
    hooks = [layer.register_forward_hook(lambda _, given, out: taken.append((given[0], out))) for layer in layers]
    try:
        model.read(batch.ids, **batch.arguments)
    finally:
        for hook in hooks:
            hook.remove()
    return taken


class LogitDistillation(Objective):
    """KL of the whole distribution over next words, at every real token.

    `per` "token" divides by all tokens, as the paper does, with temperature 1; `per` "row" divides by rows only, as
    the released code does, with temperature 2.
    """

    def __init__(self, student: InfiniteVL, teacher: InfiniteVL, *, temperature: float = 1.0, per: str = "token"):
        super().__init__(student, teacher)
        if per not in ("token", "row"):
            raise ValueError(f'per is {per!r}; it should be "token" or "row"')
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature!r}; it should be above 0")
        self.temperature, self.per = temperature, per

    def units(self, batch: Batch) -> int:
        return len(batch) if self.per == "row" else super().units(batch)

    def forward(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            taught = chosen(self.teacher.read(batch.ids, **batch.arguments), batch.mask)
        learnt = chosen(self.read(batch), batch.mask)

        def loss(learnt: Tensor, taught: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = self.teacher.score(taught[None])[0]
            return divergence(self.student.score(learnt[None])[0], wanted, temperature=self.temperature)

        return over_pieces(loss, learnt, taught, piece=rows_at_once(self.student.config.vocab_size))


class AnswerTuning(Objective):
    """Cross-entropy of the tokens to be said. Only they are scored, which spares most of the logits."""

    per = "answer token"

    def units(self, batch: Batch) -> int:
        return int((batch.targets != IGNORED).sum())

    def forward(self, batch: Batch) -> Tensor:
        targets = batch.targets
        said = targets != IGNORED
        vectors, targets = chosen(self.read(batch), said), chosen(targets, said, otherwise=IGNORED)

        def loss(x: Tensor, wanted: Tensor) -> Tensor:
            return answer_loss(self.student.score(x[None])[0], wanted)

        return over_pieces(loss, vectors, targets, piece=rows_at_once(self.student.config.vocab_size))
