"""Arms that are done, as rows of a table, and as CSV."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import StringIO

from hf_bias_patch.tuning.compare import ArmResult

__all__ = ["CompareRow", "as_csv", "rows"]


@dataclass(frozen=True)
class CompareRow:
    """An arm on a task.

    Attributes:
        task, metric, arm: which.
        seeds: reported runs.
        mean, std: of the metric over them; std is the sample's, 0 for a single run.
        learning_rate: that was chosen.
        trained: numbers that train, the head's not counted.
        seconds: of training, mean.
        peak_bytes: of memory, the largest.
        file_bytes: of the trained tensors, the head among them.
        problem: why there is no more than this; empty if there is.
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


def rows(done: Iterable[ArmResult]) -> list[CompareRow]:
    """A row an arm and task, in the order they were done."""
    return [_row(arm) for arm in done]


def _row(done: ArmResult) -> CompareRow:
    arm = done.arm.replace(",", "+")
    if not done.results:
        return CompareRow(done.task, arm, problem=done.problem)
    first = done.results[0]
    scores = [result["metrics"][first["main_metric"]] for result in done.results]
    return CompareRow(
        done.task,
        arm,
        first["main_metric"],
        len(scores),
        statistics.fmean(scores),
        statistics.stdev(scores) if len(scores) > 1 else 0.0,
        done.rate,
        first["trained_without_head"],
        statistics.fmean(result["seconds"] for result in done.results),
        max((result["peak_bytes"] or 0 for result in done.results), default=0) or None,
        first["trained_bytes"],
    )


def as_csv(table: Sequence[CompareRow]) -> str:
    """The rows with a header line."""
    text = StringIO()
    writer = csv.DictWriter(text, list(asdict(CompareRow("", ""))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in table)
    return text.getvalue()
