"""What bench.py measured, as a table and as a picture against the floors that bytes and products alone set.

    python -m kernels.bench_report docs/kernels.json

puts the table of that run into the page beside it, docs/kernels.md, in place of its one text block, and draws
docs/kernels.png anew. So the page's figures are those of its JSON.
"""

import argparse
import hashlib
import io
import json
import math
import re
from contextlib import redirect_stdout
from pathlib import Path

B, H, K, V = 1, 16, 128, 256
FLOORS = {"bytes alone": "black", "products alone": "tab:red"}  # and their colours
COPY_BYTES, MATRIX_FLOPS = 4.27e12, 7.5e14  # of an H200, a second, measured: what the floors are made of
RIVALS = {"to FLA": ("FLA", "FLA forced"), "to FlashQLA": ("FlashQLA",)}  # of two, the faster one counts
NOISE = 1.05  # from here on, an error counts as worse than another
FORWARD_BARS = {256: (0.019, 0.013), 2048: (0.079, 0.060), 8192: (0.295, 0.2), 32768: (1.13, 0.8), 131072: (4.4, 2.5)}
NOT_COMPARED = "not compared"


def floors(T: int) -> tuple[float, float]:
    """Milliseconds for the bytes alone (each input read, each output written once) and for the products alone."""
    data = 2 * T * H * (2 * K + 2 * V) + 8 * T * H + 8 * H * K * V
    products = 2 * T * H * (3 * K * V + 32 * (2 * K + 2 * V))  # with chunks of 32
    return 1e3 * data / COPY_BYTES, 1e3 * products / MATRIX_FLOPS


def number(value: float | None, form: str) -> str:
    return f"{value:>11{form}}" if value is not None else f"{'—':>11}"


def times_of(found: dict) -> dict[tuple, dict[str, float | None]]:
    """{(what, T, batch, graph): {library: milliseconds}}"""
    times = {}
    for row in found["rows"]:
        key = row["what"], row.get("T"), row.get("batch"), row["graph"]
        times.setdefault(key, {})[row["library"]] = row["ms"]
    return times


def ratio(ms: dict[str, float | None], title: str) -> float | None:
    """Our time over the faster rival's."""
    times = [ms[name] for name in RIVALS[title] if ms.get(name)]
    return ms["MiniVL"] / min(times) if times else None


def worse_than(error: dict[str, float | None]) -> str:
    """Nothing, or whose result is nearer to the exact one than ours, by more than noise; no number at all is worst."""
    known = {name: theirs for name, theirs in error.items() if theirs is not None and math.isfinite(theirs)}
    nearer = [name for name, theirs in known.items() if not error["MiniVL"] <= NOISE * theirs]
    return f"  ours is worse than {' and '.join(nearer)}" if nearer else ""


def refusals(found: dict) -> dict[str, str]:
    """{what was not compared: why}, each peer that is missing and each kind of call that one refused."""
    rivals = [name for names in RIVALS.values() for name in names if name not in found["errors"]]
    why = {name: found.get("missing", {}).get(name, "not part of this run") for name in rivals}
    for row in found["rows"]:
        if row["ms"] is None:
            why.setdefault(f"{row['library']}, {row['what']}", row.get("refused", "refused"))
    return why


def bars(found: dict) -> list[tuple[str, float | None, float, float | None]]:
    """(what, found, bar, goal) of an H200; each at most."""
    rows, host = [], found["host_microseconds_at_256"]
    for (what, T, batch, graph), ms in times_of(found).items():
        if what == "forward" and graph and T in FORWARD_BARS:
            rows.append((f"{what}, T {T}, graph, ms", ms["MiniVL"], *FORWARD_BARS[T]))
        if what == "forward + backward":
            rows.append((f"{what}, T {T}, to FLA", ratio(ms, "to FLA"), 0.75, 0.5))
        if what == "step" and graph:
            rows.append((f"{what}, batch {batch}, graph, to FLA", ratio(ms, "to FLA"), 1, None))
    rows.append(("host time of the bare launcher, µs", host["bare launcher"], 45, None))
    return [*rows, ("workspace, GB", found["workspace_gb"], 0.6, None)]


def verdict(value: float | None, bar: float, goal: float | None) -> str:
    if value is None:
        return NOT_COMPARED
    if goal is not None and value <= goal:
        return "goal reached"
    return "bar met" if value <= bar else "bar missed"


def report(found: dict) -> None:
    host = f", host {found['processor']}" if "processor" in found else ""
    print(f"{found['device']}, torch {found['torch']}, triton {found['triton']}{host}; milliseconds, medians")
    for name, note in found.get("notes", {}).items():
        print(f"{name}: {note}")
    for what, why in refusals(found).items():
        print(f"{what}: {NOT_COMPARED}: {why}")
    names = list(found["errors"])
    print(f"{'':<44}" + "".join(f"{name:>11}" for name in names) + "".join(f"{title:>14}" for title in RIVALS))
    for (what, T, batch, graph), ms in times_of(found).items():
        size = f"T {T}" if T else f"batch {batch}"
        label = f"{what}, {size}, {'graph' if graph else 'eager'}"
        times = "".join(number(ms.get(name), ".4f") for name in names)
        ratios = [ratio(ms, title) for title in RIVALS]
        print(f"{label:<44}{times}" + "".join(f"{NOT_COMPARED:>14}" if x is None else f"{x:>14.2f}" for x in ratios))
    print("host time at T 256, µs: " + ", ".join(f"{k} {v:.0f}" for k, v in found["host_microseconds_at_256"].items()))
    print(f"workspace beyond inputs and outputs: {found['workspace_gb']:.3f} GB")
    for key in found["errors"]["MiniVL"]:
        error = {name: found["errors"][name][key] for name in names}
        print(f"error, {key:<37}" + "".join(number(value, ".1e") for value in error.values()) + worse_than(error))
    if "H200" in found["device"]:
        print(f"{'':<44}{'found':>11}{'bar':>11}{'goal':>11}")
        for what, *values in bars(found):
            print(f"{what:<44}" + "".join(number(value, ".4g") for value in values) + f"  {verdict(*values)}")


def digest(found: dict) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def plot(found: dict, path: Path) -> None:
    """The picture carries the digest of what it shows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    forward = [r for r in found["rows"] if r["what"] == "forward" and r["graph"] and r["ms"]]
    for name in dict.fromkeys(r["library"] for r in forward):
        points = [(r["T"], r["ms"]) for r in forward if r["library"] == name]
        axes.loglog(*zip(*points, strict=True), marker="o", label=f"{name}, forward in a graph")
    lengths = sorted({r["T"] for r in forward})
    for (label, color), values in zip(FLOORS.items(), zip(*map(floors, lengths), strict=True), strict=True):
        axes.loglog(lengths, values, linestyle="--", color=color, label=f"floor: {label}")
    axes.set(xlabel="T", ylabel="milliseconds", title=found["device"])
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Source": digest(found)})
    plt.close(figure)


def table(found: dict) -> str:
    """What `report` prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        report(found)
    return printed.getvalue()


def renew(figures: Path) -> None:
    """The page and the picture beside these figures, made to show them."""
    found, page = json.loads(figures.read_text(encoding="utf-8")), figures.with_suffix(".md")
    text, blocks = re.subn(
        r"(?<=^```text\n).*?(?=^```$)", lambda _: table(found), page.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    if blocks != 1:
        raise ValueError(f"{page} must have one text block for the table, and has {blocks}")
    page.write_text(text, encoding="utf-8")
    plot(found, figures.with_suffix(".png"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make a page and its picture show the figures of a run.")
    parser.add_argument("json", type=Path, help="what `python -m minivl bench kernels --json` wrote")
    renew(parser.parse_args().json)
