"""Prints arms and bars as tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from patching_bench.arms import SYNC
from patching_bench.bars import MB, Bar, Results
from patching_bench.runs import Failure

COLUMNS = (
    "seconds",
    "CPU s",
    "x cp",
    "x cp+sync",
    "peak MB",
    "MB written",
    "touched",
    "cores of others",
    "runs",
)


def report(results: Results, failures: Sequence[Failure], judged: Sequence[Bar]) -> None:
    """Print both tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    table = Table("arm", title="Arms (medians; the fastest and slowest run in brackets)")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for arm in results.samples:
        table.add_row(arm, *_row(results, arm))
    console.print(table)
    for failure in failures:
        console.print(f"[red]not measured[/red] {failure.arm}: {failure.why}")
    for strict, title in ((True, "Bars"), (False, "The same, counted otherwise")):
        console.print(_bar_table([bar for bar in judged if bar.strict is strict], title))
    strict_bars = [bar for bar in judged if bar.strict]
    console.print(f"{sum(bar.met for bar in strict_bars)} of {len(strict_bars)} bars met")


def _bar_table(judged: Sequence[Bar], title: str) -> Any:
    from rich.table import Table

    table = Table("bar", title=title)
    for column in ("measured", "limit", ""):
        table.add_column(column, justify="right")
    for bar in judged:
        verdict = "[green]pass[/green]" if bar.met else "[bold red]MISS[/bold red]"
        table.add_row(bar.name, _text(bar.measured, bar.unit), _text(bar.limit, bar.unit), verdict)
    return table


def _row(results: Results, arm: str) -> list[str]:
    samples = results.used[arm]
    seconds = [sample.seconds for sample in samples]
    figures = [results.figure(arm, name) for name in ("written_bytes", "touched_bytes")]
    foreign = max(sample.foreign_cores for sample in samples)
    return [
        f"{statistics.median(seconds):.2f} [{min(seconds):.2f}..{max(seconds):.2f}]",
        f"{statistics.median(sample.cpu_seconds for sample in samples):.2f}",
        _text(results.ratio(arm, "cp"), ""),
        _text(results.ratio(arm, SYNC), ""),
        _text((results.peak(arm) or 0) / MB, ""),
        *(_text(None if value is None else value / MB, "") for value in figures),
        f"{foreign:.2f}" + ("" if samples[0].calm else " (!)"),
        f"{len(samples)}/{len(results.samples[arm])}",
    ]


def _text(value: float | None, unit: str) -> str:
    return "not measured" if value is None and unit else "" if value is None else f"{value:,.3g} {unit}".rstrip()
