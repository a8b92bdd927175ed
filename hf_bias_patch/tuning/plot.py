"""A comparison as a picture: score against the numbers that train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_bias_patch.tuning.summary import Row

__all__ = ["plot"]


def plot(table: Sequence[Row], path: Path) -> None:
    """Draw one panel a task: mean and standard deviation of each arm over its trained numbers, on a log scale.

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


def _panel(axes: Any, table: Sequence[Row]) -> None:
    for row in table:
        trained = max(row.trained or 0, 1)  # a frozen trunk has no place on a log scale
        axes.errorbar(trained, row.mean, yerr=row.std, fmt="o", capsize=3)
        axes.annotate(row.arm, (trained, row.mean), xytext=(6, 4), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 4)  # room for the names
    axes.set_xlabel("trained numbers, without the head")
    axes.set_ylabel(f"{table[0].metric} (mean ± standard deviation, {table[0].seeds} seeds)")
    axes.grid(alpha=0.3)
