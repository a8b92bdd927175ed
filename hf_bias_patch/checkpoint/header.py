"""The header of a safetensors file: what is where in it. Believes nothing that it has not checked.

A file is 8 bytes of header length, that many bytes of JSON, then the tensors without holes. What the
safetensors library refuses is refused here, with the file and tensor named. Stricter on two points: a name
written twice is refused, where the library silently takes the last, and so are shapes that no array can have.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

from hf_bias_patch.checkpoint.dtypes import BITS
from hf_bias_patch.checkpoint.mistaken import mistaken
from hf_bias_patch.checkpoint.paths import open_regular
from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.errors import CheckpointError

__all__ = ["Header", "TensorInfo", "build_header", "header_size", "parse_header", "read_header"]

MAX_HEADER = 100_000_000
"""Bytes; the library's own limit, there so that a lying length cannot eat the memory."""

_UNSIGNED_64 = 2**64
_MOST_AXES = 64
_LARGEST_EMPTY = 2**40
"""Product of the other axes of a tensor without values: a number that no byte of the file stands for."""

_DOWNLOAD_AGAIN = "Download or export the file again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies.

    Attributes:
        name: the parameter's name.
        dtype: a safetensors dtype name, such as "F32".
        shape: its axes, outermost first; () for a scalar.
        start: offset in bytes of its first byte, counted from the start of the file.
        stop: offset in bytes behind its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start

    @property
    def size(self) -> int:
        """Number of values."""
        return self.nbytes * 8 // BITS[self.dtype]


@dataclass(frozen=True)
class Header:
    """One weight file's table of contents.

    Attributes:
        path: the file.
        raw: the first bytes of the file as they are: 8 length bytes, then the JSON.
        tensors: by name, in the order of their data.
        metadata: the `__metadata__` entry; empty where there is none.
        file_size: bytes of the whole file.
    """

    path: Path
    raw: bytes
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    file_size: int


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a safetensors file; the data is not read.

    Raises:
        CheckpointError: the file cannot be read, is truncated, or its header lies.
    """
    path = Path(path)
    return parse_header(path, *_read_raw(path))


def parse_header(path: Path, raw: bytes, file_size: int) -> Header:
    """Check a header that was read.

    Args:
        path: the file, for messages.
        raw: its first bytes, up to the end of the JSON.
        file_size: bytes of the whole file.

    Raises:
        CheckpointError: the header lies.
    """
    entries = _parse(path, raw)
    metadata = _metadata(path, entries.pop("__metadata__", None))
    infos = [_tensor(path, name, entry, len(raw)) for name, entry in entries.items()]
    infos.sort(key=attrgetter("start", "stop"))
    _check_cover(path, infos, len(raw), file_size)
    return Header(path, raw, {info.name: info for info in infos}, metadata, file_size)


def build_header(infos: Iterable[TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a safetensors file that holds these tensors one behind the other.

    Args:
        infos: in the order of their data; only name, dtype, shape and nbytes are used, so infos of a longer
            file serve as they are.
        metadata: written as `__metadata__` unless empty.

    Returns:
        8 length bytes and the JSON, padded with spaces so that the data starts at a multiple of 8.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for info in infos:
        stop = start + info.nbytes
        entries[info.name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _read_raw(path: Path) -> tuple[bytes, int]:
    try:
        with open_regular(path) as file:
            file_size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            return prefix + file.read(header_size(path, prefix, file_size) - 8), file_size
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read", why=error.strerror or str(error)) from error


def header_size(path: Path, prefix: bytes, file_size: int) -> int:
    """Bytes before the data, as the first 8 bytes of a file claim.

    Raises:
        CheckpointError: they cannot be true.
    """
    if len(prefix) < 8:
        _refuse(path, f"holds {file_size} bytes, too few for a safetensors header")
    length = int.from_bytes(prefix[:8], "little")
    if (other := mistaken(prefix[:8])) is not None:
        raise CheckpointError(f"{path} is no safetensors file", *other)
    if length > MAX_HEADER:
        _refuse(path, f"claims a header of {length:,} bytes, over the limit of {MAX_HEADER:,}")
    if 8 + length > file_size:
        _refuse(path, f"claims a header of {length:,} bytes, and the file has only {file_size:,}")
    return 8 + length


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            _refuse(path, f"has a header that names {brief(twice)} twice")
        return table

    try:
        entries = json.loads(
            raw[8:].decode(),
            object_pairs_hook=unique,
            parse_constant=_no_number,
            parse_int=_integer if b"-0" in raw else None,  # seldom, and a tenth of the time
            parse_float=_finite,
        )
        "".join(entries).encode()  # an escaped lone surrogate is not text
    except (CheckpointError, MemoryError):
        raise
    except (ValueError, TypeError, RecursionError) as error:
        _refuse(path, f"has a header that is not valid JSON ({error})")
    if type(entries) is not dict:
        _refuse(path, "has a header that is not a JSON object")
    return entries


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _integer(text: str) -> int | float:
    # "-0" is a float to the library, so no size and no offset.
    return -0.0 if text == "-0" else int(text)


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _no_number(text)


def _metadata(path: Path, entry: Any) -> dict[str, str]:
    if entry is None:
        return {}
    if type(entry) is not dict or not all(type(value) is str for value in entry.values()):
        _refuse(path, "has a __metadata__ entry that does not map text to text")
    try:
        "".join((*entry, *entry.values())).encode()
    except UnicodeEncodeError:
        _refuse(path, "has a __metadata__ entry that is not valid text")
    return dict(entry)


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        _refuse(path, "has no plain dtype, shape and data_offsets", name)
    if type(dtype) is not str or dtype not in BITS:
        _refuse(path, f"has dtype {brief(dtype)}, which the safetensors format does not know", name)
    size = _size(path, name, shape)
    if type(start) is not int or type(stop) is not int or not 0 <= start <= stop < _UNSIGNED_64:
        _refuse(path, f"has offsets [{brief(start)}, {brief(stop)}], which are not a range", name)
    if size * BITS[dtype] != (stop - start) * 8:
        _refuse(path, f"is {dtype} of shape {shape} and has offsets {stop - start} bytes apart", name)
    return TensorInfo(name, dtype, tuple(shape), data_start + start, data_start + stop)


def _size(path: Path, name: str, shape: Any) -> int:
    """Number of values of a shape that an array can have."""
    if type(shape) is not list:
        _refuse(path, f"has shape {brief(shape)}, which is not a list of sizes", name)
    if len(shape) > _MOST_AXES:
        _refuse(path, f"has {len(shape)} axes, more than the {_MOST_AXES} that an array can have", name)
    size, filled = 1, 1
    for axis in shape:
        if type(axis) is not int or axis < 0:
            _refuse(path, f"has shape {brief(shape)}, which is not a list of sizes", name)
        size, filled = size * axis, filled * (axis or 1)
        if size >= _UNSIGNED_64:
            _refuse(path, f"has shape {brief(shape)}, which overflows", name)
        if filled >= _UNSIGNED_64 or (not size and filled > _LARGEST_EMPTY):
            _refuse(path, f"has shape {brief(shape)}, which holds no values and is larger than any array", name)
    return size


def _check_cover(path: Path, infos: list[TensorInfo], data_start: int, file_size: int) -> None:
    position = data_start
    for info in infos:
        if info.start < position:
            _refuse(path, f"overlaps the tensor before it by {position - info.start:,} bytes", info.name)
        if info.start > position:
            _refuse(path, f"comes after a hole of {info.start - position:,} bytes", info.name)
        position = info.stop
    if position > file_size:
        _refuse(path, f"is truncated: the header describes {position:,} bytes, the file has {file_size:,}")
    if position < file_size:
        _refuse(path, f"has {file_size - position:,} bytes behind the last tensor")


def _refuse(path: Path, what: str, tensor: str | None = None) -> NoReturn:
    subject = str(path) if tensor is None else f"Tensor {brief(tensor)} of {path}"
    raise CheckpointError(f"{subject} {what}", remedy=_DOWNLOAD_AGAIN)
