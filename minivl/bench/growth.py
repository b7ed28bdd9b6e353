"""Time and memory against T: what softmax attention costs as its past grows, and what each rung costs instead.

Three figures for each length, all of them measured: the time for T tokens in one call, of which the plot draws the
fastest round; the most memory held during that call beyond its inputs; and what is carried to the next token when the
call is over: for softmax attention the keys and values of all T tokens, for a linear rule its state, for the window
its ring.
"""

import functools
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.sliding_window import Ring, banded
from .ladder import LADDER, Inputs
from .measure import interleaved, peak_bytes

SHAPE = {"B": 1, "H": 4, "K": 64, "V": 64, "window": 256}
WRITTEN_OUT_UP_TO = 4096  # the T × T matrices of all heads: beyond, they fill the memory of a small machine

# Okabe and Ito's colours, which the colour-blind can tell apart, and a mark for each. Marks are hollow and of different
# sizes, since some curves coincide.
STYLES = {
    "softmax, written out": ("#000000", "x", 9),
    "softmax, fused kernel": ("#D55E00", "s", 7),
    "linear attention": ("#56B4E9", "^", 12),
    "delta rule": ("#0072B2", "v", 9),
    "gated delta rule": ("#009E73", "o", 5),
    "sliding window": ("#CC79A7", "D", 7),
}
PANELS = {
    "fastest_milliseconds": "Time for T tokens in one call (ms)",
    "peak_bytes": "Most memory held during the call (MB)",
    "carried_bytes": "Memory carried to the next token (MB)",
}


def fused(x: Inputs) -> tuple[Tensor, None]:
    heads_first = (tensor.transpose(1, 2) for tensor in (x.q, x.k, x.v))
    return F.scaled_dot_product_attention(*heads_first, is_causal=True).transpose(1, 2), None


def written_out(x: Inputs) -> tuple[Tensor, None]:
    return banded(x.q, x.k, x.v, window=x.q.shape[1]), None


def carried_bytes(name: str, x: Inputs, state: Tensor | None) -> int:
    """The bytes of the tensors that the next token needs."""
    if state is not None:
        return state.nbytes
    if name == "sliding window":
        B, _, H, K = x.k.shape
        ring = Ring(B, x.window, H, K, window=x.window, dtype=x.k.dtype)
        return sum(tensor.nbytes for tensor in ring.tensors().values())
    return x.k.nbytes + x.v.nbytes


def measure(lengths: list[int], *, rounds: int) -> list[dict]:
    """One record for each length and curve."""
    return [point for T in lengths for point in measure_one(Inputs.random(T=T, **SHAPE), rounds)]


def measure_one(x: Inputs, rounds: int) -> list[dict]:
    """One record for each curve at this length."""
    T = x.k.shape[1]
    forms = {name: rung.fast for name, rung in LADDER.items()} | {"softmax, fused kernel": fused}
    if T <= WRITTEN_OUT_UP_TO:
        forms["softmax, written out"] = written_out
    runs = {name: functools.partial(form, x) for name, form in forms.items()}
    seconds = interleaved(runs, rounds=rounds, label=f"T = {T:,}")
    points = []
    for name in (name for name in STYLES if name in runs):
        with torch.no_grad():
            state = runs[name]()[1]
        points.append(
            {
                "name": name,
                "T": T,
                "milliseconds": 1e3 * statistics.median(seconds[name]),
                "fastest_milliseconds": 1e3 * min(seconds[name]),
                "peak_bytes": peak_bytes(runs[name]),
                "carried_bytes": carried_bytes(name, x, state),
            }
        )
    return points


def table(points: list[dict]) -> str:
    lines = [f"{'':24}{'T':>8}{'median, ms':>12}{'fastest, ms':>13}{'peak, MB':>12}{'carried, MB':>14}"]
    for point in sorted(points, key=lambda point: list(STYLES).index(point["name"])):
        lines.append(
            f"{point['name']:24}{point['T']:8,}{point['milliseconds']:12.2f}{point['fastest_milliseconds']:13.2f}"
            f"{point['peak_bytes'] / 1e6:12.2f}{point['carried_bytes'] / 1e6:14.3f}"
        )
    return "\n".join(lines)


def plot(points: list[dict], path: Path, machine: str) -> None:
    from matplotlib.figure import Figure  # takes a second to import, and only a plot needs it

    figure = Figure(figsize=(15, 5.4), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        for name, (colour, mark, size) in STYLES.items():
            curve = [point for point in points if point["name"] == name]
            heights = [point[key] / (1e6 if key.endswith("bytes") else 1) for point in curve]
            style = {"color": colour, "marker": mark, "markersize": size, "markerfacecolor": "none", "label": name}
            axes.loglog([point["T"] for point in curve], heights, **style)
        axes.set_title(title)
        axes.set_xlabel("T, tokens")
        axes.set_ylabel(title.split("(")[1].rstrip(")"))
        axes.grid(alpha=0.3)
        lengths = sorted({point["T"] for point in points})
        axes.set_xticks(lengths, [f"{T:,}" for T in lengths], rotation=45)
        axes.minorticks_off()
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    H, K, V, W = (SHAPE[letter] for letter in ("H", "K", "V", "window"))
    figure.suptitle(f"What a longer past costs: {H} heads, K {K}, V {V}, window {W}, float32, forward only\n{machine}")
    figure.savefig(path, dpi=110)
