"""The lock on a folder that keeps two writers apart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hf_bias_patch.errors import TargetError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = ["lock_folder", "lock_of_gone", "try_lock"]


class _NoLocksError(OSError):
    """The system or the filesystem has no locks."""


def try_lock(folder: Path) -> Callable[[], None] | None:
    """Lock a folder until the process ends, or until the function returned is called.

    Returns:
        The function that unlocks; None if another process holds the lock. Where the filesystem has no locks
        the folder counts as locked by the caller.

    Raises:
        OSError: there is no such folder.
    """
    try:
        return lock_of_gone(folder)
    except _NoLocksError:
        return lambda: None


def lock_of_gone(folder: Path) -> Callable[[], None] | None:
    """As `try_lock`, but fails without locks in the filesystem: so a lock proves that the last holder has ended.

    Raises:
        OSError: there is no such folder, or the filesystem has no locks.
    """
    if fcntl is None:
        raise _NoLocksError
    # The folder itself is locked: no lock file to leave behind, and the lock stays through a rename.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise _NoLocksError from error
    return lambda: os.close(descriptor)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a folder's lock for a while.

    Raises:
        TargetError: another process holds it, or there is no such folder.
    """
    try:
        unlock = try_lock(folder)
    except OSError as error:
        raise TargetError(f"{folder} cannot be opened", why=error.strerror or str(error)) from error
    if unlock is None:
        raise TargetError(f"{folder} is being edited by another process", remedy="Wait until it has finished")
    try:
        yield
    finally:
        with suppress(OSError):
            unlock()
