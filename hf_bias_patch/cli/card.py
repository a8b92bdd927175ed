"""`hf-bias-patch card`: a variant's README.md, made from the facts beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["card"]


def card(
    variant: Annotated[Path, typer.Argument(help="A variant's folder.", metavar="VARIANT")],
    base_model: Annotated[
        str | None,
        typer.Option(
            help="Hub id of the base, as owner/name or owner/name@COMMIT, where the variant was made from a local "
            "copy; kept beside the variant."
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Scores to state, as `evaluate --json` prints them; kept beside the variant."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that somebody wrote into.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the card instead of writing it.")] = False,
) -> None:
    """Write a variant's card for the Hub: what was changed, why that is safe, what was measured, how to load it."""
    from hf_bias_patch.cli.console import stdout, strong
    from hf_bias_patch.publish.base import parse_base
    from hf_bias_patch.publish.card import render, write_card
    from hf_bias_patch.publish.facts import add_results, read_facts

    base = parse_base(base_model) if base_model else None
    if show:
        facts = read_facts(variant)
        typer.echo(render(replace(facts, base=base) if base else facts), nl=False)
        return
    add_results(variant, results or ())
    written = write_card(variant, base, overwrite=overwrite)
    stdout().print(f"Written: {strong(written)}", soft_wrap=True)
