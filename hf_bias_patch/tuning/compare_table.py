"""The table of a comparison: a row for each arm and task, as CSV, and as a plot of score against trained parameters."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

__all__ = ["ArmResult", "CompareRow", "as_csv", "plot"]


@dataclass(frozen=True)
class CompareRow:
    """An arm on a task.

    Attributes:
        task, arm: which.
        metric: the task's main metric.
        seeds: reported runs.
        mean, std: of the metric over them; std is the sample's, 0 for a single run.
        learning_rate: the one that was chosen.
        trained: parameters that train, the head's not counted.
        seconds: of training, mean.
        peak_bytes: of memory, the largest.
        file_bytes: of the trained tensors, the head among them.
        problem: why there are no scores; empty if there are.
    """

    task: str
    arm: str
    metric: str = ""
    seeds: int = 0
    mean: float | None = None
    std: float | None = None
    learning_rate: float | None = None
    trained: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    file_bytes: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class ArmResult:
    """What an arm gave on a task.

    Attributes:
        task, arm: which.
        rate: the learning rate that was chosen.
        chosen: rate → the main metric on held-out training data.
        results: of the reported runs, as in their results.json.
        problem: why there are none; empty if there are.
    """

    task: str
    arm: str
    rate: float = 0.0
    chosen: Mapping[float, float] = field(default_factory=dict)
    results: tuple[Mapping[str, Any], ...] = ()
    problem: str = ""

    @property
    def row(self) -> CompareRow:
        """As a row of the table."""
        arm = self.arm.replace(",", "+")
        if not self.results:
            return CompareRow(self.task, arm, problem=self.problem)
        first = self.results[0]
        scores = [result["metrics"][first["main_metric"]] for result in self.results]
        return CompareRow(
            self.task,
            arm,
            first["main_metric"],
            len(scores),
            statistics.fmean(scores),
            statistics.stdev(scores) if len(scores) > 1 else 0.0,
            self.rate,
            first["trained_without_head"],
            statistics.fmean(result["seconds"] for result in self.results),
            max((result["peak_bytes"] or 0 for result in self.results), default=0) or None,
            first["trained_bytes"],
        )


def as_csv(table: Sequence[CompareRow]) -> str:
    """The rows with a header line."""
    text = StringIO()
    writer = csv.DictWriter(text, list(asdict(CompareRow("", ""))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in table)
    return text.getvalue()


def plot(table: Sequence[CompareRow], path: Path) -> None:
    """Draw a panel for each task: mean and standard deviation of each arm against its trained parameters.

    Args:
        table: rows that have a mean.
        path: of the picture; its ending says the format, such as .png or .svg.
    """
    from matplotlib.figure import Figure

    scored = [row for row in table if row.mean is not None]
    tasks = list(dict.fromkeys(row.task for row in scored))
    figure = Figure(figsize=(5.2 * max(1, len(tasks)), 4.2), layout="constrained")
    for number, task in enumerate(tasks, 1):
        axes = figure.add_subplot(1, len(tasks), number)
        _panel(axes, [row for row in scored if row.task == task])
        axes.set_title(task)
    figure.savefig(path, dpi=150)


def _panel(axes: Any, table: Sequence[CompareRow]) -> None:
    points: dict[tuple[int, float], list[CompareRow]] = {}
    for row in table:
        points.setdefault((row.trained or 0, round(row.mean or 0.0, 2)), []).append(row)
    for (trained, mean), rows in points.items():
        name = ", ".join(row.arm for row in rows)  # BEFT and the value bias are one thing, and so is their score
        axes.errorbar(trained, mean, yerr=rows[0].std, fmt="o", capsize=3)
        axes.annotate(name, (trained, mean), xytext=(6, 4), textcoords="offset points", fontsize=9)
    axes.set_xscale("symlog", linthresh=100)  # logarithmic from 100 on: a frozen trunk trains 0 parameters
    axes.set_xlim(-20, axes.get_xlim()[1] * 4)  # room for the names
    axes.set_xlabel("trained parameters, without the head")
    axes.set_ylabel(f"{table[0].metric} (mean ± standard deviation, {table[0].seeds} seeds)")
    axes.grid(alpha=0.3)
