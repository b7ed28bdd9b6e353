"""The claims' tables, as text: every arm's scores with their spread, the verdicts, and how it was all made.

A cell is the mean over seeds in percent and, after ±, half of the range from the smallest to the largest.
"""

from collections.abc import Sequence
from statistics import fmean

from .claims_arms import ARMS, PARTS
from .claims_verdicts import BELOW, NOISE, UNKNOWN, Verdict, claims, judged

BESIDE = ("reading", "characters", "attributes", "average")


def scores_of(found: dict) -> dict[str, dict[str, list[float]]]:
    """Of each arm and task, one number a seed, in the order of the seeds."""
    scores: dict[str, dict[str, list[float]]] = {}
    for run in sorted(found["runs"], key=lambda run: run["seed"]):
        for task, score in run["scores"].items():
            scores.setdefault(run["arm"], {}).setdefault(task, []).append(score)
    return scores


def verdicts(found: dict) -> list[Verdict]:
    own = found["protocol"]
    asked = {name: own[name] for name in ("windows", "facts", "ages")}
    scores = scores_of(found)
    return [judged(claim, scores) for claim in claims(**asked, trained=own["longest"] / own["window"])]


def told(verdict: Verdict) -> str:
    """The sentence that the numbers make."""
    claim = verdict.claim
    if verdict.outcome == UNKNOWN:
        return f"{claim.says}: {UNKNOWN}"
    (arm, task), (other, its) = claim.one, claim.other
    sides = [f"{ARMS[arm].told} {verdict.one:.1%}", f"{ARMS[other].told} {verdict.other:.1%}"]
    if task != its:
        sides = [f"{named(task)} {verdict.one:.1%}", f"{named(its)} {verdict.other:.1%}"]
    what = named(task) if task == its else ARMS[arm].told
    asked = "not below" if claim.form == BELOW else "above"
    compared = f"{what}: {sides[0]}, {asked} {sides[1]}? spread {verdict.spread:.1%}"
    return f"{claim.says}: {verdict.outcome.upper()}\n    {compared}"


KINDS = {
    "recall": "recall {} windows back",
    "facts": "{} facts at once",
    "age": "first facts after {} tokens",
    "fresh": "new facts after {} tokens",
    "after a reset": "new facts after {} tokens and a reset",
}


def named(task: str) -> str:
    kind, _, number = task.partition("/")
    return KINDS[kind].format(f"{int(number):,}") if number else task


def table(title: str, arms: Sequence[str], tasks: Sequence[str], scores: dict) -> list[str]:
    """One line an arm; nothing where no arm has a score."""
    rows = [arm for arm in arms if any(task in scores.get(arm, {}) for task in tasks)]
    if not rows:
        return []
    lines = ["", f"{title:<34}" + "".join(f"{short(task):>13}" for task in tasks)]
    for arm in rows:
        lines.append(f"{ARMS[arm].told:<34}" + "".join(f"{cell(scores[arm].get(task)):>13}" for task in tasks))
    return lines


def short(task: str) -> str:
    """A task's name in a column's head: of a number, the number alone."""
    number = task.partition("/")[2]
    return f"{int(number):,}" if number else task


def cell(numbers: list[float] | None) -> str:
    if not numbers:
        return "—"
    return f"{fmean(numbers):.1%} ± {(max(numbers) - min(numbers)) / 2:.1%}".replace("%", "")


def report(found: dict) -> str:
    own, scores, runs = found["protocol"], scores_of(found), found["runs"]
    seeds = sorted({run["seed"] for run in runs})
    lines = [
        *about(found),
        "",
        f"Scores in percent: mean of seeds {', '.join(map(str, seeds))} ± half of their range.",
    ]
    for title, arms in PARTS.items():
        lines += table(title, arms, BESIDE, scores)
    recall = [f"recall/{windows}" for windows in own["windows"]]
    lines += table("Recall, by windows gone by", list(ARMS), recall, scores)
    lines += table("Recall, by facts known at once", list(ARMS), [f"facts/{n}" for n in own["facts"]], scores)
    for task, title in (
        ("age", "First facts, by tokens gone by"),
        ("fresh", "New facts, by tokens before"),
        ("after a reset", "The same, after a reset"),
    ):
        lines += table(title, list(ARMS), [f"{task}/{age}" for age in own["ages"]], scores)
    if stopped := [run for run in runs if run["stopped"]]:
        lines += ["", *(f"{ARMS[run['arm']].told}, seed {run['seed']}, stopped: {run['stopped']}" for run in stopped)]
    lines += [
        "",
        f"Does it appear? The spread is the larger of the two ranges over seeds, and {NOISE:.0%} at least.",
        *(f"- {told(verdict)}" for verdict in verdicts(found)),
    ]
    return "\n".join(lines)


def about(found: dict) -> list[str]:
    own, on, shape, runs = (found[name] for name in ("protocol", "on", "shape", "runs"))
    training, scoring = (sum(run[f"{what}_seconds"] for run in runs) / 3600 for what in ("training", "scoring"))
    sizes = [run["parameters"] for run in runs if "parameters" in run]
    millions = f"{min(sizes) / 1e6:.2f} to {max(sizes) / 1e6:.2f} million" if sizes else "no"
    return [
        f"{on['gpus'] or 1} × {on['gpu'] or on['cpu']}, {on['cores']} cores, "
        f"Python {on['python']}, torch {on['torch']}",
        f"{shape['layers']} layers of width {shape['width']}, {millions} parameters in the decoder; a window of "
        f"{own['window']} tokens,",
        f"a state of {shape['state']:,} numbers a linear layer; starts from {own['start']}; {own['steps']:,} steps of "
        f"{own['batch']} rows, rate {own['learning_rate']:g}",
        f"{len(runs)} runs, {found['at_once']} at a time, in {found['minutes']:.1f} minutes by the clock: "
        f"{training:.2f} hours of steps, {scoring:.2f} of scoring",
    ]
