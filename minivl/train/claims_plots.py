"""The claims' pictures: each arm a colour and a mark of its own, means over seeds as lines, ranges as bars.

The colours are Okabe and Ito's, which the colour-blind can tell apart; marks tell the arms apart without any colour.
"""

import hashlib
import json
from pathlib import Path
from statistics import fmean

from .claims_arms import ARMS, PARTS
from .claims_data import FACTS_AT
from .claims_report import BESIDE, scores_of
from .claims_verdicts import RECALL_FLOOR

STYLES = {
    "full": ("#000000", "s", "-"),
    "window": ("#E69F00", "^", "-"),
    "hybrid-2": ("#56B4E9", "v", "-"),
    "hybrid-4": ("#009E73", "o", "-"),
    "hybrid-8": ("#0072B2", "D", "-"),
    "linear": ("#D55E00", "X", "-"),
    "rule-linear": ("#CC79A7", "P", "--"),
    "rule-delta": ("#E69F00", "*", "--"),
    "data-4": ("#56B4E9", "<", ":"),
    "data-2": ("#0072B2", ">", ":"),
    "with-stage-1": ("#009E73", "h", "--"),
    "without-stage-1": ("#D55E00", "d", "--"),
}
PICTURES = {"scores": "claims-scores.png", "recall": "claims-recall.png", "ages": "claims-ages.png"}
TOLD = {
    "scores": "Reading and attributes: every arm, its mean over seeds and their range",
    "recall": "Recall against the distance and against the number of facts",
    "ages": "Recall of first facts and of new ones, along half a million tokens",
}


def draw(found: dict, folder: Path) -> list[Path]:
    """The pictures, each with the digest of what it shows."""
    figures = {"scores": beside, "recall": recall, "ages": ages}
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    paths = []
    for name, picture in PICTURES.items():
        figures[name](found).savefig(folder / picture, dpi=110, metadata={"Source": digest})
        paths.append(folder / picture)
    return paths


def figure(width: float, height: float):
    from matplotlib.figure import Figure  # takes a second to import, and only a picture needs it

    return Figure(figsize=(width, height), layout="constrained")


def beside(found: dict):
    """Reading and attributes: a panel for each part of the comparison, a place for each score."""
    scores, whole = scores_of(found), figure(15, 4.6)
    panels = whole.subplots(1, len(PARTS), sharey=True)
    for axes, (title, arms) in zip(panels, PARTS.items(), strict=True):
        known = [arm for arm in arms if arm in scores]
        for number, arm in enumerate(known):
            shift = 0.11 * (number - (len(known) - 1) / 2)
            curve(axes, arm, [(at + shift, scores[arm].get(task)) for at, task in enumerate(BESIDE)], line="")
        axes.set(title=title, xticks=range(len(BESIDE)), ylim=(-0.03, 1.03))
        axes.set_xticklabels(BESIDE, rotation=20)
        finish(axes)
    panels[0].set_ylabel("share of answers that are right")
    whole.suptitle(f"Means over seeds, and their range. {subtitle(found)}")
    return whole


def recall(found: dict):
    """Against the distance, for shares of window layers and for rules; and against the number of facts."""
    own, scores, whole = found["protocol"], scores_of(found), figure(15, 5)
    panels = whole.subplots(1, 3, sharey=True)
    layers, rules, _, _ = PARTS.values()
    for axes, arms in zip(panels, (layers, rules, (*layers, *rules[:2])), strict=True):
        facts = axes is panels[2]
        asked = [(n, f"facts/{n}") for n in own["facts"]] if facts else [(n, f"recall/{n}") for n in own["windows"]]
        for arm in arms:
            curve(axes, arm, [(n, scores.get(arm, {}).get(task)) for n, task in asked])
        axes.axhline(RECALL_FLOOR, color="grey", linewidth=0.8, label="chance")
        if facts:
            axes.set(title="Facts known at once", xlabel=f"facts, {FACTS_AT} windows before the question")
            axes.set_xscale("log", base=2)
            axes.set_xticks(own["facts"], [str(n) for n in own["facts"]])
        else:
            axes.axvline(own["longest"] / own["window"], color="grey", linestyle=":", label="longest in training")
            axes.set_xscale("symlog", base=2, linthresh=1)
            what = "window layers" if arms is layers else "rules"
            axes.set(title=f"Distance: {what}", xlabel=f"windows of {own['window']} tokens between fact and question")
            axes.set_xlim(-0.5, 1.3 * max(own["windows"]))
            axes.set_xticks(own["windows"], [str(n) for n in own["windows"]])
        axes.set_ylim(-0.03, 1.03)
        finish(axes)
    panels[0].set_ylabel("share of facts recalled")
    whole.suptitle(subtitle(found))
    return whole


def ages(found: dict):
    """Up to half a million tokens."""
    own, scores, whole = found["protocol"], scores_of(found), figure(15, 5)
    titles = {
        "age": ("Facts of the beginning", "tokens since they were shown"),
        "fresh": ("New facts", "tokens before they were shown"),
        "after a reset": ("New facts, the states emptied before them", "tokens before they were shown"),
    }
    for axes, (task, (title, below)) in zip(whole.subplots(1, 3, sharey=True), titles.items(), strict=True):
        for arm in (name for name, arm in ARMS.items() if arm.ages):
            curve(axes, arm, [(age, scores.get(arm, {}).get(f"{task}/{age}")) for age in own["ages"]])
        axes.axhline(RECALL_FLOOR, color="grey", linewidth=0.8, label="chance")
        axes.set_xscale("log", base=2)
        axes.set_xticks(own["ages"], [f"{age:,}" for age in own["ages"]], rotation=40)
        axes.set(title=title, xlabel=below, ylim=(-0.03, 1.03))
        finish(axes)
    whole.axes[0].set_ylabel("share of facts recalled")
    whole.suptitle(subtitle(found))
    return whole


def curve(axes, arm: str, points: list[tuple[float, list[float] | None]], *, line: str | None = None) -> None:
    """Means, with a bar from the smallest to the largest of the seeds."""
    known = [(x, numbers) for x, numbers in points if numbers]
    if not known:
        return
    means = [fmean(numbers) for _, numbers in known]
    ranges = [
        [mean - min(numbers) for mean, (_, numbers) in zip(means, known, strict=True)],
        [max(numbers) - mean for mean, (_, numbers) in zip(means, known, strict=True)],
    ]
    colour, mark, own = STYLES[arm]
    axes.errorbar(
        [x for x, _ in known], means, yerr=ranges, color=colour, marker=mark, markersize=7, capsize=3,
        linestyle=own if line is None else line, label=ARMS[arm].told,
    )  # fmt: skip


def finish(axes) -> None:
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, framealpha=0.6)


def subtitle(found: dict) -> str:
    own, on = found["protocol"], found["on"]
    seeds = len({run["seed"] for run in found["runs"]})
    return (
        f"{own['steps']:,} steps of {own['batch']} rows, {seeds} seeds, {on['gpu'] or on['cpu']}, torch {on['torch']}"
    )
