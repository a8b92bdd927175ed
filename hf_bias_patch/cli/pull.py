"""`hf-bias-patch pull`: a published variant as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from hf_bias_patch.cli.options import Overwrite

__all__ = ["pull"]


def pull(
    variant: Annotated[str, Argument(help="Hub id: owner/name or owner/name@REVISION.", metavar="NAME")],
    out: Annotated[Path, Argument(help="The folder to make.", metavar="OUT")],
    base: Annotated[
        str | None, Option(help="The base, for a variant without weights.", show_default="what the variant names")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fetch a published variant as a folder, and check it; one without weights is made from its base, bit for bit."""
    from hf_bias_patch.cli.console import ByteBar, clear_beside, stdout, strong
    from hf_bias_patch.patching.pulling import pull as fetch

    clear_beside(out, stdout())
    with ByteBar("writing") as bar:
        made = fetch(variant, out, base=base, overwrite=overwrite, announce=bar.start, progress=bar.advance)
    stdout().print(f"Written: {strong(made)}", soft_wrap=True)
