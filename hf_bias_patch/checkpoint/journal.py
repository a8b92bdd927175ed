"""The journal of an in-place edit: every old byte, on disk before the first new one is written.

Layout: 8 bytes magic, 8 bytes length of the table, the table (JSON), the old bytes in the table's order,
sha256 of all that. Written under another name, synced and renamed: under its own name it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.durable import read_range, sync_folder, write_synced
from hf_bias_patch.checkpoint.paths import check_link, is_inside
from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.errors import CheckpointError

__all__ = ["JOURNAL", "Journal", "OldFile", "OldRange", "OldSmall", "read_journal", "write_journal"]

JOURNAL = ".bias_patch.journal"
_MAGIC = b"HFBPJRN1"
_DIGEST = 32


@dataclass(frozen=True)
class OldFile:
    """An edited file: its name, its size, and its first 8 bytes, as hexadecimal digits."""

    name: str
    size: int
    head: str


@dataclass(frozen=True)
class OldRange:
    """A range of an edited file whose old bytes the journal holds."""

    file: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class OldSmall:
    """A replaced small file, its content in the journal; its permission bits, None if it did not exist."""

    name: str
    mode: int | None
    nbytes: int


@dataclass(frozen=True)
class Journal:
    """What an interrupted edit may have touched.

    Attributes:
        path: the journal file.
        files: the edited files.
        ranges: what was edited in them.
        smalls: the files that were replaced, created or deleted.
        folders: the folders that were created, outer before inner.
        payload: offset in the journal of the old bytes: of the ranges, then of the small files.
    """

    path: Path
    files: tuple[OldFile, ...]
    ranges: tuple[OldRange, ...]
    smalls: tuple[OldSmall, ...]
    folders: tuple[str, ...]
    payload: int

    def old_ranges(self, file: str) -> Iterator[tuple[int, Iterator[bytes]]]:
        """Offset and old bytes, in pieces, of each range of one file."""
        position = self.payload
        for item in self.ranges:
            if item.file == file:
                yield item.offset, read_range(self.path, position, item.nbytes)
            position += item.nbytes

    def old_smalls(self) -> Iterator[tuple[OldSmall, bytes]]:
        """Each small file with its old content."""
        position = self.payload + sum(item.nbytes for item in self.ranges)
        for item in self.smalls:
            yield item, b"".join(read_range(self.path, position, item.nbytes))
            position += item.nbytes


def write_journal(folder: Path, ranges: Sequence[OldRange], smalls: Iterable[str], folders: Iterable[str]) -> Journal:
    """Save what is about to be touched; when this returns, it survives a power cut. After an exception it is gone.

    Args:
        folder: the checkpoint folder.
        ranges: grouped by file.
        smalls: names of files about to be replaced, created or deleted.
        folders: names of folders about to be created, outer before inner.

    Raises:
        OSError: something cannot be read, or the journal not written.
    """
    files = [_old_file(folder, name) for name in dict.fromkeys(item.file for item in ranges)]
    old_smalls = [_old_small(folder, name) for name in smalls]
    table = {
        "files": [asdict(item) for item in files],
        "ranges": [asdict(item) for item in ranges],
        "smalls": [asdict(item) for item, _ in old_smalls],
        "folders": list(folders),
    }
    path, temporary = folder / JOURNAL, unfinished_journal(folder)
    text = json.dumps(table).encode()
    try:
        write_synced(temporary, _content(folder, text, ranges, [content for _, content in old_smalls]))
        os.replace(temporary, path)
        sync_folder(folder)
    except BaseException:
        for leftover in (temporary, path):
            with suppress(OSError):
                os.unlink(leftover)
        raise
    return _journal(path, table, len(text))


def unfinished_journal(folder: Path) -> Path:
    """Where a journal is while it is written; nothing was touched yet."""
    return folder / f"{JOURNAL}.new"


def read_journal(folder: Path) -> Journal | None:
    """Read and check the journal of a folder.

    Returns:
        None if there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / JOURNAL
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    if not _is_whole(path, size):
        raise CheckpointError(f"{path} is damaged", why="Its checksum does not match")
    length = int.from_bytes(b"".join(read_range(path, 8, 8)), "little")
    try:
        if length > size:
            raise ValueError("its table is longer than itself")
        found = _journal(path, json.loads(b"".join(read_range(path, 16, length))), length)
        _check(folder, found, size)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged", why=f"Its table is invalid: {brief(str(error))}") from error
    return found


def _check(folder: Path, journal: Journal, size: int) -> None:
    """Refuse what no edit wrote: a journal may come with a stranger's folder, and a right checksum is easily made.

    Raises:
        CheckpointError: a name leads out of the folder.
        ValueError, TypeError: it is otherwise not sound.
    """
    names = [file.name for file in journal.files] + [small.name for small in journal.smalls] + [*journal.folders]
    for name in names:
        if not is_inside(name) or name == JOURNAL:
            raise ValueError(f"{brief(name)} is not inside the folder")
        check_link(folder, folder / name)
    sizes = {file.name: file.size for file in journal.files}
    for item in journal.ranges:
        if not 8 <= item.offset <= item.offset + item.nbytes <= sizes[item.file]:
            raise ValueError(f"bytes {item.offset} and following are not in {brief(item.file)}")
    heads = [bytes.fromhex(file.head) for file in journal.files]
    modes = [0 if small.mode is None else small.mode for small in journal.smalls]
    kept = [item.nbytes for item in journal.ranges] + [small.nbytes for small in journal.smalls]
    whole = journal.payload + sum(kept) + _DIGEST == size and min(kept, default=0) >= 0
    if not whole or any(len(head) != 8 for head in heads) or any(not 0 <= mode <= 0o7777 for mode in modes):
        raise ValueError("its sizes do not add up")


def _journal(path: Path, table: dict[str, Any], length: int) -> Journal:
    return Journal(
        path,
        tuple(OldFile(**item) for item in table["files"]),
        tuple(OldRange(**item) for item in table["ranges"]),
        tuple(OldSmall(**item) for item in table["smalls"]),
        tuple(table["folders"]),
        16 + length,
    )


def _is_whole(path: Path, size: int) -> bool:
    if size < 16 + _DIGEST:
        return False
    digest = hashlib.sha256()
    for piece in read_range(path, 0, size - _DIGEST):
        digest.update(piece)
    magic = b"".join(read_range(path, 0, 8))
    return magic == _MAGIC and digest.digest() == b"".join(read_range(path, size - _DIGEST, _DIGEST))


def _old_file(folder: Path, name: str) -> OldFile:
    return OldFile(name, (folder / name).stat().st_size, b"".join(read_range(folder / name, 0, 8)).hex())


def _old_small(folder: Path, name: str) -> tuple[OldSmall, bytes]:
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return OldSmall(name, None, 0), b""
    return OldSmall(name, stat.S_IMODE(path.stat().st_mode), len(content)), content


def _content(folder: Path, table: bytes, ranges: Sequence[OldRange], smalls: Sequence[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for piece in _payload(folder, table, ranges, smalls):
        digest.update(piece)
        yield piece
    yield digest.digest()


def _payload(folder: Path, table: bytes, ranges: Sequence[OldRange], smalls: Sequence[bytes]) -> Iterator[bytes]:
    yield _MAGIC + len(table).to_bytes(8, "little") + table
    for item in ranges:
        yield from read_range(folder / item.file, item.offset, item.nbytes)
    yield from smalls
