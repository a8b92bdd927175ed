"""What must not be edited in place, and what must not be read during an edit."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NoReturn

from hf_bias_patch.checkpoint.journal import JOURNAL
from hf_bias_patch.checkpoint.paths import hub_repo
from hf_bias_patch.errors import CheckpointError, TargetError

__all__ = ["ASSETS", "refuse_interrupted", "refuse_place", "refuse_unsafe"]

ASSETS = Path(__file__).parent.parent / "assets"
"""Holds the embedded checkpoints, which every project that has this package installed reads."""


def refuse_interrupted(folder: Path) -> None:
    """Refuse a checkpoint that an edit has not finished with.

    Raises:
        CheckpointError: there is a journal.
    """
    if (folder / JOURNAL).exists():
        raise CheckpointError(
            f"{folder} is in the middle of an edit",
            why="An edit in place was interrupted, or is still running",
            remedy=f"`hf-bias-patch revert {folder}` puts back what was there before",
        )


def refuse_place(folder: Path, file: Path | None = None) -> None:
    """Refuse to change a folder that others rely on, whatever name or path it was given by.

    Args:
        folder: where the change would be.
        file: what would change in it, to be named; the folder itself if not given.

    Raises:
        TargetError: it is a snapshot in the Hub's cache, or a checkpoint that comes with this package.
    """
    if hub_repo(folder) is not None:
        _refuse(file or folder, "It belongs to the Hub's cache, which other programs rely on", _copy(folder))
    if folder.resolve().is_relative_to(ASSETS.resolve()):
        remedy = f"Patch a copy: `hf-bias-patch patch embedded:{folder.resolve().name} OUT`"
        _refuse(file or folder, "It comes with this package, and must stay what it was when that was installed", remedy)


def refuse_unsafe(path: Path) -> None:
    """Refuse to edit a file in place if that could change another one, or was forbidden.

    Raises:
        TargetError: the file is missing, read-only, a link, has other hard links, or lies where nothing may be edited
            (see `refuse_place`).
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise TargetError(f"{path} cannot be edited", why=error.strerror or str(error)) from error
    refuse_place(path.parent, path)
    copy = _copy(path.parent)
    if stat.S_ISLNK(status.st_mode):
        _refuse(path, f"It is a symbolic link to {os.readlink(path)}", copy)
    if not stat.S_ISREG(status.st_mode):
        _refuse(path, "It is not a regular file", copy)
    if status.st_nlink > 1:
        _refuse(path, f"It has {status.st_nlink - 1} other hard links, which would change too", copy)
    # The bits count even for root, whom os.access always lets pass.
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        _refuse(path, "It is read-only", f"Make it writable, or patch a copy: `hf-bias-patch patch {path.parent} OUT`")


def _copy(folder: Path) -> str:
    return f"Patch a copy: `hf-bias-patch patch {folder} OUT`"


def _refuse(path: Path, why: str, remedy: str) -> NoReturn:
    raise TargetError(f"{path} cannot be edited in place", why=why, remedy=remedy)
