"""What `bench model` found as tables: each row beside its bar and its goal, and beside the code that was released.

The released code's figures are cited: it was measured separately, on a card of the same kind, an NVIDIA H200 with
PyTorch 2.11, with random weights in the same shapes. It is no part of this run. Bars and goals are for such a card too.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Beside:
    """What stands beside a figure, in its unit."""

    bar: float | None = None
    goal: float | None = None
    released: float | None = None


MILLISECONDS = {
    "frame": Beside(9, 7, 23.2),
    "tower": Beside(4, 3, 11.3),
    "token": Beside(2.8, 2.2, 33.4),
    "prompt 8192": Beside(110, 95, 136),
    "prompt 32768": Beside(460, 400, 574),
    "prompt 131072": Beside(1850, 1600, 2294),
}
NOTES = (
    "released: the frame captured, with its cache frozen as in the demo (84 to 91 when launched from Python); the",
    "tower 11.3 to 13.4; the token launched from Python, as released (6.2 when captured by hand)",
)
GIGABYTES = {"streaming": Beside(10, 9.3, 9.6), "prompt 131072": Beside(11, 10, 20.6)}
FRAMES_A_SECOND = Beside(90, None, None)
LATE_FRAME, LATE_TOKEN = 0.03, 0.05  # how much later ones may differ
# A frame of 256 tokens through the decoder of Qwen2.5-VL-3B's shape with FlashAttention-2, by context.
PUBLISHED_TRANSFORMER = {4096: 20.0, 32768: 24.2, 131_072: 68, 262_144: 127}

# An RTX 4090 beside an H200: how much longer arithmetic takes, and how much longer the reading of memory.
ARITHMETIC, READING = (4.3, 4.8), 4.27


def report(found: dict) -> str:
    parts = (head, main_table, late_table, context_table, transformer_table, rule_table, int8_table, estimate)
    return "\n\n".join("\n".join(part(found)) for part in parts)


def head(found: dict) -> Iterator[str]:
    on = found["on"]
    cap = f", held to {on['cap_gb']:g} GB" if on["cap_gb"] else ""
    yield f"{on['gpu'] or on['cpu']}{cap}; torch {on['torch']}"
    yield (
        f"{found['parameters'] / 1e9:.2f} billion parameters, {found['dtype']}, window {found['window']:,}; "
        f"medians in one run"
    )


def main_table(found: dict) -> Iterator[str]:
    sustained, readings = found["sustained"], {row["context"]: row for row in found["readings"]}
    token = sustained["moments"]["early"]["token_ms"]
    rows = [
        ("a frame: 448², 256 tokens, ms", found["frame_ms"], MILLISECONDS["frame"]),
        ("  of it the vision tower, ms", found["tower_ms"], MILLISECONDS["tower"]),
        ("frames a second, 1080p on the host", sustained["frames_a_second"], FRAMES_A_SECOND),
        ("a token, ms", token, MILLISECONDS["token"]),
        ("  through generate, ms", found["answer_ms"], Beside()),
    ]
    for T, reading in readings.items():
        rows.append((f"a prompt of {T:,}, ms", reading["prompt_ms"], MILLISECONDS.get(f"prompt {T}", Beside())))
    rows.append(("peak memory of the stream, GB", gigabytes(sustained["peak"]), GIGABYTES["streaming"]))
    for T, reading in readings.items():
        peak = gigabytes(reading["prompt_peak"])
        rows.append((f"peak memory, prompt of {T:,}, GB", peak, GIGABYTES.get(f"prompt {T}", Beside())))
    if not found["released_shapes"]:
        yield line("", "MiniVL")
        yield from (line(label, number(value)) for label, value, _ in rows)
        return
    yield line("", "MiniVL", "bar", "goal", "released", "its / ours")
    for label, value, beside in rows:
        ratio = beside.released / value if beside.released and value else None
        yield line(label, *map(number, (value, beside.bar, beside.goal, beside.released, ratio)))
    yield from NOTES


def late_table(found: dict) -> Iterator[str]:
    sustained = found["sustained"]
    early, late = sustained["moments"]["early"], sustained["moments"]["late"]
    first, last = f"frame {sustained['early_frame']:,}", f"frame {sustained['frames']:,}"
    yield line(f"after {sustained['tokens']:,} tokens", first, last, "change", "bar")
    for label, before, after, change, bar in (
        ("a frame alone, ms", early["frame_alone_ms"], late["frame_alone_ms"], "frame_alone", LATE_FRAME),
        ("from frame to frame, ms", sustained["early_ms"], sustained["late_ms"], "interval", LATE_FRAME),
        ("a token, ms", early["token_ms"], late["token_ms"], "token", LATE_TOKEN),
    ):
        change = sustained[f"{change}_late_against_early"]
        yield line(label, number(before), number(after), f"{100 * change:+.1f}%", f"{100 * bar:+.0f}%")
    if looks := sustained["memory"]:
        held = "constant to the byte" if sustained["memory_constant"] else "NOT constant"
        everything = f", {looks[-1]['allocated']:,} with all that is allocated" if looks[-1]["allocated"] else ""
        yield f"memory, every {looks[0]['frame']} frames: {held}: {looks[-1]['memory_bytes']:,} bytes{everything}"


def context_table(found: dict) -> Iterator[str]:
    own = {row["context"]: row for row in found["readings"]}
    other = {row["context"]: row for row in found["transformer"]}
    published = PUBLISHED_TRANSFORMER if found["released_shapes"] else {}
    yield line("", "MiniVL", "", "", "a transformer of its shape", "", "published")
    yield line(
        "tokens of the past", "token, ms", "frame, ms", "peak, GB", "token, ms", "frame, ms", "peak, GB", "frame, ms"
    )
    for context in sorted(own | other):
        ours, theirs = (side(rows.get(context)) for rows in (own, other))
        yield line(f"{context:,}", *ours, *theirs, number(published.get(context)))
    yield f"a frame is {256} tokens through the decoder alone; published: FlashAttention-2 in Qwen2.5-VL-3B's shape"


def side(row: dict | None) -> tuple[str, str, str]:
    """One model's cells of context_table."""
    if row is None:
        return "–", "–", "–"
    if not row.get("fits", True):
        return "does not", "fit:", f"{gigabytes(row['needed']):.1f}"
    return number(row["token_ms"]), number(row["decoder_frame_ms"]), number(gigabytes(row["token_peak"]))


def transformer_table(found: dict) -> Iterator[str]:
    measured = [row for row in found["transformer"] if row["fits"] and row["decoder_frame_kernels"]]
    if not measured:
        yield "the transformer's attention is PyTorch's, as a CPU has it; no kernels to compare"
        return
    names = list(measured[0]["decoder_frame_kernels"])
    yield f"the transformer's attention in one of its layers, by {' and '.join(names)}; it runs with the faster"
    yield line(
        "tokens of the past, queries",
        *(cell for name in names for cell in (f"{name.split()[0]}, ms", "TFLOP/s")),
        width=15,
    )
    for row in measured:
        for what, queries in (("decoder_frame", 256), ("token", 1)):
            rivals = [row[f"{what}_kernels"].get(name, {"ms": None, "tflops": None}) for name in names]
            cells = [cell for x in rivals for cell in (number(x["ms"], 4), number(x["tflops"], 1))]
            yield line(f"{row['context']:,}, {queries}", *cells, width=15)


def rule_table(found: dict) -> Iterator[str]:
    yield line("the DeltaNet rule, all else the same", "ms a frame", "frames/s")
    for row in found["rules"]:
        way = "captured" if row["captured"] else "from Python"
        yield line(f"{row['rule']}, {way}", number(row["ms"]), number(row["frames_a_second"], 1))


def int8_table(found: dict) -> Iterator[str]:
    small, whole = found["int8"], next(x for x in found["readings"] if x["context"] == found["int8"]["context"])
    yield line(f"after {small['context']:,} tokens of text", "token, ms", "frame, ms", "prompt, ms", "peak, GB")
    for label, x in ((f"matrices in {found['dtype']}", whole), ("matrices in int8", small)):
        peak = number(gigabytes(x["token_peak"]))
        yield line(label, number(x["token_ms"]), number(x["decoder_frame_ms"]), number(x["prompt_ms"]), peak)


def estimate(found: dict) -> Iterator[str]:
    """What a 4090 would take, were all else equal. Nothing of it was measured."""
    if not found["released_shapes"]:
        yield "an RTX 4090 can't be estimated from this: other shapes, or no GPU"
        return
    frame, token = found["frame_ms"], found["sustained"]["moments"]["early"]["token_ms"]
    low, high = (frame * ratio for ratio in ARITHMETIC)
    yield "an RTX 4090, estimated and not measured, from an H200's figures alone:"
    yield (
        f"a frame {low:.0f} to {high:.0f} ms, {1e3 / high:.0f} to {1e3 / low:.0f} frames a second "
        f"(arithmetic, × {ARITHMETIC[0]} to {ARITHMETIC[1]})"
    )
    slow = token * READING
    yield f"a token {slow:.1f} ms, {1e3 / slow:.0f} tokens a second (the memory's rate, × {READING})"


def line(label: str, *cells: str, width: int = 13) -> str:
    return (f"{label:<36}" + "".join(f"{cell:>{width}}" for cell in cells)).rstrip()


def number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}f}"


def gigabytes(nbytes: int | None) -> float | None:
    return None if nbytes is None else nbytes / 1e9
