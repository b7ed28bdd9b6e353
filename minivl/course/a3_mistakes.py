"""What goes wrong in assignment 3: small wrong versions of the right source, and what the grader says to each."""

from .sources import Edit
from .tasks import Mistake

WINDOW = "ops.sliding_window"


def mistake(name: str, says: str, where: str, right: str, wrong: str) -> Mistake:
    return Mistake(
        name, says, (Edit(where if "." in where and where[0] == "m" else f"{WINDOW}.{where}", right, wrong),)
    )


BANDED = (
    mistake("the window is one too wide",
            "Query i sees key i − W: visible iff 0 ≤ i − j < W, and yours has ≤ W.",
            "visible", "distance < window", "distance <= window"),
    mistake("the window is one too narrow",
            "Query i does not see key i − W + 1: visible iff 0 ≤ i − j < W, the token itself counted.",
            "visible", "distance < window", "distance < max(window - 1, 1)"),
    mistake("the next token is visible", "Query i sees key i + 1: visible iff 0 ≤ i − j.",
            "visible", "distance >= 0", "distance >= -1"),
    mistake("a token does not see itself", "Query i does not see key i: visible iff 0 ≤ i − j, zero allowed.",
            "visible", "distance >= 0", "distance > 0"),
    mistake("heads are tiled",
            "Heads are tiled instead of grouped: query head h reads key head h // group, so repeat_interleave.",
            "banded", "k.to(dtype).repeat_interleave(group, 2), v.to(dtype).repeat_interleave(group, 2)",
            "k.to(dtype).repeat(1, 1, group, 1), v.to(dtype).repeat(1, 1, group, 1)"),
    mistake("scores are not scaled", "Without a scale given, scores are multiplied by K^−½.",
            "banded", "q.shape[-1] ** -0.5 if scale", "1.0 if scale"),
    mistake("the mask comes after the softmax",
            "Weights don't sum to 1: mask with −∞ before the softmax, not with 0 after it.",
            "banded", "    return torch.einsum(\"BHij,BjHK->BiHK\", scores.softmax(-1), v)",
            "    weights = (scale * torch.einsum(\"BiHK,BjHK->BHij\", q, k)).softmax(-1) * (scores > -torch.inf)\n"
            "    return torch.einsum(\"BHij,BjHK->BiHK\", weights, v)"),
)  # fmt: skip

WRITE = (
    mistake("the ring wraps one too late", "First wrong after R writes: slot = position mod R.",
            "Ring.write", "number % self.keys.shape[1]",
            "(number + number // self.keys.shape[1]) % self.keys.shape[1]"),
    mistake("the ring wraps one too early", "First wrong after R − 1 writes: slot = position mod R, not R − 1.",
            "Ring.write", "number % self.keys.shape[1]", "number % max(self.keys.shape[1] - 1, 1)"),
    mistake("the ring is as long as the window", "First wrong after W writes: slot = position mod R, R slots.",
            "Ring.write", "number % self.keys.shape[1]", "number % self.window"),
    mistake("the counter stands still", "Every write goes to slot 0: `seen` counts what was written.",
            "Ring.write", "self.seen += k.shape[1]", "self.seen += 0"),
    mistake("the counter counts calls", "`seen` counts calls, not tokens: add T.",
            "Ring.write", "self.seen += k.shape[1]", "self.seen += 1"),
    mistake("values are stored as keys", "Values are stored where keys belong, or keys twice.",
            "Ring.write", "self.values.scatter_(1, _like(slot, v), v.detach())",
            "self.values.scatter_(1, _like(slot, v), k.detach())"),
    mistake("positions hold slots", "`positions` holds slots: it should hold the tokens' numbers.",
            "Ring.write", "self.positions.scatter_(1, slot, stored_number)", "self.positions.scatter_(1, slot, slot)"),
    mistake("a write may be one too long",
            "A write may be R − W + 1 long: one more overwrites a token that its first query still sees.",
            "Ring.longest_write", "self.window + 1", "self.window + 2"),
    mistake("a write may be as long as the ring",
            "A write as long as the ring overwrites what its first queries still see: R − W + 1.",
            "Ring.longest_write", "self.keys.shape[1] - self.window + 1", "self.keys.shape[1]"),
)  # fmt: skip

RING = (
    mistake("the slot is taken for the position",
            "First wrong after the first wrap: a slot's place is not its position. Use memory.positions.",
            "ring", "visible(number, memory.positions, memory.window)",
            "visible(number, torch.arange(slots).expand(batch, -1), memory.window)"),
    mistake("empty slots are visible", "Empty slots are seen: their position is −1, which nobody sees.",
            "ring", "visible(number, memory.positions, memory.window)",
            "visible(number, memory.positions.clamp(min=0), memory.window)"),
    mistake("the whole ring is visible",
            "Query i sees all R slots: of a ring with slack only the newest W positions are visible.",
            "ring", "visible(number, memory.positions, memory.window)",
            "visible(number, memory.positions, slots)"),
    mistake("queries have the newest number",
            "All queries of a write see what the last one sees: each has its own number.",
            "ring", "visible(number, memory.positions, memory.window)",
            "visible(number[:, -1:].expand_as(number), memory.positions, memory.window)"),
    mistake("too long a write is taken", "A write of more than R − W + 1 tokens should be refused with a ValueError.",
            "ring", "if memory.longest_write < T:", "if False:"),
    mistake("scores are not scaled", "Without a scale given, scores are multiplied by K^−½.",
            "ring", "attend(q, keys, values, seen_by, scale)", "attend(q, keys, values, seen_by, 1.0)"),
)  # fmt: skip

REMEMBER = (
    mistake("the clone is an alias", "What happens to the clone happens to its source: copy the tensors, deeply.",
            "memory.Memory.clone", "copy.deepcopy(self)", "copy.copy(self)"),
    mistake("the clone's layers are aliases",
            "The clone has counters of its own but the source's rings: copy the layers, too.",
            "memory.Memory.clone", "return copy.deepcopy(self)",
            "other = copy.copy(self); other.seen, other.next_position = self.seen.clone(), "
            "self.next_position.clone(); return other"),
    mistake("slot positions are not resumed", "The rings' positions are not resumed: all their slots seem empty.",
            "memory.Memory.resume", "x.copy_(tensors[name])",
            'x.copy_(x if "positions" in name else tensors[name])'),
    mistake("the next position is not saved",
            "The position is not saved: a resumed memory should go on where it stopped, `next_position` and `seen`.",
            "memory.Memory.resume", "x.copy_(tensors[name])",
            'x.copy_(x if name in ("seen", "next_position") else tensors[name])'),
    mistake("only the counters are resumed", "The rings' keys and values are not resumed.",
            "memory.Memory.resume", "x.copy_(tensors[name])",
            'x.copy_(x if name.endswith(("keys", "values")) else tensors[name])'),
)  # fmt: skip
