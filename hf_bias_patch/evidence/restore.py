"""The checkpoint to compare a variant with: the one that is given, or the one that the variant itself restores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_bias_patch.checkpoint.guards import refuse_interrupted
from hf_bias_patch.checkpoint.leftovers import working_folder
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import CheckpointError, VerifyError
from hf_bias_patch.models.source_files import folder_of
from hf_bias_patch.patching.record import UNDO
from hf_bias_patch.patching.revert import revert

__all__ = ["place_beside", "source_of"]

_REMEDY = "Say what to compare it with: --against MODEL (in Python, against=MODEL)"


@contextmanager
def source_of(variant: Source, against: str | os.PathLike[str] | None) -> Iterator[Source]:
    """What to compare a variant with.

    Args:
        variant: the variant; only read.
        against: a folder, a safetensors file, `embedded:NAME` or a Hub id. If None, the variant's source is restored
            from it, beside it, and goes away when the block is left.

    Raises:
        SourceError: `against` leads nowhere.
        CheckpointError: an edit in place of the variant was interrupted.
        VerifyError: nothing was given, and the variant restores nothing: it is none, or changed since it was patched.
        TargetError: the disk is full.
    """
    if against is not None:
        yield resolve(against)
        return
    folder = folder_of(variant)
    refuse_interrupted(folder)  # `revert` would take the edit back, and this room edits nothing
    if not (folder / UNDO).is_file():
        raise VerifyError(
            f"There is nothing to compare {variant.name} with",
            why=f"It has no {UNDO} to restore a source from, so it is no variant, or was saved anew since",
            remedy=_REMEDY,
        )
    with working_folder(place_beside(folder), "source") as place:
        try:
            restored = revert(folder, place / "source").path
        except CheckpointError as error:
            raise VerifyError(
                f"The checkpoint that {variant.name} was made from cannot be restored from it: {error.what}",
                why="The variant is not what the patch wrote, so what it was made from must be given",
                remedy=_REMEDY,
            ) from error
        yield resolve(restored)


def place_beside(folder: Path) -> Path:
    """Where to put what is needed for a while: beside a folder, on its disk; else where the system puts such things."""
    parent = folder.absolute().parent
    return parent if os.access(parent, os.W_OK) else Path(tempfile.gettempdir())
