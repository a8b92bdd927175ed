"""Hidden working folders: locked while their process lives, removed by the next run once it is gone."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hf_bias_patch.checkpoint.copying import target_error
from hf_bias_patch.checkpoint.locks import lock_of_gone, try_lock

__all__ = ["clear_leftovers", "hidden_prefix", "make_hidden", "working_folder"]

_WORKING = re.compile(r"\.bias_patch-[0-9a-f]{16}-[0-9a-f]{8}")


def hidden_prefix(name: str) -> str:
    """How the hidden names begin of all that is made for a folder of this name."""
    # A hash, for the name itself may already be as long as a name can be.
    return f".bias_patch-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:16]}-"


def make_hidden(place: Path, name: str) -> tuple[Path, Callable[[], None]]:
    """Make a hidden folder and lock it.

    Args:
        place: where.
        name: of what is made in it.

    Returns:
        The folder, and the function that unlocks it.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        folder = place / f"{hidden_prefix(name)}{secrets.token_hex(4)}"
        os.mkdir(folder)
        # Between the two calls another run may take the folder for a leftover: then try again.
        with suppress(FileNotFoundError):
            unlock = try_lock(folder)
            if unlock is not None and folder.exists():
                return folder, unlock
            if unlock is not None:
                unlock()


@contextmanager
def working_folder(place: Path, name: str) -> Iterator[Path]:
    """A hidden folder for what is needed for a while; it goes away when the block is left.

    Args:
        place: where.
        name: of what is made in it.

    Raises:
        TargetError: it cannot be made.
    """
    try:
        folder, unlock = make_hidden(place, name)
    except OSError as error:
        raise target_error(place / name, error, 0) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        unlock()


def clear_leftovers(place: Path) -> list[Path]:
    """Remove the working folders that killed runs left in a folder, whatever they were making.

    One whose process still runs is left alone, and so is every one where no lock tells which that is.

    Returns:
        Those that were removed.
    """
    removed = []
    for folder in sorted(place.glob(".bias_patch-*")):
        if not _WORKING.fullmatch(folder.name) or folder.is_symlink():
            continue
        with suppress(OSError):
            unlock = lock_of_gone(folder)
            if unlock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                unlock()
                removed += [] if folder.exists() else [folder]
    return removed
