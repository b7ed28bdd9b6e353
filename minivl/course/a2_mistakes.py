"""What goes wrong in assignment 2: small wrong versions of the right source, and what the grader says to each."""

from .rules import CHUNK
from .sources import Edit
from .tasks import Mistake

GATED = "ops.gated_delta_rule"


def mistake(name: str, says: str, where: str, right: str, wrong: str) -> Mistake:
    where = where if where.startswith("properties") else f"{GATED}.{where}"
    return Mistake(name, says, (Edit(where, right, wrong),))


RECURRENT = (
    mistake("the decay comes after the prediction",
            "You match the recurrence with decay after the prediction: decay the state first.",
            "recurrent", '"BHKV,BHK->BHV", state, k',
            '"BHKV,BHK->BHV", state / log_decay[:, t, :, None, None].exp(), k'),
    mistake("the exponential is missing", "log_decay is log α: the state is multiplied by its exponential.",
            "recurrent", "None, None].exp() *", "None, None] *"),
    mistake("the decay fades what was just written",
            "The decay fades what the token itself has just written: decay before you write.",
            "recurrent", "state = state + ", "state = state + log_decay[:, t, :, None, None].exp() * "),
    mistake("there is no decay", "The state does not decay: multiply it by α_t before each token.",
            "recurrent", "log_decay[:, t, :, None, None].exp() * state", "state"),
    mistake("β scales only what is written", "Right at β = 1 only: β scales both what is erased and what is written.",
            "recurrent", "None] * (v[:, t] - found)", "None] * v[:, t] - found"),
    mistake("q is not normalised", "normalize_qk normalises both q and k.", "recurrent", "unit(q), unit(k)",
            "q, unit(k)"),
    mistake("step does not store the state", "`step` leaves the given state as it was: change it in place.",
            "step", "state.copy_(after)", "after"),
)  # fmt: skip

DECAYS = (
    mistake("the exponential comes before the mask", "inf or NaN under strong decay: mask before exp.",
            "chunk_decays", "decay = between.exp().tril()",
            "G = log_decay.cumsum(-1); decay = (G[..., :, None] - G[..., None, :]).exp() "
            "* torch.ones_like(between).tril()"),
    mistake("the mask is strict", "A token's decay to itself is 1: keep the diagonal.",
            "chunk_decays", "between.exp().tril()", "between.exp().tril(-1)"),
    mistake("there is no mask", "Above the diagonal there is no decay: later tokens are not seen.",
            "chunk_decays", "between.exp().tril()",
            "(log_decay.cumsum(-1)[..., :, None] - log_decay.cumsum(-1)[..., None, :]).exp()"),
    mistake("the sum runs across chunks", "The running sum goes on from one chunk into the next: start anew in each.",
            "chunk_decays", "decay, log_decay.cumsum(-1).exp(),",
            "decay, (log_decay.cumsum(-1) + log_decay.sum(-1, True).cumsum(0) - log_decay.sum(-1, True)).exp(),"),
    mistake("a token's own gate is left out", "decay_in leaves out the token's own gate: the state has decayed "
            "before token i reads it.", "chunk_decays", "log_decay.cumsum(-1).exp()",
            "(log_decay.cumsum(-1) - log_decay).exp()"),
    mistake("the gate after j is counted too late", "decay[i, j] is off by a gate: it is the product of α after j, "
            "up to and with i.", "chunk_decays", ".triu(1)", ".triu(0)"),
)  # fmt: skip

CHUNKED = (
    mistake("the Gram matrix is ungated",
            "Right with α = 1, wrong with decay from the second token of a chunk on: multiply K Kᵀ by exp(G_i − G_j).",
            "chunked", "None] * decay * (k @ k.mT)", "None] * (k @ k.mT)"),
    mistake("the prediction's keys (W) carry no decay",
            "What the state answers for a key has faded by then: the keys that ask the state (W) carry exp(G_i).",
            "chunked", ", decay_in[n] * k[n], ", ", k[n], "),
    mistake("the queries of the state carry no decay",
            "The queries that ask the state carry exp(G_i): it has faded by then.",
            "chunked", "scale * decay_in[n] * q[n]", "scale * q[n]"),
    mistake("the keys of the state carry no decay",
            "Final state wrong from the first chunk: decay each key by exp(G_last − G_j).",
            "chunked", "decay_out[n] * k[n]", "k[n]"),
    mistake("the state carries no decay",
            "Right in chunk 0, wrong from chunk 1: the carried state is not decayed, by exp(G_last).",
            "chunked", "decay_in[n, ..., -1:, :] * state", "state"),
    mistake("the state is reset at each chunk",
            "Right in chunk 0, wrong from chunk 1: the carried state is lost or reset.",
            "chunked", "decay_in[n, ..., -1:, :] * state +", ""),
    mistake("the mask carries no decay",
            "Right with α = 1, wrong with decay: the scores Q Kᵀ carry exp(G_i − G_j) too.",
            "chunked", "scale * decay * (q @ k.mT)", "scale * (q @ k.mT).tril()"),
    mistake("what the state holds is not erased",
            "What the chunks before left is not erased: delta = mix (V − e^G K S).",
            "chunked", "v[n] - k_in @ state", "v[n]"),
    mistake("the mask on the output is strict", "A token should see its own write: keep the scores' diagonal.",
            "chunked", "scale * decay * (q @ k.mT)", "(scale * decay * (q @ k.mT)).tril(-1)"),
    mistake("the solve is transposed",
            "The solve is transposed: outputs change when later tokens do. (I + gram) is lower triangular.",
            "chunked", "gram, torch.diag_embed(beta), upper=False", "gram.mT, torch.diag_embed(beta), upper=True"),
    mistake("β is missing from the Gram matrix", "β stands on one side only: it is missing from the Gram matrix.",
            "chunked", "beta[..., :, None] * decay", "decay"),
    mistake("β is missing from what is written",
            "β stands on one side only: it is missing from what is written, (I + gram)⁻¹ diag(β).",
            "chunked", "torch.diag_embed(beta)", "torch.diag_embed(torch.ones_like(beta))"),
    mistake("the ragged tail is dropped",
            f"Wrong only when T is not a multiple of the chunk ({CHUNK} here): the ragged tail.",
            "chunked", "beta = (to_chunks(x.to(state.dtype), C) for x in (q, k, v, log_decay, beta))",
            "beta = (to_chunks((x.transpose(1, -1) * (torch.arange(x.shape[1]) < x.shape[1] // C * C))"
            ".transpose(1, -1).to(state.dtype), C) for x in (q, k, v, log_decay, beta))"),
    mistake("only keys are normalised", "normalize_qk normalises both q and k.",
            "chunked", "unit(q), unit(k)", "q, unit(k)"),
)  # fmt: skip

CATCHING = (
    mistake("T < chunk only", "Your properties try T below one chunk only: what goes from chunk to chunk is unseen.",
            "properties.check", "(5, 16, 29)", "(5, 7)"),
    mistake("whole chunks only", "Your properties try whole chunks only: a rest at the end is unseen.",
            "properties.check", "(5, 16, 29)", "(8, 16, 24)"),
    mistake("α = 1 only", "Your properties try α = 1 only: whatever is wrong with a decay is unseen.",
            "properties.check", "F.logsigmoid(3 * normal(2, T, 2) + 3)", "torch.zeros(2, T, 2, dtype=torch.float64)"),
    mistake("one short piece from a state of zeros",
            "Your properties start from a state of zeros and never leave the first chunk: what asks the state is "
            "unseen.", "properties.check",
            "for T in (5, 16, 29):\n        q, k = (F.normalize(normal(2, T, 2, 4), dim=-1) for _ in range(2))\n"
            "        v, state = normal(2, T, 2, 4), normal(2, 2, 4, 4)",
            "for T in (5, 8):\n        q, k = (F.normalize(normal(2, T, 2, 4), dim=-1) for _ in range(2))\n"
            "        v, state = normal(2, T, 2, 4), normal(2, 2, 4, 4) * 0"),
    mistake("equality to the last bit",
            "Your properties fail for right versions: allow for rounding, 1e-9 of the size.",
            "properties.check", "<= 1e-9 * right.norm()", "== 0"),
)  # fmt: skip
