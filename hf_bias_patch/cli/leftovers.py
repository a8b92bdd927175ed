"""Says which working folders of killed runs were removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["clear_beside"]


def clear_beside(out: Path, console: Console) -> None:
    """Remove what killed runs left beside a folder, and name it."""
    from hf_bias_patch.checkpoint.leftovers import clear_leftovers

    for folder in clear_leftovers(out.resolve().parent):
        console.print(f"Removed {folder}: the working folder of a run that was killed.", soft_wrap=True)
