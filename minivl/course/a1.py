"""Assignment 1: linear attention and the delta rule, each as a recurrence and chunk by chunk."""

from . import a1_mistakes
from .inputs import recurrence
from .rules import ACROSS, CHUNK, EQUAL, counted, drawn
from .sources import Edit
from .tasks import Assignment, Check, Question, Task, Variant

LINEAR, DELTA = "ops.linear_attention", "ops.delta_rule"
IN_CHUNKS = {"chunk": CHUNK}


def householder(seed: int, T: int) -> Question:
    drawn = recurrence(seed, T, beta="wide", keys="long")
    return Question(
        "values", {"k": drawn["k"], "beta": drawn["beta"]}, {"function": f"{DELTA}.householder"}, "keys of length √2"
    )


RECURRENT = Task(
    number="1.1",
    title="Linear attention, token by token",
    functions=(f"{LINEAR}.recurrent",),
    learns="A state is a sum of outer products: constant memory, however long the past.",
    hint="One einsum writes k_t v_tᵀ into the state, one reads it with q_t. Write first, then read: "
    "the token sees itself. Keep the outputs in a list; `stack_time` makes [B, T, H, V] of it.",
    hours=1,
    checks=(
        Check(
            "each output is the sum of v_j (q_t·k_j) over j ≤ t, from an empty state",
            7,
            drawn(f"{LINEAR}.recurrent", "no starting state", {"state": False}),
            EQUAL,
        ),
        Check(
            "it goes on from a given state",
            4,
            drawn(f"{LINEAR}.recurrent", "a starting state, K = 4, V = 3", {"V": 3}),
            EQUAL,
        ),
        Check(
            "cut anywhere and continued, it gives the same",
            4,
            drawn(f"{LINEAR}.recurrent", "cut twice", {}, cut=True),
            ACROSS,
        ),
    ),
    mistakes=a1_mistakes.RECURRENT,
)  # fmt: skip

PARALLEL = Task(
    number="1.2",
    title="The same at once, and chunk by chunk",
    functions=(f"{LINEAR}.parallel", f"{LINEAR}.chunked"),
    learns="A product may be bracketed in two ways: all pairs at once, or a state first. Chunks use both.",
    hint="parallel: keep the diagonal, a token sees itself. chunked: within a chunk as parallel, the earlier chunks "
    "through the state. `to_chunks` fills the last chunk with zeros, which write nothing; `from_chunks` cuts them off.",
    hours=2,
    checks=(
        Check(
            "parallel gives what the recurrence gives",
            10,
            drawn(f"{LINEAR}.parallel", "all at once", {"state": False}),
            EQUAL,
            oracle=f"{LINEAR}.recurrent",
        ),
        Check(
            "chunked gives what the recurrence gives, T a multiple of the chunk",
            6,
            drawn(f"{LINEAR}.chunked", f"whole chunks of {CHUNK}", {"state": False}, IN_CHUNKS),
            (CHUNK, 3 * CHUNK),
            oracle=f"{LINEAR}.recurrent",
        ),
        Check(
            "and where it is not a multiple",
            5,
            drawn(f"{LINEAR}.chunked", f"chunks of {CHUNK} and a rest", {"state": False}, IN_CHUNKS),
            (3, CHUNK + 1, 3 * CHUNK - 1),
            oracle=f"{LINEAR}.recurrent",
        ),
        Check(
            "chunked goes on from a given state, cut anywhere",
            4,
            drawn(f"{LINEAR}.chunked", "a starting state, cut twice", {}, IN_CHUNKS, cut=True),
            (2 * CHUNK, 29),
            oracle=f"{LINEAR}.recurrent",
        ),
        counted(f"{LINEAR}.chunked", 5),
    ),
    mistakes=a1_mistakes.PARALLEL,
)  # fmt: skip

DELTA_RECURRENT = Task(
    number="1.3",
    title="Erase, then write",
    functions=(f"{DELTA}.householder", f"{DELTA}.recurrent"),
    learns="The delta rule writes only what is missing: a Householder factor erases, an outer product writes.",
    hint="Read what the state answers for k_t before you change it. Keys come as they are: don't normalise them.",
    hours=1.5,
    checks=(
        Check("householder is I − β k kᵀ, for keys of any length", 7, householder, (1, 3, 5)),
        Check(
            "recurrent erases, then writes",
            9,
            drawn(f"{DELTA}.recurrent", "no starting state", {"beta": "wide", "state": False}),
            EQUAL,
        ),
        Check(
            "written twice with β = 1, a unit key answers with the newer value",
            4,
            drawn(f"{DELTA}.recurrent", "one key for all tokens, β = 1", {"beta": "one", "keys": "same"}),
            EQUAL,
        ),
        Check(
            "it goes on from a given state, cut anywhere",
            5,
            drawn(f"{DELTA}.recurrent", "a starting state, cut twice", {"beta": "wide", "V": 3}, cut=True),
            ACROSS,
        ),
    ),
    mistakes=a1_mistakes.DELTA_RECURRENT,
)  # fmt: skip

DELTA_CHUNKED = Task(
    number="1.4",
    title="The WY form",
    functions=(f"{DELTA}.chunked",),
    helpers=(f"{DELTA}.ut_transform", f"{DELTA}.wy"),
    learns="A chunk's corrections depend on each other through one triangular system, which is solved exactly.",
    hint="By hand first: the same key twice, β = 1, v = 1 then 5. Token 2 finds 1 and writes 4. Which matrix, applied "
    "to (1, 5), gives (1, 4)? Its inverse is I + gram. `torch.linalg.solve_triangular` takes `unitriangular=True`. "
    "`ut_transform` and `wy` are helpers that you may write, or leave.",
    hours=4,
    checks=(
        Check(
            "chunked gives what the recurrence gives, T a multiple of the chunk",
            8,
            drawn(f"{DELTA}.chunked", f"whole chunks of {CHUNK}", {"beta": "wide", "state": False}, IN_CHUNKS),
            (CHUNK, 3 * CHUNK),
            oracle=f"{DELTA}.recurrent",
        ),
        Check(
            "and where it is not a multiple",
            5,
            drawn(f"{DELTA}.chunked", f"chunks of {CHUNK} and a rest", {"beta": "wide", "state": False}, IN_CHUNKS),
            (3, CHUNK + 1, 3 * CHUNK - 1),
            oracle=f"{DELTA}.recurrent",
        ),
        Check(
            "it goes on from a given state, cut anywhere",
            6,
            drawn(f"{DELTA}.chunked", "a starting state, cut twice", {"beta": "wide"}, IN_CHUNKS, cut=True),
            (2 * CHUNK, 29),
            oracle=f"{DELTA}.recurrent",
        ),
        Check(
            "it is exact where one key comes again and again",
            6,
            drawn(f"{DELTA}.chunked", "one key for all tokens, β = 1", {"beta": "one", "keys": "same"}, {"chunk": 32}),
            (5, 40),
            oracle=f"{DELTA}.recurrent",
            tolerance=1e-7,
        ),
        counted(f"{DELTA}.chunked", 5, beta="wide"),
    ),
    mistakes=a1_mistakes.DELTA_CHUNKED,
)  # fmt: skip

# The read-out comes before the write: a token does not see itself.
BEFORE = (
    ("linear_attention", "out_t = Σ_{j≤t} (q_t·k_j) v_j", "out_t = Σ_{j<t} (q_t·k_j) v_j"),
    ("linear_attention", "v_tᵀ        out_t = scale · S_tᵀ q_t", "v_tᵀ        out_t = scale · S_{t−1}ᵀ q_t"),
    ("linear_attention.recurrent", "out_t = scale · S_tᵀ q_t", "out_t = scale · S_{t−1}ᵀ q_t"),
    ("linear_attention.recurrent",
     '        state = state + torch.einsum("BHK,BHV->BHKV", k[:, t], v[:, t])\n'
     '        out.append(scale * torch.einsum("BHKV,BHK->BHV", state, q[:, t]))\n',
     '        out.append(scale * torch.einsum("BHKV,BHK->BHV", state, q[:, t]))\n'
     '        state = state + torch.einsum("BHK,BHV->BHKV", k[:, t], v[:, t])\n'),
    ("linear_attention.parallel", "out = tril(scale · Q Kᵀ) V", "out = tril(scale · Q Kᵀ, −1) V"),
    ("linear_attention.parallel", ".tril()", ".tril(-1)"),
    ("linear_attention.chunked", "tril(Q Kᵀ)", "tril(Q Kᵀ, −1)"),
    ("linear_attention.chunked", ".tril()", ".tril(-1)"),
    ("delta_rule", "delta_tᵀ        out_t = scale · S_tᵀ q_t", "delta_tᵀ        out_t = scale · S_{t−1}ᵀ q_t"),
    ("delta_rule.recurrent", "out_t = scale · S_tᵀ q_t", "out_t = scale · S_{t−1}ᵀ q_t"),
    ("delta_rule.recurrent",
     '        state = state + torch.einsum("BHK,BHV->BHKV", k[:, t], delta)\n'
     '        out.append(scale * torch.einsum("BHKV,BHK->BHV", state, q[:, t]))\n',
     '        out.append(scale * torch.einsum("BHKV,BHK->BHV", state, q[:, t]))\n'
     '        state = state + torch.einsum("BHK,BHV->BHKV", k[:, t], delta)\n'),
    ("delta_rule.chunked", "tril(Q Kᵀ)", "tril(Q Kᵀ, −1)"),
    ("delta_rule.chunked", ".tril()", ".tril(-1)"),
)  # fmt: skip

A1 = Assignment(
    name="A1",
    title="Linear attention and the delta rule",
    summary="Two rules for writing into a matrix, each token by token and chunk by chunk.",
    modules=("ops.linear_attention", "ops.delta_rule"),
    tasks=(RECURRENT, PARALLEL, DELTA_RECURRENT, DELTA_CHUNKED),
    variants=(
        Variant(
            "read before write",
            "A token does not see itself: every output is read from the state before the token's own write.",
            tuple(Edit(f"ops.{where}", right, wrong) for where, right, wrong in BEFORE),
        ),
    ),
)
