"""Tensor by tensor, product by product."""


def bytes_moved(B, T, H, K, V, width):
    tensors = {"q": K * width, "k": K * width, "v": V * width, "out": V * width, "log_decay": 4, "beta": 4}
    return sum(each * B * T * H for each in tensors.values()) + 8 * K * V * H * B


def operations(B, T, H, K, V, C):
    products = [(C, K, C), (C, K, C), (C, K, V), (C, C, V), (C, K, V), (C, C, V), (K, C, V)]
    return sum(2 * a * b * c for a, b, c in products) * B * H * T // C


def seconds(moved, computed, bandwidth, peak):
    times = sorted((moved / bandwidth, computed / peak))
    return times[-1]


def bound(moved, computed, bandwidth, peak):
    return "compute" if computed * bandwidth >= moved * peak else "memory"
