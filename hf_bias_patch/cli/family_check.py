"""`hf-bias-patch families --check`: whether the numbers say what the family table says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from hf_bias_patch.probing.sweep import Swept

__all__ = ["print_check", "print_swept"]


def print_check(names: Sequence[str], changed: int, jobs: int, timeout: float, as_json: bool) -> NoReturn:
    """Check model types (all, if none is named), print what was found, and exit.

    Args:
        names, changed: see `sweep_items`.
        jobs, timeout: of the sweep.
        as_json: print JSON.
    """
    from hf_bias_patch.probing.sweep import sweep
    from hf_bias_patch.probing.sweep_items import sweep_items

    found = []
    for swept in sweep(sweep_items(names, changed), jobs, timeout):
        found.append(swept)
        if not as_json:
            print_swept(swept)
    if as_json:
        typer.echo(json.dumps([swept.plain() for swept in found], indent=2, ensure_ascii=False))
    else:
        _sum_up(found)
    raise typer.Exit(1 if any(swept.open for swept in found) else 0)


def print_swept(swept: Swept) -> None:
    """One result of a check."""
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


def _sum_up(found: Sequence[Swept]) -> None:
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


def _about_classes(found: Sequence[Swept]) -> str:
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


def _counts(found: Sequence[Swept]) -> str:
    kinds = [difference.kind for swept in found for difference in swept.differences]
    agreed = sum(swept.agreed for swept in found)
    return f"{agreed} biases agreed, " + ", ".join(
        f"{kinds.count(kind)} {kind}" for kind in ("wrong", "missed", "unseen")
    )


def _about_changes(what: str, varied: Sequence[Swept]) -> str:
    """What became of the changes, with the names of those that prove nothing."""
    lines = [f"{len(varied)} {what}: {_counts(varied)}"]
    for title, chosen in (
        ("wrong", [swept for swept in varied if swept.wrong]),
        ("not checked", [swept for swept in varied if swept.problem and swept.built]),
        ("could not be built", [swept for swept in varied if not swept.built]),
    ):
        lines += [f"{len(chosen)} {title}" + "".join(f"\n  {swept.item}" for swept in chosen)]
    return "\n".join(lines)


def _shares(found: Sequence[Swept]) -> str:
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
