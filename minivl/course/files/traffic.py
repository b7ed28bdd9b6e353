"""How long must the chunk kernel take at least? What it moves, what it computes, and which of the two decides."""


def bytes_moved(B, T, H, K, V, width):
    """Bytes that the rule must read and write at least, each number once: q, k, v and out of `width` bytes a number,
    log_decay and beta of 4, and the state, of 4, read at the start and written at the end."""
    vectors = B * T * H * (2 * K + 2 * V) * width
    gates = 2 * B * T * H * 4
    return vectors + gates + 2 * B * H * K * V * 4


def operations(B, T, H, K, V, C):
    """Floating-point operations of the seven products of each chunk, T a multiple of C, multiplication and addition
    counted as two: K Kᵀ, Q Kᵀ, K S, mix · residual, Q S, scores · delta, Kᵀ delta. The inverse is left out."""
    return B * H * (T // C) * 2 * (2 * C * C * K + 2 * C * C * V + 3 * C * K * V)


def seconds(moved, computed, bandwidth, peak):
    """The shortest time, moving and computing at once: bandwidth in bytes a second, peak in operations a second."""
    return max(moved / bandwidth, computed / peak)


def bound(moved, computed, bandwidth, peak):
    """Which of the two decides: "memory" or "compute"."""
    return "memory" if moved / bandwidth > computed / peak else "compute"
