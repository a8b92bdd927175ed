"""Writes a file out of ranges of another and new bytes. The kernel copies; nothing large is ever held."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hf_bias_patch.errors import CheckpointError, TargetError

__all__ = ["CopyRange", "NewBytes", "copy_whole", "target_error", "write_file"]

Buffer = bytes | bytearray | memoryview
Progress = Callable[[int], None]

_STEP = 64 << 20  # bytes between two calls of progress
_BUFFER = 4 << 20
# What a kernel or filesystem answers that cannot copy between these two files by itself.
_NOT_OFFERED = {
    errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY,
    errno.ENOTSOCK,
}  # fmt: skip


@dataclass(frozen=True)
class CopyRange:
    """Bytes start to stop of the source file, as they are."""

    start: int
    stop: int


@dataclass(frozen=True)
class NewBytes:
    """New bytes: one buffer, or several made one after the other while they are written; nbytes in all."""

    data: Buffer | Iterable[Buffer]
    nbytes: int


def write_file(
    source: Path | None, target: Path, segments: Iterable[CopyRange | NewBytes], progress: Progress | None = None
) -> None:
    """Write a new file from ranges of a source file and new bytes.

    Ranges are shared instead of copied where the filesystem can (reflink). The file is not synced.

    Args:
        source: the file that `CopyRange` ranges are of; never modified. None if there are only `NewBytes`s.
        target: created, or emptied first; must not be the source.
        segments: in the order they are written; adjoining ranges are copied as one.
        progress: called with the number of bytes written since the last call.

    Raises:
        CheckpointError: the source cannot be read or ends within a range.
        TargetError: the target cannot be written; when the disk is full, with the bytes needed and free.
    """
    segments = list(_merged(segments))
    total = sum(s.nbytes if isinstance(s, NewBytes) else s.stop - s.start for s in segments)
    report = progress or (lambda count: None)
    with _opened(source) as read_from:
        try:
            with open(target, "wb", buffering=0) as file:
                for segment in segments:
                    if isinstance(segment, NewBytes):
                        _put(file.fileno(), segment, report)
                    else:
                        _copy(source, read_from, file.fileno(), segment, report)
        except (CheckpointError, TargetError):
            raise
        except OSError as error:
            raise target_error(target, error, total) from error


def copy_whole(source: Path, target: Path, progress: Progress | None = None) -> None:
    """Copy a file as it is; the target's folder is made.

    Raises:
        CheckpointError, TargetError: as for `write_file`.
    """
    try:
        size = source.stat().st_size
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise target_error(target, error, 0) from error
    write_file(source, target, [CopyRange(0, size)], progress)


@contextmanager
def _opened(source: Path | None) -> Iterator[int]:
    """A descriptor to read from; -1 for no file."""
    if source is None:
        yield -1
        return
    try:
        descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read", why=error.strerror or str(error)) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def target_error(target: Path, error: OSError, needed: int) -> TargetError:
    """The error to raise when writing `needed` bytes to `target` fails: one that is no TargetError yet becomes one."""
    if isinstance(error, TargetError):
        return error
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return TargetError(f"{target} cannot be written", why=error.strerror or str(error))
    try:
        free = f"{shutil.disk_usage(target.parent).free:,}"
    except OSError:
        free = "an unknown number of"
    return TargetError(
        f"{target} cannot be written: {error.strerror}",
        why=f"{needed:,} bytes are needed, of which some may be written already, and {free} are free",
        remedy="Make room, or write to another disk",
    )


def _merged(segments: Iterable[CopyRange | NewBytes]) -> Iterator[CopyRange | NewBytes]:
    held: CopyRange | None = None
    for segment in segments:
        if isinstance(segment, CopyRange) and held is not None and held.stop == segment.start:
            held = CopyRange(held.start, segment.stop)
            continue
        if held is not None:
            yield held
            held = None
        if isinstance(segment, CopyRange):
            held = segment
        else:
            yield segment
    if held is not None:
        yield held


def _put(target: int, segment: NewBytes, progress: Progress) -> None:
    buffers = [segment.data] if isinstance(segment.data, (bytes, bytearray, memoryview)) else segment.data
    written = 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        written += len(view)
        _write_all(target, view, progress)
    if written != segment.nbytes:
        raise ValueError(f"NewBytes of {segment.nbytes} bytes came with {written}")


def _write_all(target: int, view: memoryview, progress: Progress) -> None:
    while view:
        count = os.write(target, view[:_STEP])
        progress(count)
        view = view[count:]


def _copy(source: Path | None, read_from: int, target: int, part: CopyRange, progress: Progress) -> None:
    """Copy a range by the first way that works; each way says how far it came."""
    position = part.start
    for way in _ways():
        while position < part.stop:
            try:
                count = way(read_from, target, position, min(_STEP, part.stop - position))
            except OSError as error:
                if error.errno in _NOT_OFFERED and way is not _by_buffer:
                    break
                raise
            if not count and way is _by_buffer:
                raise CheckpointError(f"{source} ends at byte {position:,}, before {part.stop:,}")
            if not count:
                break
            progress(count)
            position += count


def _ways() -> list[Callable[[int, int, int, int], int]]:
    offered: list[Callable[[int, int, int, int], int]] = []
    if hasattr(os, "copy_file_range"):
        offered.append(_by_kernel)
    if hasattr(os, "sendfile"):
        offered.append(_by_sendfile)
    return [*offered, _by_buffer]


def _by_kernel(source: int, target: int, position: int, count: int) -> int:
    return os.copy_file_range(source, target, count, offset_src=position)


def _by_sendfile(source: int, target: int, position: int, count: int) -> int:
    return os.sendfile(target, source, position, count)


def _by_buffer(source: int, target: int, position: int, count: int) -> int:
    os.lseek(source, position, os.SEEK_SET)
    block = os.read(source, min(count, _BUFFER))
    view = memoryview(block)
    while view:
        view = view[os.write(target, view) :]
    return len(block)
