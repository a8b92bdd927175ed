"""The checkpoint to compare a variant with: given, or restored from the variant; and with the model type that it lacks.

Working copies lie beside the variant for as long as they are needed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.checkpoint.copying import target_error
from hf_bias_patch.checkpoint.guards import refuse_interrupted, refuse_place
from hf_bias_patch.checkpoint.leftovers import working_folder
from hf_bias_patch.checkpoint.listing import companion_files
from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import CheckpointError, TargetError, VerifyError
from hf_bias_patch.models.source_files import folder_of
from hf_bias_patch.patching.record import UNDO
from hf_bias_patch.patching.revert import revert

__all__ = ["is_writable", "place_beside", "source_of", "typed_as"]

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
            why=f"It has no {UNDO} to restore its source from: it is no variant, or was saved anew after the patch",
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


@contextmanager
def typed_as(source: Source, model_type: str | None, place: Path) -> Iterator[Source]:
    """The source itself, or the same files beside a config.json that has a model type.

    Args:
        source: safetensors.
        model_type: for a config.json that names none; None where it is not known.
        place: a folder for what is needed for the time being.

    Raises:
        CheckpointError: the source cannot be opened.
        TargetError: the disk is full.
    """
    files = open_checkpoint(source.path)
    if not files.config_bytes or files.config.get("model_type") or not model_type:
        yield source
        return
    with working_folder(place, "typed") as folder:
        others = (path.as_posix() for path in companion_files(files))
        for name in (*files.weight_names, *others):
            _give(files.folder / name, folder / name)
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(json.dumps({**files.config, "model_type": model_type}), "utf-8")
        yield replace(source, path=folder)


def _give(old: Path, new: Path) -> None:
    """The same file at another place: by a link where the disk allows it."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old.resolve(), new)
    except OSError:
        try:
            shutil.copyfile(old, new)
        except OSError as error:
            raise target_error(new, error, old.stat().st_size) from error


def is_writable(folder: Path) -> bool:
    """Whether a model's side folder may be written to: it is no read-only one, and none that others rely on."""
    try:
        refuse_place(folder)
    except TargetError:
        return False
    return os.access(folder / SIDE_FOLDER, os.W_OK)
