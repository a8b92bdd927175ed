"""A comparison as a picture: score against the numbers that train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_bias_patch.tuning.compare_table import CompareRow

__all__ = ["plot"]


def plot(table: Sequence[CompareRow], path: Path) -> None:
    """Draw one panel a task: mean and standard deviation of each arm over its trained numbers, on a scale that is
    logarithmic from 100 on.

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
    axes.set_xscale("symlog", linthresh=100)  # a frozen trunk trains 0 numbers
    axes.set_xlim(-20, axes.get_xlim()[1] * 4)  # room for the names
    axes.set_xlabel("trained numbers, without the head")
    axes.set_ylabel(f"{table[0].metric} (mean ± standard deviation, {table[0].seeds} seeds)")
    axes.grid(alpha=0.3)
