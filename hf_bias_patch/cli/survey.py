"""`hf-bias-patch census`: many models on the Hub inspected at once, without downloading any."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_bias_patch.cli.options import AsJson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from hf_bias_patch.surveying.survey import Entry
    from hf_bias_patch.surveying.table import FamilyCount

__all__ = ["census"]


def census(
    out: Annotated[Path, typer.Argument(help="A folder; a census that is there goes on.", metavar="OUT")],
    ids: Annotated[Path | None, typer.Option("--ids", help="A file with one Hub id a line.")] = None,
    author: Annotated[str | None, typer.Option(help="The models of a user or organisation.")] = None,
    search: Annotated[str | None, typer.Option(help="The models with this text in their name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="With --author or --search: the most downloaded so many.")] = 100,
    jobs: Annotated[int, typer.Option(min=1, help="Models under way at once.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Inspect many models on the Hub: which have redundant key biases, how large, by family. Downloads none."""
    from hf_bias_patch.surveying.table import by_family, require_parquet

    require_parquet()  # before hundreds of models are asked
    entries = _ask(_names(ids, author, search, limit), out, jobs)
    _write(entries, out)
    families = by_family(entries)
    if as_json:
        typer.echo(json.dumps([asdict(family) for family in families], indent=2))
        return
    _print(entries, families, out)


def _names(ids: Path | None, author: str | None, search: str | None, limit: int) -> list[str]:
    from hf_bias_patch.errors import RecipeError
    from hf_bias_patch.surveying.survey import find_models, read_ids

    if ids is not None and (author or search):
        raise RecipeError("--ids stands beside --author or --search", remedy="Use two commands, with the same OUT")
    if ids is not None:
        return read_ids(ids)
    if not author and not search:
        raise RecipeError("There is nothing to count", remedy="Give --ids FILE, --author X or --search Y")
    return find_models(author, search, limit)


def _ask(names: list[str], out: Path, jobs: int) -> list[Entry]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from hf_bias_patch.cli.console import nbytes, stderr
    from hf_bias_patch.surveying.survey import census as count

    entries: list[Entry] = []
    columns = (TextColumn("models"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[read]} read"))
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task("models", total=len(set(names)), read=nbytes(0))
        for entry in count(names, out, jobs=jobs):
            entries.append(entry)
            bar.update(task, advance=1, read=nbytes(sum(entry.received for entry in entries)))
    return entries


def _write(entries: Sequence[Entry], out: Path) -> None:
    from importlib.util import find_spec

    from hf_bias_patch.surveying.table import write_parquet

    write_parquet(entries, out / "census.parquet")
    if find_spec("matplotlib"):
        from hf_bias_patch.surveying.plot import draw

        draw(entries, out / "census.png")


def _print(entries: Sequence[Entry], families: Sequence[FamilyCount], out: Path) -> None:
    from hf_bias_patch.cli.console import nbytes, stdout, strong

    console = stdout()
    console.print(_table(families))
    told = [entry for entry in entries if not entry.problem]
    console.print(
        f"{len(told)} models looked at, {nbytes(sum(entry.nbytes for entry in told))} of weights; "
        f"{nbytes(sum(entry.received for entry in told))} were read."
    )
    problems = [entry for entry in entries if entry.problem]
    if problems:
        console.print(f"{len(problems)} models tell nothing:")
    for entry in problems:
        console.print(f"  {entry.model}: {entry.problem}", markup=False, highlight=False)
    written = [name for name in ("models.jsonl", "census.parquet", "census.png") if (out / name).is_file()]
    console.print(f"Written: {strong(out)} ({', '.join(written)})", soft_wrap=True)


def _table(families: Sequence[FamilyCount]) -> Table:
    from hf_bias_patch.cli.console import table as empty

    columns = ("family", "models", "with key bias", "redundant", "removable numbers", "median norm")
    made = empty(*columns, numbers=columns[1:])
    for count in families:
        norm = "" if count.norm is None else f"{count.norm:.3g}"
        made.add_row(
            count.family, str(count.models), str(count.with_key), str(count.redundant), f"{count.removable:,}", norm
        )
    return made
