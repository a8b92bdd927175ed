"""`hf-bias-patch card`: a model's README.md, made from the facts beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from hf_bias_patch.cli.options import BaseModelId, Variant

__all__ = ["card"]


def card(
    variant: Variant,
    base_model: BaseModelId = None,
    no_base_model: Annotated[
        bool, Option("--no-base-model", help="Forget the id given before: the base is what config.json names.")
    ] = False,
    results: Annotated[
        list[Path] | None, Option(help="Scores to state, as `evaluate --json` prints them; kept.", metavar="FILE")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a card that somebody edited.")] = False,
    show: Annotated[bool, Option("--print", help="Print the card instead of writing it.")] = False,
) -> None:
    """Write a model's card (README.md): what was changed, why that is safe, what was measured, how to load it."""
    from hf_bias_patch.cli.console import stderr, stdout, strong
    from hf_bias_patch.publish.card import card as write
    from hf_bias_patch.publish.card import draft_card

    asked: dict[str, Any] = {"base_model": base_model, "forget_base": no_base_model, "results": results or ()}
    made = draft_card(variant, **asked) if show else write(variant, **asked, overwrite=overwrite)
    if show:
        typer.echo(made.text, nl=False)
    else:
        stdout().print(f"Written: {strong(made.path)}", soft_wrap=True)
    if made.unchecked:
        stderr().print(
            f"{made.base.typed} was not checked, for the Hub cannot be reached ({made.unchecked}). "
            "`hf-bias-patch push` will check it.",
            markup=False,
            soft_wrap=True,
        )
