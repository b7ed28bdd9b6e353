"""What goes wrong in assignment 1: small wrong versions of the right source, and what the grader says to each."""

from .rules import CHUNK
from .sources import Edit
from .tasks import Mistake


def mistake(name: str, says: str, *edits: tuple[str, str, str]) -> Mistake:
    return Mistake(name, says, tuple(Edit(f"ops.{where}", right, wrong) for where, right, wrong in edits))


RECURRENT = (
    mistake(
        "it reads before it writes",
        "Your output is read from the state before the token's own write: write k_t v_tᵀ first, then read.",
        ("linear_attention.recurrent", "state, q[:, t])",
         'state - torch.einsum("BHK,BHV->BHKV", k[:, t], v[:, t]), q[:, t])'),
    ),
    mistake(
        "keys and values are swapped",
        "K and V are swapped: the state is [B, H, K, V], rows belong to keys.",
        ("linear_attention.recurrent", "k[:, t], v[:, t]", "v[:, t], k[:, t]"),
    ),
    mistake(
        "the state is ignored",
        "The given state is lost: start from `state`, not from zeros.",
        ("linear_attention.recurrent", "v, state=state)", "v)"),
    ),
)  # fmt: skip

PARALLEL = (
    mistake(
        "the mask lets the future in",
        "Your output before the last token changes when later tokens do: is your mask causal? `tril` keeps j ≤ t.",
        ("linear_attention.parallel", ".tril()", ""),
    ),
    mistake(
        "the mask is strict",
        "A token should see itself: your mask leaves out the diagonal.",
        ("linear_attention.parallel", ".tril()", ".tril(-1)"),
    ),
    mistake(
        "the mask within a chunk lets the future in",
        "Within a chunk, outputs change when later tokens do: is your mask causal? `tril` keeps j ≤ t.",
        ("linear_attention.chunked", ".tril()", ""),
    ),
    mistake(
        "the mask within a chunk is strict",
        "Within a chunk, a token should see itself: your mask leaves out the diagonal.",
        ("linear_attention.chunked", ".tril()", ".tril(-1)"),
    ),
    mistake(
        "the carry is added twice",
        "The carried state is added twice: S ← S + Kᵀ V, once a chunk.",
        ("linear_attention.chunked", "state = state +", "state = state + state +"),
    ),
    mistake(
        "the carry is lost",
        "Right in chunk 0, wrong from chunk 1: the carried state is lost. S ← S + Kᵀ V, not S ← Kᵀ V.",
        ("linear_attention.chunked", "state = state +", "state ="),
    ),
    mistake(
        "queries do not read the carry",
        "Each chunk answers from itself alone: add Q S, what the chunks before it left.",
        ("linear_attention.chunked", "q[n] @ state + scores", "scores"),
    ),
    mistake(
        "the ragged tail is dropped",
        f"Wrong only when T is not a multiple of the chunk ({CHUNK} here): the ragged tail.",
        ("linear_attention.chunked", "to_chunks(x.to(state.dtype), C) for x in (q, k, v))",
         "to_chunks((x * (torch.arange(x.shape[1]) < x.shape[1] // C * C)[:, None, None]).to(state.dtype), C)"
         " for x in (q, k, v))"),
    ),
)  # fmt: skip

DELTA_RECURRENT = (
    mistake(
        "householder normalises its key",
        "householder normalises the key: the rule takes keys as they come, and unit ones are the caller's business.",
        ("delta_rule.householder", "identity - beta",
         "identity - 1 / k.square().sum(-1)[..., None, None] * beta"),
    ),
    mistake(
        "householder adds",
        "I + β k kᵀ amplifies what it should erase: the sign is a minus.",
        ("delta_rule.householder", "identity - beta", "identity + beta"),
    ),
    mistake(
        "it predicts from the updated state",
        "The prediction is read from a state that already holds v_t: read Sᵀ k_t first, then write.",
        ("delta_rule.recurrent", '"BHKV,BHK->BHV", state, k',
         '"BHKV,BHK->BHV", state + torch.einsum("BHK,BHV->BHKV", k[:, t], v[:, t]), k'),
    ),
    mistake(
        "β scales only what is written",
        "Right at β = 1 only: β scales both what is erased and what is written. Yours scales what is written.",
        ("delta_rule.recurrent", "None] * (v[:, t] - found)", "None] * v[:, t] - found"),
    ),
    mistake(
        "β scales only what is erased",
        "Right at β = 1 only: β scales both what is erased and what is written. Yours scales what is erased.",
        ("delta_rule.recurrent", "beta[:, t, :, None] * (v[:, t] - found)",
         "v[:, t] - beta[:, t, :, None] * found"),
    ),
    mistake(
        "nothing is erased",
        "Nothing is erased: this is linear attention with β. Subtract what the state answers for k_t.",
        ("delta_rule.recurrent", "(v[:, t] - found)", "v[:, t]"),
    ),
    mistake(
        "the state is ignored",
        "The given state is lost: start from `state`, not from zeros.",
        ("delta_rule.recurrent", "v, state=state,", "v,"),
    ),
)  # fmt: skip

DELTA_CHUNKED = (
    mistake(
        "the Gram matrix is not strict",
        "The Gram matrix is not strict: token i reads what tokens j < i wrote, not itself. `tril(−1)`.",
        ("delta_rule.ut_transform", "gram, torch.diag_embed(beta), upper=False, unitriangular=True",
         "gram + torch.diag_embed(1 + beta * k.square().sum(-1)), torch.diag_embed(beta), upper=False"),
    ),
    mistake(
        "the solve is transposed",
        "The solve is transposed: outputs change when later tokens do. (I + gram) is lower triangular.",
        ("delta_rule.ut_transform", "gram, torch.diag_embed(beta), upper=False",
         "gram.mT, torch.diag_embed(beta), upper=True"),
    ),
    mistake(
        "β is missing from the Gram matrix",
        "β stands on one side only: it is missing from the Gram matrix, tril(β_i k_i·k_j, −1).",
        ("delta_rule.ut_transform", "beta[..., :, None] * (k @ k.mT)", "(k @ k.mT)"),
    ),
    mistake(
        "β is missing from what is written",
        "β stands on one side only: it is missing from what is written, (I + gram)⁻¹ diag(β).",
        ("delta_rule.ut_transform", "torch.diag_embed(beta)", "torch.diag_embed(torch.ones_like(beta))"),
    ),
    mistake(
        "the Gram matrix takes the other token's β",
        "The Gram matrix takes the other token's β: row i is scaled by β_i.",
        ("delta_rule.ut_transform", "beta[..., :, None]", "beta[..., None, :]"),
    ),
    mistake(
        "the inverse is left out",
        "Tokens of one chunk do not see each other's corrections: (I + gram) delta = β (v − K S) must be solved.",
        ("delta_rule.ut_transform",
         "torch.linalg.solve_triangular(gram, torch.diag_embed(beta), upper=False, unitriangular=True)",
         "torch.diag_embed(beta)"),
    ),
    mistake(
        "the inverse is a short series",
        "I − gram + gram² − … is not the inverse where keys repeat: solve the triangular system.",
        ("delta_rule.ut_transform",
         "torch.linalg.solve_triangular(gram, torch.diag_embed(beta), upper=False, unitriangular=True)",
         "(torch.eye(gram.shape[-1], dtype=gram.dtype) - gram + gram @ gram) @ torch.diag_embed(beta)"),
    ),
    mistake(
        "what the state holds is not erased",
        "What the chunks before left is not erased: delta = mix (V − K S).",
        ("delta_rule.chunked", "v[n] - k[n] @ state", "v[n]"),
    ),
    mistake(
        "the state is reset at each chunk",
        "Right in chunk 0, wrong from chunk 1: the carried state is lost or reset.",
        ("delta_rule.chunked", "state = state +", "state ="),
    ),
    mistake(
        "the mask lets the future in",
        "Outputs change when later tokens do: the scores' mask keeps j ≤ i.",
        ("delta_rule.chunked", "(q @ k.mT).tril()", "(q @ k.mT)"),
    ),
    mistake(
        "the mask on the output is strict",
        "A token should see its own write: the scores' mask keeps the diagonal (the Gram matrix's does not).",
        ("delta_rule.chunked", "(q @ k.mT).tril()", "(q @ k.mT).tril(-1)"),
    ),
    mistake(
        "the ragged tail is dropped",
        f"Wrong only when T is not a multiple of the chunk ({CHUNK} here): the ragged tail.",
        ("delta_rule.chunked", "to_chunks(x.to(state.dtype), C) for x in (q, k, v, beta))",
         "to_chunks((x.mT * (torch.arange(x.shape[1]) < x.shape[1] // C * C)).mT.to(state.dtype), C) if x.ndim == 3"
         " else to_chunks((x * (torch.arange(x.shape[1]) < x.shape[1] // C * C)[:, None, None]).to(state.dtype), C)"
         " for x in (q, k, v, beta))"),
    ),
)  # fmt: skip
