"""`hf-bias-patch inspect`: what attention biases a checkpoint has, how large they are, and what they are for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_bias_patch.cli.options import AsJson, Model, ModelType, TrustRemoteCode

if TYPE_CHECKING:
    from rich.table import Table

    from hf_bias_patch.architecture.inspect import Inspection
    from hf_bias_patch.architecture.sites import Slot

__all__ = ["inspect"]

_COLOURS = {"redundant": "green", "foldable": "cyan", "needed": "yellow", "absent": "dim", "unknown": "red"}


def inspect(
    model: Model,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hub id; the same as owner/name@REVISION.")
    ] = None,
    values: Annotated[bool, typer.Option("--values", help="Also print the norm of each head's bias.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a heat map of the norms.", metavar="FILE.png|.svg|.pdf")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Load and run the model, and decide by measuring. Needs no family.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
    model_type: ModelType = None,
    as_json: AsJson = False,
) -> None:
    """Show a checkpoint's attention sites, their biases, and a verdict for each. Loads no model without --probe.

    Exit code 1 if a probe refutes what the family table promises.
    """
    if probe or trust_remote_code:
        _probe(model, revision, trust_remote_code, as_json, probe, values or plot is not None, model_type)
        return
    from hf_bias_patch.architecture.inspect import inspect as look
    from hf_bias_patch.cli.console import stderr

    with stderr().status(f"reading {model}"):
        found = look(model, revision=revision, model_type=model_type)
    if plot is not None:
        from hf_bias_patch.architecture.plot import draw

        draw(found, plot)
        _say_where(plot, as_json)
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2, ensure_ascii=False, allow_nan=False))
        return
    _print(found, values)


def _say_where(picture: Path, as_json: bool) -> None:
    from hf_bias_patch.cli.console import stderr, stdout, strong

    console = stderr() if as_json else stdout()  # what reads JSON from stdout wants nothing else there
    console.print(f"Picture written: {strong(picture)}", soft_wrap=True)


def _probe(
    model: str, revision: str | None, trusted: bool, as_json: bool, asked: bool, drawn: bool, model_type: str | None
) -> None:
    from hf_bias_patch.cli.probe import probed, show_probe
    from hf_bias_patch.errors import RecipeError

    if not asked:
        raise RecipeError("--trust-remote-code needs --probe", why="Nothing else runs a checkpoint's code")
    if drawn:
        raise RecipeError("--probe cannot be given with --values or --plot", remedy="Use two commands")
    if model_type:
        raise RecipeError(
            "--model-type cannot be given with --probe",
            why="A probe loads the model with transformers, which uses the type in config.json",
            remedy="Add the field `model_type` to config.json",
        )
    show_probe(probed(model, revision, trusted), as_json)


def _print(found: Inspection, values: bool) -> None:
    from hf_bias_patch.architecture.uncovered import told
    from hf_bias_patch.cli.console import nbytes, plain, stdout, strong

    console = stdout()
    console.print(f"{strong(found.model)}: {found.model_type}, {len(found.sites)} attention sites\n")
    table, notes = _sites(found)
    console.print(table)
    for reason, mark in notes.items():
        console.print(f"  {mark} {plain(reason)}", highlight=False, markup=False)
    if values:
        console.print()
        console.print(_heads(found))
    share = found.bias_parameters / found.parameters
    console.print(
        f"\nAttention biases: {found.bias_parameters:,} of {found.parameters:,} parameters ({share:.3%}), "
        f"{nbytes(found.bias_nbytes)} of {nbytes(found.nbytes)}"
    )
    for state, count in found.verdicts().items():
        console.print(f"  [{_COLOURS[state]}]{state:<9}[/] {count:>12,} parameters")
    if found.quantised:
        console.print(f"A variant of it cannot be verified: {plain(found.quantised)}.", markup=False)
    if found.uncovered:
        console.print(told(found.uncovered), markup=False, soft_wrap=True)
    for reason, names in _unread(found).items():
        console.print(
            f"Stock transformers does not read {len(names)} more, such as {names[0]}: {reason}.", highlight=False
        )
    if found.received:
        console.print(f"Read on the Hub, {nbytes(found.received)} of {nbytes(found.nbytes)}; nothing was downloaded.")


def _sites(found: Inspection) -> tuple[Table, dict[str, str]]:
    """The table of sites, and the notes its marks stand for."""
    from hf_bias_patch.architecture.sites import PROJECTIONS
    from hf_bias_patch.cli.console import table as empty_table

    dtypes = {value.dtype for value in found.values.values()}
    biases = [f"{projection} bias" for projection in PROJECTIONS]
    table = empty_table("stack", "layer", "kind", "heads", *biases, numbers=("layer", "heads"))
    if len(dtypes) == 1:
        table.caption = f"Norm and verdict of each bias; all are stored as {dtypes.pop()}."
        dtypes.clear()
    else:
        table.caption = "Norm, dtype and verdict of each bias."
    notes: dict[str, str] = {}
    for site in found.sites:
        cells = [_cell(found, site.name, site.slots[name], bool(dtypes), notes) for name in PROJECTIONS]
        heads = str(site.heads) if site.kv_heads == site.heads else f"{site.heads}/{site.kv_heads}"
        table.add_row(site.stack, str(site.layer), site.kind, heads, *cells)
    return table, notes


def _cell(found: Inspection, site: str, slot: Slot, with_dtype: bool, notes: dict[str, str]) -> str:
    state = slot.verdict.state
    if state == "absent":
        return "[dim]absent[/]"
    mark = notes.setdefault(slot.verdict.reason, f"({len(notes) + 1})")
    value = found.values[site, slot.projection]
    dtype = f" {value.dtype}" if with_dtype else ""
    if value.not_finite:
        return f"[bold red]{value.not_finite} NaN or inf[/]{dtype} [{_COLOURS[state]}]{state}[/] [dim]{mark}[/]"
    return f"{value.norm:8.3g}{dtype} [{_COLOURS[state]}]{state}[/] [dim]{mark}[/]"


def _unread(found: Inspection) -> dict[str, list[str]]:
    """Why stock transformers does not read some biases → their names."""
    groups: dict[str, list[str]] = {}
    for name, reason in sorted(found.unread.items()):
        groups.setdefault(reason, []).append(name)
    return groups


def _heads(found: Inspection) -> Table:
    from hf_bias_patch.cli.console import table as empty_table

    table = empty_table("site", "projection", "heads, first to last", title="Norm of each head's bias")
    for (site, projection), value in found.values.items():
        if value.head_norms:
            table.add_row(site, projection, " ".join(f"{norm:7.3g}" for norm in value.head_norms))
    return table
