"""`hf-bias-patch revert`: the source again, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_bias_patch.cli.options import Overwrite

if TYPE_CHECKING:
    from hf_bias_patch.patching.revert import Reverted

__all__ = ["revert"]


def revert(
    variant: Annotated[str, typer.Argument(help="A folder that `patch` made or edited in place.", metavar="VARIANT")],
    out: Annotated[
        Path | None, typer.Argument(help="The folder to restore to.", metavar="OUT", show_default="VARIANT itself")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Restore what a variant was made from, bit for bit, or undo an edit in place that was interrupted."""
    from hf_bias_patch.cli.console import clear_beside, stdout, strong
    from hf_bias_patch.patching.revert import revert as restore

    clear_beside(out or Path(variant), stdout())
    done = restore(variant, out, overwrite=overwrite)
    if done.recovered:
        stdout().print(f"{done.path}: an interrupted edit in place was undone; every byte is as before it.")
        return
    stdout().print(f"Restored {strong(done.path)}: {done.tensors} tensors; {_checked(done)}.")


def _checked(done: Reverted) -> str:
    files = ", ".join(done.sha256)
    if not files:
        return "each has the checksum it had before the patch"
    if done.converted:
        return f"the sha256 of {files} is that of the conversion of {', '.join(done.converted)}, which was patched"
    return f"the sha256 of {files} is the source's"
