"""Assignment 2: the gated delta rule, decays within a chunk, the chunked form, properties that catch mistakes."""

import torch
from torch import Tensor

from . import a2_mistakes
from .asking import answered
from .inputs import Draw, recurrence
from .loading import loaded
from .rules import ACROSS, CHUNK, EQUAL, counted, drawn
from .sources import Edit, Tree, edited
from .tasks import Assignment, Check, Question, Task, Variant

GATED = "ops.gated_delta_rule"
IN_CHUNKS = {"chunk": CHUNK}
WIDE = {"beta": "wide", "decay": "wide"}


def one_by_one(seed: int, T: int) -> Question:
    return Question("steps", recurrence(seed, T, **WIDE), {"function": f"{GATED}.step", "scale": 0.7}, "token by token")


RECURRENT = Task(
    number="2.1",
    title="Decay, predict, write",
    functions=(f"{GATED}.recurrent", f"{GATED}.step"),
    learns="The order of the three: the state decays first, and the prediction is read from the decayed state.",
    hint="log_decay is log α: exp makes α of it. `step` may call `recurrent`; it must change the given state in place, "
    "`state.copy_(…)`, since a decoder's memory keeps its address. `unit` normalises where `normalize_qk` says so.",
    hours=1.5,
    checks=(
        Check(
            "recurrent decays, predicts, writes, reads, in this order",
            8,
            drawn(f"{GATED}.recurrent", "no starting state", WIDE | {"state": False}),
            EQUAL,
        ),
        Check(
            "it goes on from a given state, cut anywhere",
            4,
            drawn(f"{GATED}.recurrent", "a starting state, cut twice, V = 3", WIDE | {"V": 3}, cut=True),
            ACROSS,
        ),
        Check(
            "normalize_qk brings q and k to length 1 first",
            3,
            drawn(f"{GATED}.recurrent", "keys of length √2", WIDE | {"keys": "long"}, {"normalize_qk": True}),
            EQUAL,
        ),
        Check("step gives the same token by token, and changes the given state in place", 5, one_by_one, EQUAL,
              oracle=f"{GATED}.step"),
    ),
    mistakes=a2_mistakes.RECURRENT,
)  # fmt: skip


def gates(of: slice, about: str, decay: str):
    """Chunks [3, 2, 2, C] of gates; `of` says which of the three answers is looked at."""

    def ask(seed: int, C: int) -> Question:
        given = torch.stack([recurrence(seed + n, C, decay=decay)["log_decay"].mT for n in range(3)])
        options = {"function": f"{GATED}.chunk_decays", "parts": [of.start, of.stop]}
        return Question("values", {"log_decay": given.contiguous()}, options, f"chunks of {C}, {about}")

    return ask


DECAYS = Task(
    number="2.2",
    title="Decay within a chunk",
    functions=(f"{GATED}.chunk_decays",),
    learns="Between two tokens of a chunk the decay is exp of a difference of running sums, and only the lower "
    "triangle exists.",
    hint="A running sum over the last axis, then all differences G_i − G_j at once. Above the diagonal they are "
    "positive and their exponential overflows: mask first (with −∞), then exp. Each chunk's sum starts anew.",
    hours=2,
    checks=(
        Check("decay[i, j] is exp(G_i − G_j) for j ≤ i, else 0", 9, gates(slice(0, 1), "ordinary gates", "wide"),
              (1, 3, 8)),
        Check("decay_in is exp(G_i), decay_out is exp(G_C − G_j)", 6, gates(slice(1, 3), "ordinary gates", "wide"),
              (1, 3, 8)),
        Check("strong decay gives zeros, and neither inf nor NaN", 5, gates(slice(0, 3), "gates down to −20", "strong"),
              (8, 160)),
    ),
    mistakes=a2_mistakes.DECAYS,
)  # fmt: skip

CHUNKED = Task(
    number="2.3",
    title="The chunked form",
    functions=(f"{GATED}.chunked",),
    learns="Decay stands in three places: between two tokens, from the chunk's start to a token, and from a token to "
    "its end.",
    hint="Begin with the delta rule's chunked form (A1's 1.4) and ask of each product: how much has faded between the "
    "two? By hand: the same key twice, β = 1, α = 0.5, v = 1 then 5: token 2 finds 0.5, writes 4.5: the state is 5.",
    hours=5,
    checks=(
        Check("chunked gives what the recurrence gives, T a multiple of the chunk", 10,
              drawn(f"{GATED}.chunked", f"whole chunks of {CHUNK}", WIDE | {"state": False}, IN_CHUNKS),
              (CHUNK, 3 * CHUNK), oracle=f"{GATED}.recurrent"),
        Check("and where it is not a multiple", 6,
              drawn(f"{GATED}.chunked", f"chunks of {CHUNK} and a rest", WIDE | {"state": False}, IN_CHUNKS),
              (3, CHUNK + 1, 3 * CHUNK - 1), oracle=f"{GATED}.recurrent"),
        Check("it goes on from a given state, cut anywhere, q and k normalised", 9,
              drawn(f"{GATED}.chunked", "a starting state, cut twice", WIDE | {"keys": "long"},
                    IN_CHUNKS | {"normalize_qk": True}, cut=True),
              (2 * CHUNK, 29), oracle=f"{GATED}.recurrent"),
        Check("strong decay gives neither inf nor NaN", 5,
              drawn(f"{GATED}.chunked", "gates down to −20", {"beta": "wide", "decay": "strong"}, {"chunk": 64}),
              (20, 100), oracle=f"{GATED}.recurrent"),
        Check("it is exact where one key comes again and again", 5,
              drawn(f"{GATED}.chunked", "one key for all tokens, β = 1, α = 1",
                    {"beta": "one", "decay": "one", "keys": "same"}, {"chunk": 32}),
              (5, 40), oracle=f"{GATED}.recurrent", tolerance=1e-7),
        counted(f"{GATED}.chunked", 5, beta="wide", decay="wide"),
    ),
    mistakes=a2_mistakes.CHUNKED,
)  # fmt: skip


PRIVATE = ("the Gram matrix is ungated", "the prediction's keys (W) carry no decay",
           "the keys of the state carry no decay",
           "the state carries no decay", "the state is reset at each chunk", "the mask carries no decay",
           "what the state holds is not erased", "the ragged tail is dropped")  # fmt: skip
RIGHT = "right"


def versions(name: str, about: str):
    """A right and a wrong version, in an order that the student's code is not told."""

    def ask(seed: int, _: int) -> Question:
        order = [RIGHT, name] if Draw(seed).below(2) else [name, RIGHT]
        private = {"versions": order, "expected": {"caught": torch.tensor([int(which != RIGHT) for which in order])}}
        options = {"function": "properties.check", "subject": f"{GATED}.chunked", "versions": len(order)}
        return Question("properties", {}, options, about, private)

    return ask


def right_ones(seed: int, _: int) -> Question:
    private = {"versions": [RIGHT], "expected": {"caught": torch.tensor([0])}}
    options = {"function": "properties.check", "subject": f"{GATED}.chunked", "versions": 1}
    return Question("properties", {}, options, "a right version", private)


def run_version(reference: Tree, question: Question, which: str, tensors: dict[str, Tensor], **options) -> dict:
    """Run the version that this question has at this place, here, where the student's code can't look into it."""
    if sum(x.numel() for x in tensors.values()) > 100_000:
        raise ValueError("that is too large a question for a property: a few tokens show all")
    name = question.private["versions"][int(which)]
    wrong = next((found for found in CHUNKED.mistakes if found.name == name), None)
    try:
        tree = edited(reference, *wrong.edits) if wrong else reference
    except LookupError:  # in a variant that it can't be made in: one that can in its place
        tree = edited(reference, Edit(f"{GATED}.chunked", "v[n] - k_in @ state", "v[n]"))
    return answered(loaded(tree).find, "rule", tensors, {"function": f"{GATED}.chunked"} | options)


CATCHING = Task(
    number="2.4",
    title="Catch what is wrong",
    functions=("properties.check",),
    learns="Which inputs let a wrong version pass: short ones, empty states, α = 1.",
    hint="One comparison with the recurrence catches all of them, on the right inputs. Several chunks and a rest, a "
    "starting state that is not zero, gates that vary. The grader tries your properties on wrong versions that you "
    "don't see, and on right ones.",
    hours=2,
    remote=run_version,
    checks=(
        Check("right versions pass", 4, right_ones, (1,), oracle="none", judge="caught", shrinks=False),
        *(
            Check(f"wrong version {i} is caught, and a right one is not", 2, versions(name, f"wrong version {i}"), (1,),
                  oracle="none", judge="caught", shrinks=False, public=False)
            for i, name in enumerate(PRIVATE, start=1)
        ),
    ),
    mistakes=a2_mistakes.CATCHING,
)  # fmt: skip

# The prediction is read before the state decays.
UNDECAYED = (
    ("", "Order matters: the state\ndecays first, and the prediction is read from the decayed state.",
     "Order matters: the\nprediction is read from the state before it decays."),
    ("", "delta_t = β_t (v_t − S'_tᵀ k_t)", "delta_t = β_t (v_t − S_{t−1}ᵀ k_t)"),
    ("", "Equivalently S_t = α_t (I − β_t k_t k_tᵀ) S_{t−1}", "Equivalently S_t = (α_t I − β_t k_t k_tᵀ) S_{t−1}"),
    ("", "tril(β_i Γ_ij k_i·k_j, −1): what", "tril(β_i Γ_{i−1,j} k_i·k_j, −1): what"),
    (".recurrent", "S_t = S' + k_t (β_t (v_t − S'ᵀ k_t))ᵀ", "S_t = S' + k_t (β_t (v_t − S_{t−1}ᵀ k_t))ᵀ"),
    (".recurrent",
     "        state = log_decay[:, t, :, None, None].exp() * state\n"
     '        found = torch.einsum("BHKV,BHK->BHV", state, k[:, t])\n',
     '        found = torch.einsum("BHKV,BHK->BHV", state, k[:, t])\n'
     "        state = log_decay[:, t, :, None, None].exp() * state\n"),
    (".chunked", "delta = mix (V − e^G K S)", "delta = mix (V − e^{G − log α} K S)"),
    (".chunked", "    gram = (beta", "    decay, within = decay.roll(1, -2), decay\n    gram = (beta"),
    (".chunked", "    scores = scale", "    decay = within\n    scores = scale"),
    (".chunked", "        residual =", "        k_in = (-log_decay[n]).exp()[..., None] * k_in\n        residual ="),
)  # fmt: skip

A2 = Assignment(
    name="A2",
    title="The gated delta rule",
    summary="A state that fades, its chunked form, and properties that tell a right one from a wrong one.",
    modules=("ops.gated_delta_rule",),
    own_files=("properties.py",),
    tasks=(RECURRENT, DECAYS, CHUNKED, CATCHING),
    also_blank=tuple(
        f"ops.delta_rule.{name}" for name in ("householder", "recurrent", "ut_transform", "wy", "chunked")
    ),
    variants=(
        Variant(
            "decay after the prediction",
            "The prediction is read from the state before it decays.",
            tuple(Edit(f"{GATED}{where}", right, wrong) for where, right, wrong in UNDECAYED),
        ),
    ),
)
