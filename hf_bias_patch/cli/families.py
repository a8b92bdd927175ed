"""`hf-bias-patch families`: what is known of the attention biases of each model type."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from hf_bias_patch.cli.family_check import print_check, print_drafts
from hf_bias_patch.cli.options import AsJson
from hf_bias_patch.errors import RecipeError

if TYPE_CHECKING:
    from hf_bias_patch.architecture.support_table import SupportRow, SupportTower

__all__ = ["families"]


def families(
    names: Annotated[
        list[str] | None, Argument(help="Model types, such as bert; all if none is named.", metavar="TYPE")
    ] = None,
    markdown: Annotated[bool, Option("--markdown", help="Print Markdown instead of a table.")] = False,
    check: Annotated[
        bool, Option("--check", help="Compare the table with probes of small random models; seconds for each.")
    ] = False,
    vary: Annotated[
        bool, Option("--vary", help="With --check: also change the config values that attention may read, one by one.")
    ] = False,
    pairs: Annotated[
        bool, Option("--pairs", help="With --vary: also make every two of these changes together.")
    ] = False,
    draft: Annotated[
        bool, Option("--draft", help="Write family files from what small random models show, and check them.")
    ] = False,
    output: Annotated[
        Path | None, Option(help="With --draft: write the files into this folder, not to the screen.", metavar="DIR")
    ] = None,
    jobs: Annotated[int, Option(help="With --check or --draft: how many models are run at once.", min=1)] = 1,
    timeout: Annotated[float, Option(help="With --check or --draft: seconds for one model, at most.", min=1)] = 240.0,
    as_json: AsJson = False,
) -> None:
    """Show which query, key and value biases of each model type are redundant, and where others can be folded.

    Runs no model, except with --check and --draft. Exit code 1 if a check refutes the table, or could not see or check
    something for no known reason; or if a type cannot be drafted.
    """
    if draft:
        if check or markdown or as_json:
            raise RecipeError(
                "--draft cannot be combined with --check, --markdown or --json", why="It checks what it drafts"
            )
        print_drafts(names or [], output, jobs, timeout)
    if output is not None:
        raise typer.BadParameter("it goes with --draft", param_hint="--output")
    if check and markdown:
        raise RecipeError("--check cannot print Markdown", remedy="Leave --markdown out, or ask for --json")
    if vary and not check:
        raise typer.BadParameter("it goes with --check", param_hint="--vary")
    if pairs and not vary:
        raise typer.BadParameter("it goes with --vary", param_hint="--pairs")
    if check:
        print_check(names or [], vary, pairs, jobs, timeout, as_json)
    _print_table(names or [], markdown, as_json)


def _print_table(names: list[str], markdown: bool, as_json: bool) -> None:
    from hf_bias_patch.architecture.support_table import support_table, without_attention

    entries, towers = support_table(names)
    none = without_attention(names)
    if as_json:
        sites = {"sites": [asdict(entry) for entry in entries], "towers": [asdict(tower) for tower in towers]}
        typer.echo(json.dumps({**sites, "without_attention": list(none)}, indent=2, ensure_ascii=False))
    elif markdown:
        from hf_bias_patch.architecture.support_table import markdown as text

        typer.echo(text(entries, towers, none))
    else:
        _print(entries, towers, none)


def _print(entries: Iterable[SupportRow], towers: Iterable[SupportTower], none: Iterable[str]) -> None:
    from hf_bias_patch.architecture.support_table import columns
    from hf_bias_patch.cli.console import stdout
    from hf_bias_patch.cli.console import table as empty_table

    table = empty_table("model type", "site", "query bias", "key bias", "value bias")
    for row in sorted(columns(entries)):
        table.add_row(*row)
    inner = {(name, tower.name, tower.model_type or tower.config) for tower in towers for name in tower.model_types}
    for model_type, name, what in sorted(inner):
        table.add_row(model_type, f"{name} tower", f"[dim]see {what}[/]")
    for model_type in none:
        table.add_row(model_type, "[dim]no attention[/]")
    stdout().print(table)
    stdout().print(
        "redundant: removing it changes nothing. An arrow says where a bias can be folded exactly (the output bias "
        "if there is one). In brackets: what closes other destinations; docs/theory.md explains it, --json prints all."
    )
