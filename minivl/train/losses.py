"""The three losses, as sums: over tokens or over rows, to be divided by how many there are in a whole step.

A step may be cut into several passes and spread over several processes. The mean of their means is not the step's
mean where answers differ in length; a sum divided once is, so that accumulation and more processes change nothing.

    layers     Σ_t mean over channels of (student's layer(x_t) − teacher's layer(x_t))²       x the teacher's own
    logits     τ² Σ_t Σ_w p_w (log p_w − log q_w),      p = softmax(teacher / τ), q = softmax(student / τ)
    answers    −Σ_t log softmax(logits_t)[target_t],    over tokens that are followed by one to be said

    code        shape                dtype                what
    student     [B, T, D or words]   any float            the learner's output
    teacher     likewise             any float            what it should be
    mask        [B, T] or None       bool                 True where a token is real
    targets     tokens               int64                the next tokens
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.checks import state_dtype

PIECE = 1024  # rows
LOGITS = 1 << 26  # a quarter of a gigabyte


def layer_distance(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Σ over real tokens of the mean over channels of (student − teacher)², in at least float32."""
    wide = state_dtype(student.dtype)
    squared = (student.to(wide) - teacher.to(wide)).square().mean(-1)
    return squared.sum() if mask is None else squared.masked_fill(~mask, 0).sum()


def divergence(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """τ² Σ over tokens of KL(teacher ‖ student), both softened by τ, in at least float32."""
    wide = state_dtype(student.dtype)
    log_q = F.log_softmax(student.to(wide) / temperature, dim=-1)
    log_p = F.log_softmax(teacher.to(wide) / temperature, dim=-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum()


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """−Σ log softmax(logits)[target], in at least float32."""
    return F.cross_entropy(logits.to(state_dtype(logits.dtype)), targets, reduction="sum")


def rows_at_once(words: int) -> int:
    """Rows whose logits over so many words exist at once: PIECE, or more where they are few."""
    return max(PIECE, LOGITS // words)


def over_pieces(loss, *rows: Tensor, piece: int = PIECE) -> Tensor:
    """Σ loss(piece of rows): logits of a large vocabulary exist for `piece` rows at a time, and are made again for
    the gradient."""
    if len(rows[0]) <= piece:
        return loss(*rows)
    pieces = zip(*(x.split(piece) for x in rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.stack([loss(*some) for some in pieces]).sum()
    checkpoint = torch.utils.checkpoint.checkpoint
    return torch.stack(
        [checkpoint(loss, *some, use_reentrant=False, preserve_rng_state=False) for some in pieces]
    ).sum()
