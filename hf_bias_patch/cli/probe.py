"""What a probe found, as tables for people: used by `inspect --probe` and `patch --trust-probe`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hf_bias_patch.architecture.sites import Site
    from hf_bias_patch.probing.check import Difference
    from hf_bias_patch.probing.inspect import Probed, ProbedBias

__all__ = ["probed", "show_probe", "trusted_sites"]

_COLOURS = {"redundant (probed)": "green", "needed": "yellow", "not reached": "red", "undecided": "red"}


def probed(model: str, revision: str | None = None, trust_remote_code: bool = False) -> Probed:
    """Probe a checkpoint, saying so meanwhile."""
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.probing.inspect import probe

    with stderr().status(f"probing {model} in float64"):
        return probe(model, revision=revision, trust_remote_code=trust_remote_code)


def show_probe(found: Probed, as_json: bool) -> None:
    """Print what was found. Ends the command with exit code 1 if the table promises what the numbers refute."""
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2, ensure_ascii=False))
    else:
        _print(found)
    if found.wrong:
        from hf_bias_patch.cli.console import stderr

        for line in _disagreements(found.wrong):
            stderr().print(line, markup=False)
        raise typer.Exit(1)


def trusted_sites(model: str, verify: bool) -> tuple[Site, ...]:
    """The sites that `patch --trust-probe` plans on.

    Raises:
        PlanError: the result would not be verified, or table and numbers disagree.
    """
    from hf_bias_patch.errors import PlanError

    if not verify:
        raise PlanError(
            "--trust-probe and --no-verify exclude each other",
            why="A probe is evidence from a few inputs; what is patched on it is always verified",
            remedy="Leave out one of them",
        )
    found = probed(model)
    if found.wrong:
        raise PlanError(
            "Table and probe disagree, so neither is trusted:\n" + "\n".join(_disagreements(found.wrong)),
            remedy="Report this checkpoint",
        )
    return found.sites


def _print(found: Probed) -> None:
    from hf_bias_patch.cli.console import stdout, strong

    console = stdout()
    table = f"compared with the family {found.family}" if found.family else "no family to compare with"
    console.print(f"{strong(found.model)}: {found.model_type}, probed in float64 on 2 random inputs, {table}\n")
    if found.no_family:
        console.print(found.no_family, markup=False)
    if not found.rows:
        console.print("No attention bias was found: the model has none, or no attention that a probe can follow.\n")
    else:
        _print_rows(console, found)
    for difference in found.differences:
        if difference.kind == "missed" and found.family:
            console.print(
                f"The table promises less of {difference.slot}: {difference.table}. The numbers: {difference.numbers}",
                markup=False,
            )
    if found.untouched:
        console.print(f"No run read these biases: {', '.join(found.untouched)}", markup=False)
    if found.renamed:
        first = next(iter(found.renamed.items()))
        console.print(
            f"transformers renames {len(found.renamed)} tensors while it loads them ({first[1]} becomes {first[0]}, "
            "and so on); they were told by their values, and are named here as in the files.",
            markup=False,
        )
    if found.memory_only:
        console.print(
            "These have no counterpart in the files that could be told, so no edit of them can be planned: "
            f"{', '.join(found.memory_only)}",
            markup=False,
        )


def _print_rows(console: Console, found: Probed) -> None:
    table, notes = _table(found.rows)
    console.print(table)
    for reason, mark in notes.items():
        console.print(f"  {mark} {reason}", markup=False)
    console.print(
        "\nneeded: moving the bias moves the output. Where an exact fold is named, it can go there all the same.\n"
        f"effect: the relative change of the output when the bias is moved. Noise floor: {found.floor:.1e}."
    )


def _table(rows: Sequence[ProbedBias]) -> tuple[Table, dict[str, str]]:
    from hf_bias_patch.cli.console import table as empty_table

    columns = ("site", "bias", "table says", "numbers say", "effect", "exact folds into", "no fold")
    table = empty_table(*columns, numbers=("effect",))
    notes: dict[str, str] = {}
    for row in rows:
        refused = [
            f"{into} {notes.setdefault(why, f'({len(notes) + 1})')}"
            for into, why in (row.finding.folds if row.finding else {}).items()
            if why
        ]
        table.add_row(
            row.site,
            row.projection,
            row.slot.verdict.state if row.slot else "[dim]not listed[/]",
            f"[{_COLOURS[row.verdict]}]{row.verdict}[/]",
            f"{row.finding.effect:.1e}" if row.finding else "",
            ", ".join(row.exact),
            ", ".join(refused),
        )
    return table, notes


def _disagreements(differences: Sequence[Difference]) -> list[str]:
    """Both sides of each, as lines."""
    lines = [f"error: table and numbers disagree on {len(differences)} biases"]
    for difference in differences:
        lines += [f"  {difference.slot}", f"    table:   {difference.table}", f"    numbers: {difference.numbers}"]
    return lines
