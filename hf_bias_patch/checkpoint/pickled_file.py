"""The table of contents of a PyTorch pickle: each tensor and where its values are in the file. Nothing is executed.

A file of PyTorch 1.6 or later is a zip archive: `data.pkl` describes the tensors, `data/KEY` are the storages, as they
are. An older file is a row of pickles (a magic number, a version, the byte order, the table, the keys of the storages)
and behind them the storages in the order of their keys, each after its number of values.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from hf_bias_patch.checkpoint.dtypes import BITS
from hf_bias_patch.checkpoint.header import MAX_HEADER, Header, TensorInfo
from hf_bias_patch.checkpoint.mistaken import FIRST_BYTES, mistaken
from hf_bias_patch.checkpoint.paths import open_regular
from hf_bias_patch.checkpoint.pickled_views import Storage, StoredView, is_known, views_of
from hf_bias_patch.checkpoint.shorten import brief, listed
from hf_bias_patch.checkpoint.unpickle import ForbiddenError, unpickle
from hf_bias_patch.errors import CheckpointError

__all__ = ["Bounded", "PickledTensor", "read_pickled"]

_WHY = 200
"""Characters of what another library says."""

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_LOCAL_HEADER = struct.Struct("<4s22xHH")


@dataclass(frozen=True, slots=True)
class PickledTensor(TensorInfo):
    """A tensor in a pickle: `start` is where its first value is, `stop` lies `nbytes` behind it.

    Attributes:
        strides: bytes from one entry of an axis to the next.
        conjugate, negative: whether the values are to be read so.
    """

    strides: tuple[int, ...]
    conjugate: bool
    negative: bool

    @property
    def extent(self) -> int:
        """Bytes from its first value to behind its last."""
        if not self.nbytes:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return BITS[self.dtype] // 8 + sum((axis - 1) * stride for axis, stride in steps)

    @property
    def is_plain(self) -> bool:
        """Whether its values lie one behind the other, so that bytes start to stop are the tensor."""
        step = BITS[self.dtype] // 8
        for axis, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if axis != 1 and stride != step and self.nbytes:
                return False
            step *= axis
        return not (self.conjugate or self.negative)


def read_pickled(path: Path) -> Header:
    """Read what a pickle says of its tensors; their values are not read. `raw` and `metadata` are empty.

    Raises:
        CheckpointError: the file cannot be read, is damaged, asks for more than tensors, or holds something else.
    """
    try:
        with open_regular(path) as file:
            return _parse(path, file, os.fstat(file.fileno()).st_size)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read", why=error.strerror or str(error)) from error
    except ForbiddenError as error:
        raise CheckpointError(
            f"{path} is a pickle that asks for more than tensors, and is not executed",
            why=f"It asks for {listed([str(error)])}",
            remedy="If you trust where it comes from, load it with torch.load(FILE, weights_only=False), "
            "and save the model with save_pretrained or its tensors with safetensors",
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)[:_WHY]
        raise CheckpointError(
            f"{path} is not a readable PyTorch pickle", why=why, remedy="Download it again"
        ) from error


def _parse(path: Path, file: BinaryIO, size: int) -> Header:
    first = file.read(FIRST_BYTES)
    file.seek(0)
    zipped, pickled = first.startswith(b"PK\x03\x04"), first.startswith(b"\x80")
    if not (zipped or pickled) and (other := mistaken(first)) is not None:
        raise CheckpointError(f"{path} is no PyTorch pickle", *other)
    views, places = (_zipped if zipped else _in_a_row)(path, file, size)
    tensors: dict[str, TensorInfo] = {name: _tensor(path, name, view, places, size) for name, view in views.items()}
    return Header(path, b"", tensors, {}, size)


def _tensor(path: Path, name: str, view: StoredView, places: Mapping[str, int], size: int) -> PickledTensor:
    width = BITS[view.dtype] // 8
    count = 1
    for axis in view.shape:
        count *= axis
    if count * width > size:
        raise CheckpointError(
            f"Tensor {brief(name)} of {path} repeats its values up to {count * width:,} bytes, in a file of {size:,}",
            remedy="Save it without repetition: `tensor.contiguous()` in its state dict",
        )
    start = places[view.storage.key] + view.offset * width
    strides = tuple(stride * width for stride in view.strides)
    return PickledTensor(
        name, view.dtype, view.shape, start, start + count * width, strides, view.conjugate, view.negative
    )


def _zipped(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, StoredView], dict[str, int]]:
    """The tensors of a zip archive, and where each storage starts."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    members = {entry.filename: entry for entry in entries}
    if len(members) != len(entries):
        _damaged("it lists a file twice")
    top = entries[0].filename.split("/")[0] if entries else ""
    if f"{top}/constants.pkl" in members:
        raise CheckpointError(f"{path} is a TorchScript program, not a table of tensors", remedy="Save its state dict")

    def content(name: str) -> bytes:
        start, stop = _place(file, members, f"{top}/{name}", size)
        if stop - start > MAX_HEADER:
            _damaged(f"{name} has {stop - start:,} bytes, over the limit of {MAX_HEADER:,}")
        file.seek(start)
        return file.read(stop - start)

    if f"{top}/byteorder" in members and content("byteorder") != b"little":
        _damaged("its values are not little-endian")
    views = views_of(path, unpickle(io.BytesIO(content("data.pkl")), is_known))
    places = {}
    for storage in _storages(views):
        start, stop = _place(file, members, f"{top}/data/{storage.key}", size)
        if stop - start < storage.count * storage.width:
            _damaged(f"storage {storage.key} has {stop - start:,} bytes of {storage.count * storage.width:,}")
        places[storage.key] = start
    return views, places


def _place(file: BinaryIO, members: Mapping[str, zipfile.ZipInfo], name: str, size: int) -> tuple[int, int]:
    """Where the content of a member starts and stops."""
    entry = members.get(name)
    if entry is None:
        _damaged(f"it lacks {name}")
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        _damaged(f"{name} is compressed or encrypted, which PyTorch never does")
    file.seek(entry.header_offset)
    sign, name_size, extra_size = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = entry.header_offset + _LOCAL_HEADER.size + name_size + extra_size
    if sign != b"PK\x03\x04" or start + entry.file_size > size:
        _damaged(f"{name} is not where the archive says")
    return start, start + entry.file_size


def _in_a_row(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, StoredView], dict[str, int]]:
    """The same of a file of before PyTorch 1.6."""
    pickles = Bounded(file, min(size, MAX_HEADER))
    magic, version = unpickle(pickles, is_known), None
    if magic == _MAGIC:
        version, system = unpickle(pickles, is_known), unpickle(pickles, is_known)
    if version != _VERSION:
        _damaged("it does not begin as one")
    if type(system) is not dict or system.get("little_endian") is not True:
        _damaged("its values are not little-endian")
    views = views_of(path, unpickle(pickles, is_known))
    keys = unpickle(pickles, is_known)
    known = {storage.key: storage for storage in _storages(views)}
    if type(keys) is not list or not all(type(key) is str for key in keys) or known.keys() - set(keys):
        _damaged("it lacks the list of its storages")
    places = {}
    position = file.tell()
    for key in keys:
        if key not in known:
            _damaged(f"no tensor says how large storage {key} is")
        file.seek(position)
        storage = known[key]
        places[key] = position + 8
        position += 8 + storage.count * storage.width
        if int.from_bytes(file.read(8), "little") != storage.count or position > size:
            _damaged(f"storage {key} is not whole")
    return views, places


class Bounded:
    """A file read up to a limit, so that a false length in a pickle cannot fill the memory."""

    def __init__(self, file: BinaryIO, stop: int) -> None:
        self.file, self.stop, self.tell = file, stop, file.tell

    def read(self, size: int, /) -> bytes:
        return self.file.read(max(0, min(size, self.stop - self.tell())))

    def readline(self) -> bytes:
        return self.file.readline(max(0, self.stop - self.tell()))


def _storages(views: Mapping[str, StoredView]) -> Iterator[Storage]:
    """Every storage once.

    Raises:
        ValueError: two tensors say otherwise of the same one.
    """
    found: dict[str, Storage] = {}
    for view in views.values():
        storage = view.storage
        first = found.setdefault(storage.key, storage)
        if first.count * first.width != storage.count * storage.width:
            _damaged(f"storage {storage.key} has two sizes")
    yield from found.values()


def _damaged(why: Any) -> NoReturn:
    raise ValueError(why)
