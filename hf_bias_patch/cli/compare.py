"""`hf-bias-patch compare`: arms against each other on some tasks, in one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hf_bias_patch.cli.options import AsJson
from hf_bias_patch.cli.settings import command_of, options_of

if TYPE_CHECKING:
    from rich.table import Table

    from hf_bias_patch.tuning.compare import RunStarted
    from hf_bias_patch.tuning.compare_table import ArmResult, CompareRow

__all__ = ["command"]


def command() -> Any:
    """The command `hf-bias-patch compare`."""
    from hf_bias_patch.tuning.compare import CompareSettings

    return command_of("compare", options_of(CompareSettings, _compare))


def _compare(fields: Mapping[str, Any], as_json: AsJson = False) -> None:
    """Train each arm on each task with the same data and budget, and compare scores, time, memory and size."""
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.tuning.compare import CompareSettings, compare
    from hf_bias_patch.tuning.settings import make_settings

    settings = make_settings(CompareSettings, **fields)
    with stderr().status("starting") as status:
        table = compare(settings, _Progress(status.update))
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in table], indent=2))
    else:
        _print(table, settings.output_dir)
    raise typer.Exit(0 if any(row.mean is not None for row in table) else 1)  # 1: nothing could be compared


class _Progress:
    """Prints how far a comparison is."""

    def __init__(self, status: Callable[[str], object]) -> None:
        self._status, self._told = status, set[str]()

    def __call__(self, event: RunStarted | ArmResult) -> None:
        from hf_bias_patch.cli.console import stderr
        from hf_bias_patch.tuning.compare import RunStarted

        if isinstance(event, RunStarted):
            running = f"{event.task}, {event.arm}: {event.name} (run {event.number} of {event.total})"
            self._status(running)
            if not stderr().is_terminal:  # in a log of a run of hours nothing else would say how far it is
                stderr().print(running)
            return
        if event.results and event.task not in self._told:  # the same for all arms: which data, and what was left out
            self._told.add(event.task)
            for note in event.results[0].get("notes", ()):
                stderr().print(note, markup=False)
        stderr().print(f"{event.task}, {event.arm}: {_score(event.row) or 'no result'}")


def _print(table: Sequence[CompareRow], folder: Path) -> None:
    from hf_bias_patch.cli.console import stdout, strong

    stdout().print(_table(table))
    drawn = "compare.png, " if (folder / "compare.png").exists() else ""
    stdout().print(f"Written: {strong(folder)} (compare.csv, {drawn}a run folder for each run)")
    if not drawn:
        stdout().print(
            "There is no plot. `pip install 'hf_bias_patch[plot]'`, then run the same command again.", markup=False
        )


def _score(row: CompareRow) -> str:
    """Mean and standard deviation; empty if there is none."""
    return "" if row.mean is None else f"{row.mean:.2f} ± {row.std:.2f}"


def _table(table: Sequence[CompareRow]) -> Table:
    from hf_bias_patch.cli.console import nbytes
    from hf_bias_patch.cli.console import table as empty

    columns = ("task", "arm", "score", "metric", "trained", "rate", "time", "peak memory", "file")
    made = empty(*columns, numbers=("score", "trained", "rate", "time", "peak memory", "file"))
    for row in table:
        if not (score := _score(row)):
            made.add_row(row.task, row.arm, "–", row.problem)
            continue
        numbers = f"{row.trained:,}", f"{row.learning_rate:g}", f"{row.seconds:.0f} s"
        sizes = nbytes(row.peak_bytes) if row.peak_bytes else "–", nbytes(row.file_bytes or 0)
        made.add_row(row.task, row.arm, score, row.metric, *numbers, *sizes)
    return made
