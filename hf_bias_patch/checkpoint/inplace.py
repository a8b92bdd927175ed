"""Edits a checkpoint where it lies: all or nothing, whenever it is killed, at the cost of the bytes touched.

Order of an edit, each step on disk before the next begins:
    1. the journal, with every old byte;
    2. a mark in place of the first 8 bytes of every file edited;
    3. the new bytes;
    4. the small files, each by a rename;
    5. the 8 bytes back;
    6. the journal is removed: this is the moment the edit counts.
Found with a journal, a checkpoint is taken back to the old state by `recover`, which may be killed as well.

The mark is for every loader that knows nothing of this: read as a header length it is absurd, so a file
caught between old and new fails to load, loudly, instead of giving a model that never existed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hf_bias_patch.checkpoint.copying import target_error
from hf_bias_patch.checkpoint.durable import replace_file, sync_folder, temporary_name, write_range
from hf_bias_patch.checkpoint.guards import refuse_interrupted, refuse_unsafe
from hf_bias_patch.checkpoint.journal import JOURNAL, Journal, OldRange, read_journal, unfinished_journal, write_journal
from hf_bias_patch.checkpoint.locks import lock_folder
from hf_bias_patch.checkpoint.paths import check_link, is_inside
from hf_bias_patch.errors import CheckpointError, TargetError

__all__ = ["MARK", "ByteEdit", "edit_in_place", "recover", "refuse_unsafe"]

MARK = b"MID-EDIT"
"""Stands where a safetensors file has its header length while it is in the middle of an edit."""


@dataclass(frozen=True)
class ByteEdit:
    """New bytes for a range of a weight file.

    Attributes:
        file: name relative to the checkpoint folder, with "/" between parts.
        offset: in bytes from the start of the file; at least 8.
        data: as many bytes as are overwritten; a file never changes its length. For a large range a function that
            makes them in pieces, while they are written: it may still read what its later pieces will overwrite.
        length: of `data` in bytes, where that is a function.
    """

    file: str
    offset: int
    data: bytes | Callable[[], Iterable[bytes]]
    length: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes that are overwritten."""
        return len(self.data) if isinstance(self.data, bytes) else self.length

    def pieces(self) -> Iterator[bytes]:
        """The new bytes, in order; never more than are to be overwritten."""
        left = self.nbytes
        for piece in [self.data] if isinstance(self.data, bytes) else self.data():
            left -= len(piece)
            if left < 0:
                break
            yield piece
        if left:
            raise ValueError(f"the edit at byte {self.offset} of {self.file} came {-left} bytes too long")


def edit_in_place(folder: Path, edits: Sequence[ByteEdit], replace: Mapping[str, bytes | None]) -> None:
    """Overwrite ranges of weight files and replace small files, all or nothing.

    After any exception the checkpoint is as it was, or, if even that could not be done, as it was once
    `recover` has run; until then nothing loads it.

    Args:
        folder: the checkpoint folder.
        edits: ranges that do not overlap.
        replace: small files, relative path to new content, or None to delete the file.

    Raises:
        ValueError: an edit is outside its file or overlaps another.
        CheckpointError: an earlier edit was interrupted.
        TargetError: a file must not or cannot be edited; another process edits; the disk is full.
    """
    folder = Path(folder)
    ranges = _checked_ranges(folder, edits)
    edited = {item.file for item in ranges}
    for name in sorted({*replace, *edited}):
        if not is_inside(name):
            raise ValueError(f"{name!r} is not inside the checkpoint folder")
        if name in edited or os.path.lexists(folder / name):
            refuse_unsafe(folder / name)
        check_link(folder, folder / name)
    with lock_folder(folder):
        refuse_interrupted(folder)
        needed = sum(item.nbytes for item in ranges) + sum(len(content or b"") for content in replace.values())
        try:
            journal = write_journal(folder, ranges, replace, _new_folders(folder, replace))
        except OSError as error:
            raise target_error(folder / JOURNAL, error, needed) from error
        try:
            _apply(folder, journal, edits, replace)
        except BaseException as error:
            _take_back(folder, error)
            if isinstance(error, OSError):
                raise target_error(folder, error, needed) from error
            raise


def recover(folder: Path) -> bool:
    """Put an interrupted edit back to the old state, if there is one. May be interrupted and run again.

    Returns:
        Whether there was something to put back.

    Raises:
        CheckpointError: the journal is damaged, or the files are not those it was written for.
        TargetError: the folder cannot be written, or another process is editing it.
    """
    folder = Path(folder)
    journal, unfinished = folder / JOURNAL, unfinished_journal(folder)
    if not journal.exists() and not unfinished.exists():
        return False
    with lock_folder(folder):
        try:
            unfinished.unlink(missing_ok=True)
            return _recover(folder)
        except OSError as error:
            if isinstance(error, TargetError):
                raise
            raise target_error(folder, error, journal.stat().st_size if journal.exists() else 0) from error


def _checked_ranges(folder: Path, edits: Sequence[ByteEdit]) -> list[OldRange]:
    ranges = [OldRange(edit.file, edit.offset, edit.nbytes) for edit in edits]
    ranges.sort(key=lambda item: (item.file, item.offset))
    stop = {item.file: 8 for item in ranges}  # the first 8 bytes are the mark's
    for item in ranges:
        if item.offset < stop[item.file]:
            raise ValueError(f"the edit at byte {item.offset} of {item.file} overlaps another, or the first 8 bytes")
        stop[item.file] = item.offset + item.nbytes
    for name, last in stop.items():
        if (folder / name).is_file() and last > (folder / name).stat().st_size:
            raise ValueError(f"an edit reaches byte {last} of {name}, which is shorter")
    return ranges


def _new_folders(folder: Path, replace: Mapping[str, bytes | None]) -> list[str]:
    parents = {parent.as_posix() for name in replace for parent in PurePosixPath(name).parents if parent.parts}
    return sorted(name for name in parents if not (folder / name).exists())


def _apply(folder: Path, journal: Journal, edits: Sequence[ByteEdit], replace: Mapping[str, bytes | None]) -> None:
    _mark(folder, journal)
    for file in journal.files:
        write_range(folder / file.name, ((e.offset, e.pieces()) for e in edits if e.file == file.name))
    for name in journal.folders:
        os.mkdir(folder / name)
    modes = {small.name: small.mode for small in journal.smalls}
    for name, content in replace.items():
        _set_small(folder / name, content, modes[name])
    _sync_folders(folder, journal)
    _unmark(folder, journal)
    os.unlink(journal.path)
    # Without the sync a power cut may bring the journal back, and with it the old state: whole in any case.
    with suppress(OSError):
        sync_folder(folder)


def _take_back(folder: Path, error: BaseException) -> None:
    """Undo at once, while the process lives; if even that fails, the journal stays for `recover`."""
    try:
        _recover(folder)
    except Exception as second:
        raise TargetError(
            f"{folder} could not be edited, and the old files could not be restored",
            why=f"{error}; then {second}",
            remedy=f"Solve this; then `hf-bias-patch revert {folder}` puts back what was there before",
        ) from error


def _recover(folder: Path) -> bool:
    try:
        journal = read_journal(folder)
    except CheckpointError as error:
        _drop_damaged(folder, error)
        return False
    if journal is None:
        return False
    _check_same_files(folder, journal)
    _mark(folder, journal)
    for file in journal.files:
        write_range(folder / file.name, journal.old_ranges(file.name))
    for small, content in journal.old_smalls():
        path = folder / small.name
        temporary_name(path).unlink(missing_ok=True)
        if path.parent.is_dir():
            _set_small(path, None if small.mode is None else content, small.mode)
    for name in reversed(journal.folders):
        with suppress(OSError):  # not created yet, or somebody else put a file there
            os.rmdir(folder / name)
    _sync_folders(folder, journal)
    _unmark(folder, journal)
    os.unlink(journal.path)
    sync_folder(folder)
    return True


def _drop_damaged(folder: Path, error: CheckpointError) -> None:
    """Without a mark anywhere nothing was touched, or everything was finished: the journal is not needed."""
    marked = [path for path in sorted(folder.rglob("*.safetensors")) if _head(path) == MARK]
    if marked:
        raise CheckpointError(
            f"{', '.join(map(str, marked))}: the files are in the middle of an edit, and cannot be put back",
            why=str(error),
            remedy="Restore the files from their origin",
        ) from error
    os.unlink(folder / JOURNAL)
    sync_folder(folder)


def _check_same_files(folder: Path, journal: Journal) -> None:
    for file in journal.files:
        path = folder / file.name
        if not path.is_file() or path.is_symlink() or path.stat().st_size != file.size:
            raise CheckpointError(
                f"{path} is not the file in which an edit was interrupted",
                why=f"It is missing or its size changed from {file.size:,} bytes",
                remedy=f"Put the file back, or remove {journal.path} to lose the old bytes",
            )


def _mark(folder: Path, journal: Journal) -> None:
    for file in journal.files:
        write_range(folder / file.name, [(0, [MARK])])


def _unmark(folder: Path, journal: Journal) -> None:
    for file in journal.files:
        write_range(folder / file.name, [(0, [bytes.fromhex(file.head)])])


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(8)


def _set_small(path: Path, content: bytes | None, mode: int | None) -> None:
    if content is None:
        with suppress(FileNotFoundError):
            os.unlink(path)
    else:
        replace_file(path, content, mode)


def _sync_folders(folder: Path, journal: Journal) -> None:
    for path in _touched_folders(folder, journal):
        sync_folder(path)


def _touched_folders(folder: Path, journal: Journal) -> Iterator[Path]:
    names = {small.name for small in journal.smalls}
    found = {folder, *((folder / name).parent for name in names), *((folder / n).parent for n in journal.folders)}
    return (path for path in sorted(found) if path.is_dir())
