"""`hf-bias-patch survey`: the attention biases of many models on the Hub, read without downloading any."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from hf_bias_patch.cli.options import AsJson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from hf_bias_patch.surveying.record import SurveyedModel
    from hf_bias_patch.surveying.summary import FamilyCount
    from hf_bias_patch.surveying.survey import Survey

__all__ = ["census", "survey"]


def survey(
    out: Annotated[
        Path,
        Argument(help="A folder for what was found; a survey that was stopped there goes on.", metavar="OUT"),
    ],
    ids: Annotated[Path | None, Option(help="A text file with one Hub id a line.", metavar="FILE")] = None,
    author: Annotated[str | None, Option(help="The models of this user or organisation.")] = None,
    search: Annotated[str | None, Option(help="The models with this text in their name.")] = None,
    limit: Annotated[
        int, Option(min=1, help="With --author or --search: how many models, most downloaded first.")
    ] = 100,
    jobs: Annotated[int, Option(min=1, help="How many models are read at once.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Count the attention biases of many models on the Hub, by family: which key biases are redundant, and how large.

    No model is downloaded.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from hf_bias_patch.cli.console import nbytes, stderr
    from hf_bias_patch.surveying.survey import survey as read_all

    columns = (TextColumn("models"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[read]} read"))
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task, received = bar.add_task("models", total=None, read=nbytes(0)), [0]

        def step(model: SurveyedModel) -> None:
            received[0] += model.received
            bar.update(task, advance=1, read=nbytes(received[0]))

        asked: dict[str, Any] = {"ids": ids, "author": author, "search": search, "limit": limit, "jobs": jobs}
        found = read_all(out, **asked, announce=lambda count: bar.update(task, total=count), progress=step)
    if as_json:
        typer.echo(json.dumps([asdict(family) for family in found.families], indent=2))
    else:
        _print(found)


@wraps(survey)
def census(**given: Any) -> None:
    """The old name of the command."""
    from hf_bias_patch.cli.console import stderr

    stderr().print("The command `census` is called `survey` now; the old name still works.", markup=False)
    survey(**given)


def _print(found: Survey) -> None:
    from hf_bias_patch.cli.console import nbytes, stdout, strong

    console = stdout()
    console.print(_table(found.families))
    read = [model for model in found.models if not model.problem]
    console.print(
        f"Models that were looked at: {len(read)}, with {nbytes(sum(model.nbytes for model in read))} of weights; "
        f"{nbytes(sum(model.received for model in read))} were read."
    )
    if problems := [model for model in found.models if model.problem]:
        console.print(f"Models that could not be read: {len(problems)}")
    for model in problems:
        console.print(f"  {model.model}: {model.problem}", markup=False, highlight=False)
    console.print(f"Written: {strong(found.path)} ({', '.join(found.files)})", soft_wrap=True)


def _table(families: Sequence[FamilyCount]) -> Table:
    from hf_bias_patch.cli.console import table as empty_table

    columns = ("family", "models", "with key bias", "redundant", "removable parameters", "largest norm, median")
    made = empty_table(*columns, numbers=columns[1:])
    for count in families:
        norm = "" if count.norm is None else f"{count.norm:.3g}"
        counts = (count.models, count.with_key, count.redundant)
        made.add_row(count.family, *map(str, counts), f"{count.removable:,}", norm)
    return made
