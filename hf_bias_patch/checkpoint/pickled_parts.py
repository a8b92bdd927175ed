"""The tensors anywhere in a pickle, whatever else it holds: their names, dtypes and shapes. Nothing is executed.

`pickled_file` reads tables of tensors, and refuses what is more than that. This looks into training states, tables in
tables and pickles of plain Python too, as far as they can be followed.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from hf_bias_patch.checkpoint.header import MAX_HEADER
from hf_bias_patch.checkpoint.paths import open_regular
from hf_bias_patch.checkpoint.pickled_file import Bounded
from hf_bias_patch.checkpoint.pickled_views import StoredView, views_of
from hf_bias_patch.checkpoint.unpickle import ForbiddenError, unpickle
from hf_bias_patch.errors import CheckpointError

__all__ = ["pickled_parts"]

_ROW = 5
"""Pickles one behind the other at the start of a file of before PyTorch 1.6; the tensors are in the fourth."""

_UNREADABLE = (
    OSError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, ForbiddenError, CheckpointError,
)  # fmt: skip
"""A RuntimeError is an archive that is encrypted, or a pickle nested too deep."""


def pickled_parts(path: Path) -> dict[str, StoredView]:
    """The tensors in a pickle, by name, those of a table in a table as `outer.inner`.

    Empty where there are none, or where it cannot be followed: a damaged file, a program, objects of other packages.
    """
    found: dict[str, StoredView] = {}
    with suppress(*_UNREADABLE), open_regular(path) as file:
        for content in _contents(file):
            for name, value in _leaves(content):
                with suppress(CheckpointError):
                    found |= views_of(path, {name: value})
    return found


def _contents(file: BinaryIO) -> Iterator[Any]:
    """What each pickle in a file holds."""
    if file.read(4) == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                small = entry.file_size <= MAX_HEADER and entry.compress_type == zipfile.ZIP_STORED
                if entry.filename.rpartition("/")[2] == "data.pkl" and small:
                    yield unpickle(io.BytesIO(archive.read(entry)), _any_name)
        return
    file.seek(0)
    pickles = Bounded(file, MAX_HEADER)
    with suppress(*_UNREADABLE):  # of those behind the first, none need be one
        for _ in range(_ROW):
            yield unpickle(pickles, _any_name)


def _any_name(_: str) -> bool:
    """Any name may stand there: nothing is called by it."""
    return True


def _leaves(content: Any) -> Iterator[tuple[str, Any]]:
    """Values in nested tables and lists, each with its dotted path. A table met twice is listed once."""
    seen: set[int] = set()
    left: list[tuple[str, Any]] = [("", content)]
    while left:
        name, value = left.pop()
        if not isinstance(value, (dict, list, tuple)):
            yield name, value
        elif id(value) not in seen:
            seen.add(id(value))
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            left += [(f"{name}.{key}" if name else str(key), item) for key, item in inner]
