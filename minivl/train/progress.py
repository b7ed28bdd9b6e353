"""What a run leaves for people: a bar while it lasts, a table of all steps, and a plot of the loss.

The table is a CSV with one row a step. A run that goes on from a checkpoint first drops the rows after it, so that no
step stands there twice however often the run was killed; a row that a kill cut off goes with them.
"""

import csv
import os
from collections.abc import Iterable
from pathlib import Path

COLUMNS = ("step", "loss", "rate", "gradient", "units", "seconds")
SMOOTHED = 50  # steps in the plot's running mean, at most a tenth of all


class Log:
    """OUT/log.csv. Rows are flushed as they come."""

    def __init__(self, path: Path, *, done: int):
        """Keep the rows of the first `done` steps, and go on from there."""
        self.path = path
        kept = [row for row in rows(path) if int(row["step"]) <= done]
        draft = path.with_name(path.name + ".draft")
        with draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        os.replace(draft, path)
        self._file = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, COLUMNS)

    def add(self, **row) -> None:
        try:
            self._writer.writerow({name: repr(value) for name, value in row.items()})
            self._file.flush()
        except OSError as fault:
            raise OSError(f"{self.path} could not be written ({fault}); make room and run again") from None

    def flush(self) -> None:
        """Onto the disk, before a checkpoint says that these steps are done."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a log, in order; none where there is no log."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        text = file.read()
    text = text[: text.rfind("\n") + 1]  # a kill may have cut the last row off
    return [row for row in csv.DictReader(text.splitlines()) if None not in row.values()]


def losses(path: Path) -> list[float]:
    """The loss of each step, from the first on."""
    return [float(row["loss"]) for row in rows(path)]


def running_mean(numbers: list[float], window: int) -> list[float]:
    """The mean of each number and those before it, `window` of them at most."""
    return [sum(part) / len(part) for part in (numbers[max(0, i - window + 1) : i + 1] for i in range(len(numbers)))]


def plot(logs: dict[str, Path], picture: Path, *, title: str) -> None:
    """The losses of these logs against the step, each with its running mean, as a PNG."""
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="step", ylabel="loss")
    for name, path in logs.items():
        values = losses(path)
        steps = range(1, len(values) + 1)
        (line,) = axes.plot(steps, values, alpha=0.3, linewidth=0.8)
        window = max(1, min(SMOOTHED, len(values) // 10))
        axes.plot(steps, running_mean(values, window), color=line.get_color(), label=f"{name}, mean of {window}")
    if all(value > 0 for path in logs.values() for value in losses(path)):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    draft = picture.with_name(f"{picture.stem}.draft.png")
    figure.savefig(draft, dpi=120)
    os.replace(draft, picture)


def bar(steps: Iterable[int], *, done: int, total: int, label: str, quiet: bool):
    """A bar that begins where the run goes on, for people only."""
    from tqdm import tqdm

    from ..checkpoint import QUIET

    return tqdm(
        steps, initial=done, total=total, desc=label, unit="step", **QUIET | {"disable": True if quiet else None}
    )
