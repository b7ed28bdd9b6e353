"""What `bench drift` found: a table of errors, and a picture of them against the tokens that were seen."""

import hashlib
import json
from pathlib import Path

from .drift_regimes import FRAME, HEADS, REGIMES

# Okabe and Ito's colours, which the colour-blind can tell apart, as in growth.py.
COLOURS = dict(zip(REGIMES, ("#000000", "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True))
LINES = {"float32": "-", "bfloat16 products": "--", "bfloat16 state": ":"}


def report(found: dict) -> str:
    on = found["on"]
    lines = [
        f"{on['gpu'] or on['cpu']}, torch {on['torch']}; K {found['K']}, V {found['V']}, {HEADS} heads a regime",
        f"{found['tokens']:,} tokens, {FRAME} at a time, against the recurrence in float64; relative norms",
        "",
        f"{'':<36}{'state:':>10}{'':>20}{'read-out:':>12}",
        f"{'':<36}" + 2 * "".join(f"{name:>10}" for name in ("first", "last", "largest")),
    ]
    for row in found["summary"]:
        numbers = (row[f"{when}_{what}"] for what in ("state", "out") for when in ("first", "last", "largest"))
        lines.append(f"{row['way']:<20}{row['regime']:<16}" + "".join(f"{x:>10.1e}" for x in numbers))
    verdict = "stays within" if found["within"] else "LEAVES"
    lines += ["", f"in float32 the state {verdict} {found['bar']:.0e} of the exact one, in every regime"]
    return "\n".join(lines)


def digest(found: dict) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def plot(found: dict, path: Path) -> None:
    """The picture carries the digest of what it shows."""
    from matplotlib.figure import Figure  # takes a second to import, and only a plot needs it
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(14, 5.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (what, title) in zip(panels, (("state", "The state"), ("out", "The read-outs")), strict=True):
        for row in found["summary"]:
            mine = [x for x in found["rows"] if (x["way"], x["regime"]) == (row["way"], row["regime"])]
            style = {"color": COLOURS[row["regime"]], "linestyle": LINES[row["way"]]}
            axes.plot([x["tokens"] for x in mine], [x[what] for x in mine], **style)
        axes.axhline(found["bar"], color="red", linewidth=0.8)
        axes.set(title=title, xlabel="tokens seen", xscale="log", yscale="log")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("relative error against float64")
    ways = list(dict.fromkeys(row["way"] for row in found["summary"]))
    legend = [Line2D([], [], color=colour, label=regime) for regime, colour in COLOURS.items()]
    legend += [Line2D([], [], color="grey", linestyle=LINES[way], label=way) for way in ways]
    legend.append(Line2D([], [], color="red", linewidth=0.8, label="bar of float32"))
    panels[1].legend(handles=legend, loc="upper left", bbox_to_anchor=(1.02, 1))
    on = found["on"]
    figure.suptitle(
        f"Does the state drift? {found['tokens']:,} tokens, {FRAME} at a time, against float64\n"
        f"{on['gpu'] or on['cpu']}, torch {on['torch']}"
    )
    figure.savefig(path, dpi=110, metadata={"Source": digest(found)})
