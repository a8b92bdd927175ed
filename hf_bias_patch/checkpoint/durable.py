"""Small writes that survive a power cut.

Everything goes through the functions of `os`, one system call each, so that tests can fail any of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["read_range", "replace_file", "sync_folder", "temporary_name", "write_range", "write_synced"]

_BINARY = getattr(os, "O_BINARY", 0)
_BUFFER = 4 << 20


def read_range(path: Path, offset: int, nbytes: int) -> Iterator[bytes]:
    """The bytes of a file from offset on, in pieces of at most 4 MB.

    Raises:
        OSError: the file cannot be read, or ends within the range.
    """
    descriptor = os.open(path, os.O_RDONLY | _BINARY)
    try:
        os.lseek(descriptor, offset, os.SEEK_SET)
        while nbytes:
            piece = os.read(descriptor, min(nbytes, _BUFFER))
            if not piece:
                raise OSError(0, f"the file ends {nbytes} bytes early", str(path))
            nbytes -= len(piece)
            yield piece
    finally:
        os.close(descriptor)


def write_range(path: Path, ranges: Iterable[tuple[int, Iterable[bytes]]]) -> None:
    """Overwrite ranges of an existing file and sync it.

    Args:
        path: a file at least as long as every range reaches.
        ranges: offsets, each with the bytes that go there, in pieces.
    """
    descriptor = os.open(path, os.O_WRONLY | _BINARY)
    try:
        for offset, pieces in ranges:
            os.lseek(descriptor, offset, os.SEEK_SET)
            _write_all(descriptor, pieces)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, pieces: Iterable[bytes], mode: int = 0o666) -> None:
    """Write a new file, or over an old one, and sync it; not yet its name in the folder.

    Args:
        path: the file.
        pieces: its content.
        mode: permission bits of a new file, before the umask.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, mode)
    try:
        _write_all(descriptor, pieces)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(path: Path) -> Path:
    """Where `replace_file` writes before it renames."""
    return path.with_name(f".{path.name}.bias_patch-new")


def replace_file(path: Path, content: bytes, mode: int | None = None) -> None:
    """Put a whole new file in the place of an old one, or of none; at no moment is there half a file.

    Args:
        path: the file.
        content: its bytes.
        mode: exact permission bits; whatever the umask leaves if not given.
    """
    temporary = temporary_name(path)
    write_synced(temporary, [content])
    if mode is not None:
        os.chmod(temporary, mode)
    os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder, new, changed and gone, survive a power cut."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]
