"""`hf-bias-patch card`: a model's README.md, made from the facts beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_bias_patch.cli.options import Variant

__all__ = ["card"]


def card(
    variant: Variant,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="Hub id of the base, for a variant of a local copy: owner/name or owner/name@COMMIT. It is checked on "
            "the Hub, and kept beside the variant."
        ),
    ] = None,
    no_base_model: Annotated[
        bool, typer.Option("--no-base-model", help="Forget that id: the base is what config.json names.")
    ] = False,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Scores to state, as `evaluate --json` prints them; kept beside the model.", metavar="FILE"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a card that somebody edited.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the card instead of writing it.")] = False,
) -> None:
    """Write a model's card (README.md): what was changed, why that is safe, what was measured, how to load it."""
    from hf_bias_patch.cli.console import stderr, stdout, strong
    from hf_bias_patch.publish.card import card as write
    from hf_bias_patch.publish.card import draft_card

    if show:
        made = draft_card(variant, base_model=base_model, forget_base=no_base_model, results=results or ())
        typer.echo(made.text, nl=False)
    else:
        made = write(
            variant, base_model=base_model, forget_base=no_base_model, results=results or (), overwrite=overwrite
        )
        stdout().print(f"Written: {strong(made.path)}", soft_wrap=True)
    if made.unchecked:
        stderr().print(
            f"{made.base.typed} was not checked, for the Hub cannot be reached ({made.unchecked}). "
            "`hf-bias-patch push` will check it.",
            markup=False,
            soft_wrap=True,
        )
