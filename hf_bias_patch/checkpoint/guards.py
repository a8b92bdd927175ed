"""What must not be edited where it lies, and what must not be read while it is edited."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NoReturn

from hf_bias_patch.checkpoint.journal import JOURNAL
from hf_bias_patch.checkpoint.links import hub_repo
from hf_bias_patch.errors import CheckpointError, TargetError

__all__ = ["refuse_interrupted", "refuse_unsafe"]


def refuse_interrupted(folder: Path) -> None:
    """Refuse a checkpoint that an edit has not finished with.

    Raises:
        CheckpointError: there is a journal.
    """
    if (folder / JOURNAL).exists():
        raise CheckpointError(
            f"{folder} is neither old nor new",
            why="An in-place edit of it was interrupted, or is going on",
            remedy=f"`hf-bias-patch revert {folder}` puts back what was there before",
        )


def refuse_unsafe(path: Path) -> None:
    """Refuse to edit a file in place if that could change another one, or was forbidden.

    Raises:
        TargetError: the file is missing, read-only, a link, in the Hub's cache, or has other hard links.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise TargetError(f"{path} cannot be edited", why=error.strerror or str(error)) from error
    copy = f"Patch a copy: `hf-bias-patch patch {path.parent} OUT`"
    if hub_repo(path.parent) is not None:
        _refuse(path, "It belongs to the Hub's cache, which other programs rely on", copy)
    if stat.S_ISLNK(status.st_mode):
        _refuse(path, f"It is a symbolic link to {os.readlink(path)}", copy)
    if not stat.S_ISREG(status.st_mode):
        _refuse(path, "It is no regular file", copy)
    if status.st_nlink > 1:
        _refuse(path, f"It has {status.st_nlink - 1} other hard links, which would change too", copy)
    # The bits count even for root, whom os.access always lets pass.
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        _refuse(
            path,
            "It is read-only",
            f"Make it writable, or patch a copy: `hf-bias-patch patch {path.parent} OUT`",
        )


def _refuse(path: Path, why: str, remedy: str) -> NoReturn:
    raise TargetError(f"{path} cannot be edited in place", why=why, remedy=remedy)
