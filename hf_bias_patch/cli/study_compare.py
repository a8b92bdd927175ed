"""`hf-bias-patch study compare`: studies of several models side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_bias_patch.errors import ExtraError, TargetError

if TYPE_CHECKING:
    from rich.table import Table

    from hf_bias_patch.studies.summaries.comparison import Line

__all__ = ["compare"]

_SCORES = "comparison-scores.csv"
_FILES = ("comparison.csv", "comparison.html", "comparison.png", "comparison.svg", _SCORES)


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of studies, two or more.", metavar="DIR")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the table, a page and a figure.", metavar="DIR", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a comparison that is there.")] = False,
) -> None:
    """Put studies of several models side by side: what each bias does, and what can go."""
    from hf_bias_patch.cli.console import stdout, strong
    from hf_bias_patch.cli.study_tables import scores_table
    from hf_bias_patch.studies.summaries.comparison import lines, names, read_all, scores_side_by_side, sentences

    studies = read_all(folders)
    told = names(studies, folders)
    table = lines(studies, told)
    said = sentences(studies, told, table)
    scores = scores_side_by_side(studies, told)
    written = [] if out is None else list(_write(table, scores, said, out, overwrite))
    stdout().print(_table(table))
    if scores:
        stdout().print(scores_table({name: study.scores for name, study in zip(told, studies, strict=True)}))
    for line in said:
        stdout().print(line, markup=False)
    if written:
        stdout().print(f"Written: {strong(out)} ({', '.join(written)})")


def _write(
    table: Sequence[Line], scores: Sequence[Mapping[str, Any]], said: Sequence[str], out: Path, overwrite: bool
) -> Iterator[str]:
    """What can be written: where a library is missing, its file is left out, and that is said."""
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.studies.figures import write_comparison_figure
    from hf_bias_patch.studies.report import write_comparison_page
    from hf_bias_patch.studies.summaries.comparison import csv_of

    there = [name for name in _FILES if (out / name).exists()]
    if there and not overwrite:
        raise TargetError(f"{out / there[0]} is there", "Nothing is touched", "Name another folder, or add --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / _FILES[0]).write_text(csv_of([asdict(line) for line in table]), "utf-8", newline="")
        if scores:
            (out / _SCORES).write_text(csv_of(scores), "utf-8", newline="")
    except OSError as error:
        raise TargetError(f"{out} cannot be made or written to: {error}", remedy="Name another folder") from None
    yield from (_FILES[0], _SCORES) if scores else (_FILES[0],)
    try:
        yield write_comparison_page(table, scores, said, out)
        yield from write_comparison_figure(table, out)
    except ExtraError as error:
        stderr().print(str(error), markup=False)


def _table(table: Sequence[Line]) -> Table:
    from hf_bias_patch.cli.console import table as empty_table

    biases = ("query", "key", "value")
    losses = tuple(f"loss, {name}" for name in biases)
    with_loss = any(line.query_loss is not None or line.value_loss is not None for line in table)
    numbers = (*biases, "noise floor", *(losses if with_loss else ()), "can go")
    made = empty_table("model", "where", *numbers, numbers=numbers)
    made.title = "Change of the last states with a bias at zero, over their norm"
    for line in table:
        cells = [_cell(value, ".2g") for value in (line.query, line.key, line.value, line.floor)]
        if with_loss:
            cells += [_cell(value, "+.2g") for value in (line.query_loss, line.key_loss, line.value_loss)]
        gone = "" if line.can_go is None else f"{line.can_go:,} of {line.numbers:,}"
        made.add_row(_plain(line.model), line.place, *cells, gone)
    return made


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
