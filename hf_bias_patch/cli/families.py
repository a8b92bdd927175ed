"""`hf-bias-patch families`: what is known of each model type, and whether the numbers say the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hf_bias_patch.cli.options import AsJson

if TYPE_CHECKING:
    from hf_bias_patch.attention.matrix import Entry, TowerEntry
    from hf_bias_patch.probing.sweep import Swept

__all__ = ["families"]


def families(
    names: Annotated[list[str] | None, typer.Argument(help="Model types; all, if none is named.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Hold the table against probes of small random models. Takes seconds each.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="With --check: processes at a time.", min=1)] = 1,
    timeout: Annotated[float, typer.Option(help="With --check: seconds for one model type.", min=1)] = 240.0,
    as_json: AsJson = False,
) -> None:
    """Print what becomes of the query, key and value bias in each model type; loads no model without --check.

    Exit code 1 if a check finds that the table promises what the numbers refute.
    """
    if check:
        _check(names or [], jobs, timeout, as_json)
        return
    from hf_bias_patch.attention.matrix import matrix

    entries, towers = matrix(names or [])
    if as_json:
        found = {"sites": [asdict(entry) for entry in entries], "towers": [asdict(tower) for tower in towers]}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif markdown:
        from hf_bias_patch.attention.matrix_text import markdown as text

        typer.echo(text(entries, towers))
    else:
        _print(entries, towers)


def _print(entries: Iterable[Entry], towers: Iterable[TowerEntry]) -> None:
    from rich import box
    from rich.table import Table

    from hf_bias_patch.attention.matrix_text import columns
    from hf_bias_patch.cli.console import stdout

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("model type", "site", "query bias", "key bias", "value bias"):
        table.add_column(name, overflow="fold")
    for row in sorted(columns(entries)):
        table.add_row(*row)
    inner = {(name, tower.name, tower.model_type or tower.config) for tower in towers for name in tower.model_types}
    for model_type, name, what in sorted(inner):
        table.add_row(model_type, f"{name} tower", f"[dim]see {what}[/]")
    stdout().print(table)
    stdout().print(
        "An arrow says where a bias can go exactly; in brackets is what closes other roads. --json says all."
    )


def _check(names: list[str], jobs: int, timeout: float, as_json: bool) -> None:
    from hf_bias_patch.probing.small import model_types
    from hf_bias_patch.probing.sweep import sweep

    _refuse_unknown(names, model_types())
    found = []
    for swept in sweep(names or model_types(), jobs, timeout):
        found.append(swept)
        if not as_json:
            _show(swept)
    wrong = [swept for swept in found if swept.wrong]
    if as_json:
        typer.echo(json.dumps([swept.plain() for swept in found], indent=2, ensure_ascii=False))
    else:
        _sum_up(found)
    raise typer.Exit(1 if wrong else 0)


def _refuse_unknown(names: list[str], known: Iterable[str]) -> None:
    from hf_bias_patch.errors import FamilyError

    if unknown := sorted(set(names) - set(known)):
        raise FamilyError(
            f"No small model of type {unknown[0]!r} can be built",
            why="The installed transformers has no such type, or it needs a package that is not there",
        )


def _show(swept: Swept) -> None:
    from hf_bias_patch.cli.console import stdout

    line = f"{swept.model_type}: {swept.agreed} agreed"
    if swept.differences:
        kinds = [difference.kind for difference in swept.differences]
        line += "".join(f", {kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    stdout().print(line + (f", not checked: {swept.problem}" if swept.problem else ""), markup=False, soft_wrap=True)
    groups: dict[tuple[str, str], list[str]] = {}
    for item in swept.differences:
        groups.setdefault((item.kind, item.table), []).append(f"    numbers on {item.slot}: {item.numbers}")
    for (kind, table), numbers in groups.items():
        stdout().print("\n".join([f"  {kind}, the table says: {table}", *numbers]), markup=False, soft_wrap=True)


def _sum_up(found: list[Swept]) -> None:
    from hf_bias_patch.cli.console import stdout

    def count(kind: str) -> int:
        return sum(difference.kind == kind for swept in found for difference in swept.differences)

    problems = [swept.model_type for swept in found if swept.problem]
    stdout().print(
        f"\n{len(found)} model types: {sum(swept.agreed for swept in found)} biases agreed, {count('wrong')} wrong, "
        f"{count('missed')} missed, {count('unseen')} unseen; {len(problems)} types not checked"
        + (f": {', '.join(problems)}" if problems else "")
        + _shares(found),
        markup=False,
        soft_wrap=True,
    )


def _shares(found: list[Swept]) -> str:
    """How much of what the numbers show the table knows, as a line of its own."""
    closable, slots, unknown = (
        sum(getattr(swept, name) for swept in found) for name in ("closable", "slots", "unknown")
    )
    missed = sum(difference.kind == "missed" for swept in found for difference in swept.differences)
    if not closable + missed or not slots:
        return ""
    return (
        f"\nof the {closable + missed} biases that the numbers show to be redundant or to fold, the table knows "
        f"{closable / (closable + missed):.1%}; it says nothing of {unknown / slots:.1%} of {slots}"
    )
