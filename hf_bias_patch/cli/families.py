"""`hf-bias-patch families`: what is known of each model type, and whether the numbers say the same."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_bias_patch.cli.drafts import print_drafts
from hf_bias_patch.cli.options import AsJson
from hf_bias_patch.errors import RecipeError

if TYPE_CHECKING:
    from hf_bias_patch.attention.support_table import SupportRow, SupportTower
    from hf_bias_patch.probing.sweep import Item, Swept
    from hf_bias_patch.probing.variations import Change

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
        _require_types(names, check or markdown or as_json)
        print_drafts(list(_known(names or [])), output, jobs, timeout, _show)
    if output is not None:
        raise typer.BadParameter("it goes with --draft", param_hint="--output")
    if check and markdown:
        raise RecipeError("--check prints no Markdown", remedy="Leave out one of them, or ask for --json")
    if vary and not check:
        raise typer.BadParameter("it goes with --check", param_hint="--vary")
    if pairs and not vary:
        raise typer.BadParameter("it goes with --vary", param_hint="--pairs")
    if check:
        made = _in_pairs if pairs else _varied if vary else _default
        _check(itertools.chain.from_iterable(map(made, _known(names or []))), jobs, timeout, as_json)
        return
    from hf_bias_patch.attention.support_table import support_table, without_attention

    entries, towers = support_table(names or [])
    none = without_attention(names or [])
    if as_json:
        found: dict[str, list[Any]] = {
            "sites": [asdict(entry) for entry in entries],
            "towers": [asdict(tower) for tower in towers],
        }
        found |= {"without_attention": list(none)}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    elif markdown:
        from hf_bias_patch.attention.support_table import markdown as text

        typer.echo(text(entries, towers, none))
    else:
        _print(entries, towers, none)


def _require_types(names: list[str] | None, more: bool) -> None:
    if more:
        raise RecipeError("--draft goes with none of --check, --markdown and --json", why="It checks by itself")
    if not names:
        raise RecipeError("--draft needs model types", remedy="Name them: `hf-bias-patch families --draft bert`")


def _print(entries: Iterable[SupportRow], towers: Iterable[SupportTower], none: Iterable[str]) -> None:
    from rich import box
    from rich.table import Table

    from hf_bias_patch.attention.support_table import columns
    from hf_bias_patch.cli.console import stdout

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("model type", "site", "query bias", "key bias", "value bias"):
        table.add_column(name, overflow="fold")
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
        "there is one). In brackets: what closes other destinations; docs/theory.md explains them, --json says all."
    )


def _known(names: list[str]) -> Collection[str]:
    """The model types that are meant; all, if none is named."""
    from hf_bias_patch.errors import FamilyError
    from hf_bias_patch.probing.small import model_types

    known = model_types()
    if unknown := sorted(set(names) - set(known)):
        near = [close for name in unknown for close in get_close_matches(name.lower(), known, n=3)]
        raise FamilyError(
            f"No small model of type {' or '.join(map(repr, unknown))} can be built",
            why="The installed transformers has no such type, or it needs a package that is not there",
            remedy=f"Close to it: {', '.join(near)}" if near else "",
        )
    return names or known


def _default(name: str) -> Iterator[Item]:
    """A type at its default, then as published checkpoints have it."""
    from hf_bias_patch.probing.published import published
    from hf_bias_patch.probing.sweep import Item

    yield Item(name)
    yield from (Item(name, one.changes, one.name) for one in published(name))


def _varied(name: str) -> Iterator[Item]:
    """A type at its default and as published, then one change away from its default."""
    from hf_bias_patch.probing.sweep import Item

    yield from _default(name)
    yield from (Item(name, (change,)) for change in _changes(name))


def _in_pairs(name: str) -> Iterator[Item]:
    """A type at its default and as published, then one change away from its default, then two."""
    from hf_bias_patch.probing.sweep import Item
    from hf_bias_patch.probing.variations import pairs

    yield from _varied(name)
    yield from (Item(name, pair) for pair in pairs(_changes(name)))


def _changes(name: str) -> tuple[Change, ...]:
    from hf_bias_patch.probing.typed import NotBuiltError, changes_of_type

    try:
        return changes_of_type(name)
    except NotBuiltError:  # the check of the default says it
        return ()


def _check(items: Iterable[Item], jobs: int, timeout: float, as_json: bool) -> None:
    from hf_bias_patch.probing.sweep import sweep

    found = []
    for swept in sweep(items, jobs, timeout):
        found.append(swept)
        if not as_json:
            _show(swept)
    if as_json:
        typer.echo(json.dumps([swept.plain() for swept in found], indent=2, ensure_ascii=False))
    else:
        _sum_up(found)
    raise typer.Exit(1 if any(swept.open for swept in found) else 0)


def _show(swept: Swept) -> None:
    from hf_bias_patch.cli.console import stdout
    from hf_bias_patch.probing.untouched import summary

    line = f"{swept.item}: {swept.agreed} agreed"
    line += f", {len(swept.classes)} classes" if swept.classes else ""
    if swept.differences:
        kinds = [difference.kind for difference in swept.differences]
        line += "".join(f", {kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    problem = "not checked" if swept.built else "could not be built"
    line += f", {problem}: {swept.problem}" if swept.problem else ""
    stdout().print(line + (f" ({swept.reason})" if swept.reason else ""), markup=False, soft_wrap=True)
    for told in summary(swept.untouched):
        stdout().print(f"  {told}", markup=False, soft_wrap=True)
    groups: dict[tuple[str, str], list[str]] = {}
    for item in swept.differences:
        groups.setdefault((item.kind, item.table), []).append(f"    numbers on {item.slot}: {item.numbers}")
    for (kind, table), numbers in groups.items():
        stdout().print("\n".join([f"  {kind}, the table says: {table}", *numbers]), markup=False, soft_wrap=True)


def _sum_up(found: list[Swept]) -> None:
    from hf_bias_patch.cli.console import stdout

    defaults = [swept for swept in found if not swept.item.changes]
    published = [swept for swept in found if swept.item.checkpoint]
    varied = [swept for swept in found if swept.item.changes and not swept.item.checkpoint]
    problems = [swept for swept in defaults if swept.problem]
    unknown = [swept.item.model_type for swept in problems if not swept.reason]
    stdout().print(
        f"\n{len(defaults)} model types: {_counts(defaults)}; {len(problems)} types not checked, "
        f"{len(unknown)} of them for no known reason{': ' if unknown else ''}{', '.join(unknown)}" + _shares(defaults),
        markup=False,
        soft_wrap=True,
    )
    stdout().print(_about_classes(defaults), markup=False, soft_wrap=True)
    for title, changed in (("configs of published checkpoints", published), ("changes of the config", varied)):
        if changed:
            stdout().print(_about_changes(title, changed), markup=False, soft_wrap=True)


def _about_classes(found: list[Swept]) -> str:
    """How many classes were looked at, and which could not be."""
    read, unknown, explained = (
        sum(len(getattr(swept, name)) for swept in found) for name in ("classes", "no_family", "explained")
    )
    lost = sorted(name for swept in found for name in swept.not_built)
    return (
        f"{read} classes of these types, each saved by itself and read again; {unknown} more are of no family; "
        f"{explained} unseen biases are explained; {len(lost)} could not be built"
        + (f": {', '.join(lost)}" if lost else "")
    )


def _counts(found: list[Swept]) -> str:
    kinds = [difference.kind for swept in found for difference in swept.differences]
    agreed = sum(swept.agreed for swept in found)
    return f"{agreed} biases agreed, " + ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in ("wrong", "missed", "unseen")
    )


def _about_changes(what: str, varied: list[Swept]) -> str:
    """What became of the changes, with the names of those that prove nothing."""
    lines = [f"{len(varied)} {what}: {_counts(varied)}"]
    for title, chosen in (
        ("wrong", [swept for swept in varied if swept.wrong]),
        ("not checked", [swept for swept in varied if swept.problem and swept.built]),
        ("could not be built", [swept for swept in varied if not swept.built]),
    ):
        lines += [f"{len(chosen)} {title}" + "".join(f"\n  {swept.item}" for swept in chosen)]
    return "\n".join(lines)


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
