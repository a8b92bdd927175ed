"""`hf-bias-patch pull`: a published variant as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_bias_patch.cli.options import Overwrite

__all__ = ["pull"]


def pull(
    variant: Annotated[str, typer.Argument(help="Hub id, owner/name or owner/name@REVISION.", metavar="NAME")],
    out: Annotated[Path, typer.Argument(help="The folder to make.", metavar="OUT")],
    base: Annotated[
        str | None,
        typer.Option(
            help="What a patch alone is applied to: a folder or Hub id.", show_default="the base and commit it names"
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fetch a published variant and check it; one without weights is made of its base, bit for bit."""
    from hf_bias_patch.cli.console import ByteBar, clear_beside, stdout, strong
    from hf_bias_patch.patching.pulling import pull as fetch

    clear_beside(out, stdout())
    with ByteBar("writing") as bar:
        made = fetch(variant, out, base=base, overwrite=overwrite, announce=bar.start, progress=bar.advance)
    stdout().print(f"Written: {strong(made)}", soft_wrap=True)
