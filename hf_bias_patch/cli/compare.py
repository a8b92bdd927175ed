"""`hf-bias-patch compare`: arms against each other on some tasks, in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from hf_bias_patch.cli.options import AsJson
from hf_bias_patch.cli.settings import ANY_DASHES, options_of
from hf_bias_patch.tuning.compare import CompareSettings

if TYPE_CHECKING:
    from rich.table import Table

    from hf_bias_patch.tuning.compare_table import CompareRow

__all__ = ["command"]


def command() -> Any:
    """The command `hf-bias-patch compare`."""
    made = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    made.command("compare", context_settings={**ANY_DASHES, "help_option_names": ["-h", "--help"]})(
        options_of(CompareSettings, _compare)
    )
    return typer.main.get_command(made)


def _compare(fields: Mapping[str, Any], as_json: AsJson = False) -> None:
    """Train each arm on each task with the same data and budget, and compare scores, time, memory and size."""
    from hf_bias_patch.cli.console import stderr, stdout, strong
    from hf_bias_patch.scoring.extra import need
    from hf_bias_patch.tuning.compare import ArmResult, compare
    from hf_bias_patch.tuning.compare_table import rows
    from hf_bias_patch.tuning.settings import make_settings

    settings = make_settings(CompareSettings, **fields)
    need("accelerate")
    table: list[CompareRow] = []
    told: set[str] = set()
    with stderr().status("starting") as status:
        for event in compare(settings):
            if isinstance(event, ArmResult):
                table += rows([event])
                if event.results and event.task not in told:  # of all arms the same: which data, and what was left out
                    told.add(event.task)
                    for note in event.results[0].get("notes", ()):
                        stderr().print(note, markup=False)
                _write_csv(settings, table)
                stderr().print(f"{event.task}, {event.arm}: {_score(table[-1]) or 'no result'}")
                continue
            running = f"{event.task}, {event.arm}: {event.name} (run {event.number} of {event.total})"
            status.update(running)
            if not stderr().is_terminal:  # in a log of a run of hours nothing else would say how far it is
                stderr().print(running)
    _draw(settings, table)
    code = 0 if any(row.mean is not None for row in table) else 1  # nothing could be compared
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in table], indent=2))
        raise typer.Exit(code)
    stdout().print(_table(table))
    drawn = "compare.png, " if (settings.output_dir / "compare.png").exists() else ""
    stdout().print(f"Written: {strong(settings.output_dir)} (compare.csv, {drawn}a run folder for each run)")
    if not drawn:
        stdout().print(
            "Without a plot: pip install 'hf_bias_patch[plot]', and the same command draws it.", markup=False
        )
    raise typer.Exit(code)


def _write_csv(settings: CompareSettings, table: Sequence[CompareRow]) -> None:
    from hf_bias_patch.tuning.compare_table import as_csv

    settings.output_dir.mkdir(parents=True, exist_ok=True)
    (settings.output_dir / "compare.csv").write_text(as_csv(table), "utf-8")


def _draw(settings: CompareSettings, table: Sequence[CompareRow]) -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib"):
        from hf_bias_patch.tuning.plot import plot

        plot(table, settings.output_dir / "compare.png")


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
