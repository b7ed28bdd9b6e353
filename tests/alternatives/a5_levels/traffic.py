"""One head at a time."""


def bytes_moved(B, T, H, K, V, width):
    head = 2 * T * width * (K + V) + 8 * T + 8 * K * V
    return B * H * head


def operations(B, T, H, K, V, C):
    chunk = 0
    for inner, outer in ((K, C), (K, C), (K, V), (C, V), (K, V), (C, V)):
        chunk += 2 * C * inner * outer
    return (chunk + 2 * K * C * V) * (T // C) * B * H


def seconds(moved, computed, bandwidth, peak):
    to_move, to_compute = moved / bandwidth, computed / peak
    return to_move if to_move > to_compute else to_compute


def bound(moved, computed, bandwidth, peak):
    intensity, ridge = computed / moved, peak / bandwidth
    return "memory" if intensity < ridge else "compute"
