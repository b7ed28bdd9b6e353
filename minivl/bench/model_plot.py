"""Latency and memory against the frames that were seen: flat for a constant memory, rising for a transformer's."""

import hashlib
import json
from pathlib import Path

from .model_rows import FRAME

# Okabe and Ito's colours, which the colour-blind can tell apart, as in growth.py.
OURS, ALONE, THEIRS = "#009E73", "#56B4E9", "#D55E00"
CARD = 24  # GB


def digest(found: dict) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def plot(found: dict, path: Path) -> None:
    """The picture carries the digest of what it shows."""
    from matplotlib.figure import Figure  # takes a second to import, and only a plot needs it

    figure = Figure(figsize=(15, 5.4), layout="constrained")
    frames, tokens, memory = figure.subplots(1, 3)
    own, other = found["readings"], [row for row in found["transformer"] if row["fits"]]
    sustained = found["sustained"]
    moments = sustained["moments"].values()

    curve(frames, [(x["frame"], x["ms"]) for x in sustained["curve"]], OURS, "", "MiniVL: 1080p picture to memory")
    curve(frames, after(own, "decoder_frame_ms"), ALONE, "o", "MiniVL: its decoder's part")
    curve(frames, after(other, "decoder_frame_ms"), THEIRS, "s", "transformer: its decoder's part")
    frames.set(title="Time for a frame", ylabel="ms")

    curve(tokens, [(x["frame"], x["token_ms"]) for x in moments], OURS, "D", "MiniVL: after frames")
    curve(tokens, after(own, "token_ms"), ALONE, "o", "MiniVL: after text")
    curve(tokens, after(other, "token_ms"), THEIRS, "s", "transformer")
    tokens.set(title="Time for a token", ylabel="ms")

    looks = [(x["frame"], x["allocated"] / 1e9) for x in sustained["memory"] if x["allocated"]]
    curve(memory, looks, OURS, "", "MiniVL: the stream")
    curve(memory, after(own, "token_peak", 1e9), ALONE, "o", "MiniVL: peak of a token")
    curve(memory, after(other, "token_peak", 1e9), THEIRS, "s", "transformer: peak of a token")
    memory.axhline(CARD, color="grey", linestyle=":", label=f"{CARD} GB")
    memory.set(title="Memory of the GPU, weights included", ylabel="GB")

    longest = max(sustained["frames"], *(row["context"] / FRAME for row in own + other))
    for axes in (frames, tokens, memory):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xlim(8, 1.3 * longest)
        axes.set_ylim(*room(axes))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:,g}")
        axes.set_xlabel(f"frames seen, of {FRAME} tokens")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
    on = found["on"]
    shape = f"{found['parameters'] / 1e9:.1f} billion parameters, {found['dtype']}"
    figure.suptitle(f"What a longer past costs: {shape}\n{on['gpu'] or on['cpu']}, torch {on['torch']}")
    figure.savefig(path, dpi=110, metadata={"Source": digest(found)})


def after(rows: list[dict], key: str, unit: float = 1) -> list[tuple[float, float]]:
    """This figure against the frames that the past would be; of the rows that have it."""
    return [(row["context"] / FRAME, row[key] / unit) for row in rows if row[key] is not None]


def curve(axes, points: list[tuple[float, float]], colour: str, mark: str, label: str) -> None:
    style = {"color": colour, "marker": mark, "markerfacecolor": "none", "label": label}
    axes.plot([x for x, _ in points], [y for _, y in points], **style)


def room(axes) -> tuple[float, float]:
    """From half of the lowest point to twice the highest, and as much again for the legend."""
    heights = [y for line in axes.get_lines() for y in line.get_ydata()]
    return min(heights) / 2, 8 * max(heights)
