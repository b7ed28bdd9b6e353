"""What goes wrong in assignment 5: small wrong versions of the right source, and what the grader says to each."""

from .tasks import mistake

SUM = (
    mistake("rows are taken to be T apart", "x's rows lie `stride` numbers apart, and not T.",
            "gated_kernel.running_sum_kernel", "x + row * stride + t", "x + row * T + t"),
    mistake("out's rows are taken to be stride apart", "out's rows lie T numbers apart, and not `stride`.",
            "gated_kernel.running_sum_kernel", "out + row * T + t", "out + row * (stride - 1) + t"),
    mistake("the store is not masked", "The tail is not masked: the last row writes beyond its end.",
            "gated_kernel.running_sum_kernel", "tl.cumsum(numbers, 0), mask=inside)", "tl.cumsum(numbers, 0))"),
    mistake("it is a sum without the token itself", "out[t] leaves out x[t]: the sum is over j ≤ t.",
            "gated_kernel.running_sum_kernel", "tl.cumsum(numbers, 0), mask", "tl.cumsum(numbers, 0) - numbers, mask"),
)  # fmt: skip

INVERSE = (
    mistake("every block below the diagonal is taken", "The wrong blocks are inverted: of the blocks below the "
            "diagonal only every second one lies inside a pair.", "gated_kernel.inverse",
            " & (i // size % 2 == 1)", ""),
    mistake("the other half of the pairs is taken", "The wrong sub-diagonal block: of a pair it is the lower left one, "
            "with odd i // size.", "gated_kernel.inverse", "% 2 == 1", "% 2 == 0"),
    mistake("it is a series", "This is the start of a series, I − gram + gram²: not the inverse where keys repeat.",
            "gated_kernel.inverse", "    for level in tl.static_range(0, LEVELS):",
            "    result = result - gram + tl.dot(gram, gram)\n    for level in tl.static_range(0, 0):"),
    mistake("the lower right inverse is missing", "−D⁻¹ M A⁻¹: the product with D⁻¹ is missing.",
            "gated_kernel.inverse", "tl.dot(tl.dot(result, below), result)", "tl.dot(below, result)"),
    mistake("the sign is a plus", "−D⁻¹ M A⁻¹: the sign is a minus.", "gated_kernel.inverse", "result -=", "result +="),
    mistake("one level is missing", "One level is missing: the last one joins two halves of C / 2.",
            "gated_kernel.inverse", "tl.static_range(0, LEVELS)", "tl.static_range(0, LEVELS - 1)"),
)  # fmt: skip

KERNEL = (
    mistake("the exponential comes before the mask", "inf or NaN under strong decay: mask before exp.",
            "gated_kernel.chunk_kernel", 'tl.exp(tl.where(past, G[:, None] - G[None, :], float("-inf")))',
            "tl.exp(G[:, None] - G[None, :]) * past"),
    mistake("the state is stale", "Right in chunk 0, wrong from chunk 1: the state that is asked is the one from the "
            "start. S ← … at each chunk's end.", "gated_kernel.chunk_kernel", "        S = tl.exp(total) * S + ",
            "        E = tl.exp(total) * S + "),
    mistake("the state carries no decay", "Right in chunk 0, wrong from chunk 1: the carried state is not decayed.",
            "gated_kernel.chunk_kernel", "S = tl.exp(total) * S +", "S = S +"),
    mistake("the keys of the state carry no decay", "Final state wrong: decay each key by exp(G_C − G_j).",
            "gated_kernel.chunk_kernel", "until[:, None] * keys", "keys"),
    mistake("the Gram matrix is ungated", "Right with α = 1, wrong with decay: multiply K Kᵀ by exp(G_i − G_j).",
            "gated_kernel.chunk_kernel", "gram = write[:, None] * decay * ", "gram = write[:, None] * "),
    mistake("the prediction's keys carry no decay", "The keys that ask the state carry exp(G_i): it has faded by then.",
            "gated_kernel.chunk_kernel", "tl.dot(since[:, None] * keys, S)", "tl.dot(keys, S)"),
    mistake("rows of a head are taken to lie together", "Rows of one head lie H apart in [B, T, H, K].",
            "gated_kernel.chunk_kernel", "row = first + (start + token) * H", "row = first + (start + token)"),
    mistake("the starting state is ignored", "The given state is lost: load it before the first chunk.",
            "gated_kernel.chunk_kernel", "S = tl.load(state + place)", "S = 0.0 * tl.load(state + place)"),
)  # fmt: skip

ESTIMATE = (
    mistake("the state is forgotten", "The state is forgotten: it is read at the start and written at the end.",
            "traffic.bytes_moved", " + 2 * B * H * K * V * 4", ""),
    mistake("the state is counted once", "The state moves twice: it is read, and it is written.",
            "traffic.bytes_moved", " + 2 * B * H * K * V * 4", " + B * H * K * V * 4"),
    mistake("the state moves with every chunk", "The state moves with every token: it stays in registers in between.",
            "traffic.bytes_moved", " + 2 * B * H * K * V * 4", " + 2 * B * H * K * V * 4 * T"),
    mistake("operations are taken for bytes",
            "These are operations, not bytes: count each number once, times its width.",
            "traffic.bytes_moved", "return vectors + gates + 2 * B * H * K * V * 4", "return B * T * H * 6 * K * V"),
    mistake("numbers are counted, not bytes", "These are numbers, not bytes: times their width.",
            "traffic.bytes_moved", "(2 * K + 2 * V) * width", "(2 * K + 2 * V)"),
    mistake("the output is forgotten", "The output is forgotten: it is written, too.",
            "traffic.bytes_moved", "(2 * K + 2 * V)", "(2 * K + V)"),
    mistake("a multiplication and an addition count as one", "A multiplication and an addition count as two.",
            "traffic.operations", "(T // C) * 2 * (", "(T // C) * ("),
    mistake("times are added", "Moving and computing go on at once: the larger time counts, not the sum.",
            "traffic.seconds", "max(moved / bandwidth, computed / peak)", "moved / bandwidth + computed / peak"),
    mistake("numbers are compared, not times", "Compare times, not counts: bytes and operations have other units.",
            "traffic.bound", "moved / bandwidth > computed / peak", "moved > computed"),
)  # fmt: skip
