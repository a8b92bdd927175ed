"""`hf-bias-patch card`: a variant's README.md, made from the facts beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_bias_patch.errors import ArgumentError

if TYPE_CHECKING:
    from hf_bias_patch.publish.base import Base

__all__ = ["card"]


def card(
    variant: Annotated[Path, typer.Argument(help="A variant's folder.", metavar="VARIANT")],
    base_model: Annotated[
        str | None,
        typer.Option(
            help="Hub id of the base, as owner/name or owner/name@COMMIT, where the variant was made from a local "
            "copy; checked on the Hub, and kept beside the variant."
        ),
    ] = None,
    no_base_model: Annotated[
        bool, typer.Option("--no-base-model", help="Forget that id: the base is what config.json says again.")
    ] = False,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Scores to state, as `evaluate --json` prints them; kept beside the variant."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that somebody wrote into.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the card instead of writing it.")] = False,
) -> None:
    """Write a variant's card for the Hub: what was changed, why that is safe, what was measured, how to load it."""
    from hf_bias_patch.cli.console import stdout, strong
    from hf_bias_patch.publish.base import source_base
    from hf_bias_patch.publish.card_text import render, write_card
    from hf_bias_patch.publish.facts import add_results, read_facts

    if base_model and no_base_model:
        raise ArgumentError("--base-model names a base, and --no-base-model forgets it", remedy="Leave one of them out")
    facts = read_facts(variant)
    base = (
        _named(variant, base_model)
        if base_model
        else source_base(variant, facts.config)
        if no_base_model
        else facts.base
    )
    if show:
        typer.echo(render(facts.of(base)), nl=False)
        return
    add_results(variant, results or ())
    written = write_card(variant, base, overwrite=overwrite)
    stdout().print(f"Written: {strong(written)}", soft_wrap=True)


def _named(variant: Path, base_model: str) -> Base:
    from hf_bias_patch.cli.console import stderr
    from hf_bias_patch.publish.base_check import name_base

    named = name_base(variant, base_model)
    if named.unchecked:
        stderr().print(
            f"{named.base.typed} was not checked, for the Hub cannot be asked ({named.unchecked}). "
            "`hf-bias-patch push` will check it.",
            markup=False,
            soft_wrap=True,
        )
    return named.base
