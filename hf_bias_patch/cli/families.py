"""`hf-bias-patch families`: what is known of the attention biases of each model type."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_bias_patch.cli.drafts import print_drafts
from hf_bias_patch.cli.family_check import print_check
from hf_bias_patch.cli.options import AsJson
from hf_bias_patch.errors import RecipeError

if TYPE_CHECKING:
    from hf_bias_patch.attention.matrix import Entry, TowerEntry

__all__ = ["families"]


def families(
    names: Annotated[list[str] | None, typer.Argument(help="Model types; all, if none is named.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Hold the table against probes of small random models. Takes seconds each.")
    ] = False,
    vary: Annotated[
        bool, typer.Option("--vary", help="With --check: also with each config value changed that attention may read.")
    ] = False,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="With --vary: also every two of these changes together.")
    ] = False,
    draft: Annotated[
        bool,
        typer.Option("--draft", help="Write the family file of these types from what small models show, and check it."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="With --draft: the folder for the files, instead of printing them.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="With --check, --draft: processes at a time.", min=1)] = 1,
    timeout: Annotated[float, typer.Option(help="With --check, --draft: seconds for one small model.", min=1)] = 240.0,
    as_json: AsJson = False,
) -> None:
    """Print what becomes of the query, key and value bias in each model type; loads no model but to check or to draft.

    Exit code 1 if a check finds that the table promises what the numbers refute, or that something was not seen or not
    checked for no known reason; or if a type cannot be drafted.
    """
    if draft:
        if check or markdown or as_json:
            raise RecipeError("--draft goes with none of --check, --markdown and --json", why="It checks by itself")
        print_drafts(names or [], output, jobs, timeout)
    if output is not None:
        raise typer.BadParameter("it goes with --draft", param_hint="--output")
    if check and markdown:
        raise RecipeError("--check prints no Markdown", remedy="Leave out one of them, or ask for --json")
    if vary and not check:
        raise typer.BadParameter("it goes with --check", param_hint="--vary")
    if pairs and not vary:
        raise typer.BadParameter("it goes with --vary", param_hint="--pairs")
    if check:
        print_check(names or [], 2 if pairs else 1 if vary else 0, jobs, timeout, as_json)
    _print_table(names or [], markdown, as_json)


def _print_table(names: list[str], markdown: bool, as_json: bool) -> None:
    from hf_bias_patch.attention.matrix import matrix, without_attention

    entries, towers = matrix(names)
    none = without_attention(names)
    if as_json:
        sites = {"sites": [asdict(entry) for entry in entries], "towers": [asdict(tower) for tower in towers]}
        typer.echo(json.dumps({**sites, "without_attention": list(none)}, indent=2, ensure_ascii=False))
    elif markdown:
        from hf_bias_patch.attention.matrix_text import markdown as text

        typer.echo(text(entries, towers, none))
    else:
        _print(entries, towers, none)


def _print(entries: Iterable[Entry], towers: Iterable[TowerEntry], none: Iterable[str]) -> None:
    from hf_bias_patch.attention.matrix_text import columns
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
        "redundant: removing it changes nothing. An arrow says where a bias can go exactly (into the output bias where "
        "there is one). In brackets: the traps that close other roads; docs/theory.md explains them, --json says all."
    )
