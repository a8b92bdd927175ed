"""Opens files that end: a pipe or device in the place of a weight file would be waited for without end."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hf_bias_patch.errors import CheckpointError

__all__ = ["open_regular"]


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file, or a link to one, for reading.

    Raises:
        CheckpointError: it is a pipe, a device, a socket or a folder.
        OSError: it cannot be opened.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CheckpointError(
                f"{path} is no regular file",
                why="It is a pipe or a device, and reading it might never end",
                remedy="Put the file itself in its place",
            )
        yield file


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a pipe waits for somebody to write into it, unless told not to; regular files do not care.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
