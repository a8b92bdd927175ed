"""`hf-bias-patch revert`: the source again, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_bias_patch.cli.options import Overwrite

__all__ = ["revert"]


def revert(
    variant: Annotated[str, typer.Argument(help="A folder that `patch` made or edited in place.")],
    out: Annotated[
        Path | None, typer.Argument(help="Where to write the source.", show_default="VARIANT itself")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Restore what a variant was made from, or take back an edit in place that was interrupted."""
    from hf_bias_patch.cli.console import stdout
    from hf_bias_patch.patching.revert import revert as restore

    done = restore(variant, out, overwrite=overwrite)
    if done.recovered:
        stdout().print(f"{done.path}: an interrupted edit in place was taken back; every byte is as before it.")
        return
    checked = (
        f"the sha256 of {', '.join(done.sha256)} is the source's"
        if done.sha256
        else "each has the checksum it had before the patch"
    )
    stdout().print(f"Restored [bold]{done.path}[/]: {done.tensors} tensors; {checked}.")
