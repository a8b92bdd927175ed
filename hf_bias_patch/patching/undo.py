"""The undo file of a variant: a zip archive of everything needed to restore its source bit for bit."""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from hf_bias_patch.attention.layout import View
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching import residual
from hf_bias_patch.patching.rewrite import Block, Outer, blocks_of_rows

__all__ = ["Undo", "UndoWriter"]

_MANIFEST = "manifest.json"
# What reading a damaged archive, or decoding its contents, may raise.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, OSError, OverflowError, RuntimeError,
    ValueError,
)  # fmt: skip


class _Update(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    view: View
    conv1d: bool


class _Old(BaseModel):
    """What a tensor was: its member in the archive, and checksums of its bytes before and after.

    A matrix was kept in blocks of `step` rows, which is a matter of memory and may differ between versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    member: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    patched_sha256: str | None
    updates: tuple[_Update, ...] = ()
    step: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's values."""
        return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize


class _Manifest(BaseModel):
    """Contents of the archive.

    `sha256` is of the source's weight files; empty after an edit in place, which never reads them whole.
    `headers` maps weight files whose header changed to the member with the old one.
    `files` maps other files that changed or went to members; `created` are files the source did not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    sha256: dict[str, str] = {}
    tensors: dict[str, _Old] = {}
    headers: dict[str, str] = {}
    files: dict[str, str] = {}
    created: tuple[str, ...] = ()


class UndoWriter:
    """Writes an undo file, one tensor at a time. A context manager; nothing is complete before `finish`."""

    def __init__(self, target: Path | IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(target, "w", zipfile.ZIP_STORED)
        self._tensors: dict[str, _Old] = {}
        self._headers: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._rows: IO[bytes] = io.BytesIO()

    def __enter__(self) -> UndoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._zip.close()
            return
        # A matrix may have been left in the middle, and the disk be full: neither may hide what went wrong.
        for file in (self._rows, self._zip):
            with suppress(OSError, ValueError):
                file.close()

    def vector(self, name: str, file: str, dtype: str, old: np.ndarray, new: np.ndarray | None) -> None:
        """Keep a tensor whole; `new` is None if it leaves the checkpoint."""
        member = self._member()
        self._write(member, old.tobytes())
        after = None if new is None else hashlib.sha256(new.tobytes()).hexdigest()
        before = hashlib.sha256(old.tobytes()).hexdigest()
        self._tensors[name] = _Old(
            member=member, file=file, dtype=dtype, shape=old.shape, sha256=before, patched_sha256=after
        )

    def matrix(
        self,
        name: str,
        file: str,
        dtype: str,
        shape: tuple[int, ...],
        outers: list[Outer],
        blocks: Iterator[Block],
    ) -> Iterator[bytes]:
        """Keep what restores a matrix from its new values, while passing on the new rows as bytes."""
        member = self._member()
        before, after = hashlib.sha256(), hashlib.sha256()
        step = 1
        with self._zip.open(self._info(f"{member}/rows"), "w", force_zip64=True) as rows:
            self._rows = rows
            for block in blocks:
                step = max(step, block.stop - block.start)
                before.update(block.old.tobytes())
                new = block.new.tobytes()
                after.update(new)
                for outer in outers:
                    index, update = outer.part(block.start, block.stop)
                    piece = residual.encode(block.old[index], block.new[index], update)
                    rows.write(len(piece).to_bytes(8, "little") + piece)
                yield new
        for number, outer in enumerate(outers):
            self._write(f"{member}/{number}/bias", outer.bias.tobytes())
            self._write(f"{member}/{number}/direction", outer.direction.tobytes())
        self._tensors[name] = _Old(
            member=member,
            file=file,
            dtype=dtype,
            shape=shape,
            sha256=before.hexdigest(),
            patched_sha256=after.hexdigest(),
            updates=tuple(_Update(view=outer.view, conv1d=outer.conv1d) for outer in outers),
            step=step,
        )

    def header(self, file: str, raw: bytes) -> None:
        """Keep a weight file's header."""
        self._headers[file] = f"headers/{len(self._headers)}"
        self._write(self._headers[file], raw)

    def file(self, name: str, content: bytes) -> None:
        """Keep a file that is no weight file."""
        self._files[name] = f"files/{len(self._files)}"
        self._write(self._files[name], content)

    def finish(self, sha256: Mapping[str, str], created: tuple[str, ...]) -> None:
        """Write the manifest.

        Args:
            sha256: the source's weight files, where they are known.
            created: files of the variant that the source did not have.
        """
        manifest = _Manifest(
            sha256=dict(sha256),
            tensors=self._tensors,
            headers=self._headers,
            files=self._files,
            created=created,
        )
        self._write(_MANIFEST, manifest.model_dump_json().encode())

    def _member(self) -> str:
        return f"tensors/{len(self._tensors)}"

    def _info(self, member: str) -> zipfile.ZipInfo:
        # A fixed date: the same patch makes the same file.
        return zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0))

    def _write(self, member: str, content: bytes) -> None:
        self._zip.writestr(self._info(member), content)


class Undo:
    """An opened undo file.

    Attributes:
        manifest: what it holds.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise CheckpointError(f"{path} is missing", why="It holds the values to restore")
        self._path = path
        with self._readable("its list of contents"):
            self._zip = zipfile.ZipFile(path)
            self.manifest = _Manifest.model_validate_json(self._zip.read(_MANIFEST))
        self._check_names()

    def _check_names(self) -> None:
        """An undo file may come with a stranger's variant, and must not name files outside of it."""
        manifest = self.manifest
        tensors = [old.file for old in manifest.tensors.values()]
        for name in (*manifest.sha256, *manifest.headers, *manifest.files, *manifest.created, *tensors):
            parts = PurePosixPath(name).parts
            if not parts or parts[0] == "/" or ".." in parts:
                raise CheckpointError(
                    f"{self._path} names {name!r}, which lies outside the variant", why="It is damaged, or hostile"
                )

    @contextmanager
    def _readable(self, what: str) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except _DAMAGE as error:
            raise CheckpointError(
                f"{self._path} is damaged at {what} ({type(error).__name__})",
                remedy="Go back to the model the variant was made from",
            ) from None

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def content(self, member: str) -> bytes:
        """Bytes of a member of the archive."""
        with self._readable(member):
            return self._zip.read(member)

    def files(self) -> dict[str, bytes]:
        """The small files of the source that changed: name → old bytes."""
        return {name: self.content(member) for name, member in self.manifest.files.items()}

    def restored(self, name: str, tensors: Any) -> Iterator[bytes]:
        """The old bytes of a tensor, in blocks.

        Args:
            name: a tensor of the manifest.
            tensors: the patched checkpoint (a `planner.Tensors`).

        Raises:
            CheckpointError: the tensor changed since it was patched, or the undo file is damaged.
        """
        old = self.manifest.tensors[name]
        self._check_unchanged(name, old, tensors)
        digest = hashlib.sha256()
        with self._readable(name):
            pieces = self._matrix(name, old, tensors) if old.updates else iter([self._vector(old)])
            for piece in pieces:
                digest.update(piece)
                yield piece
        if digest.hexdigest() != old.sha256:
            raise CheckpointError(f"{self._path} does not restore {name}", why="Its checksum differs")

    def _vector(self, old: _Old) -> bytes:
        content = self.content(old.member)
        if len(content) != old.nbytes:
            raise ValueError(f"{len(content)} bytes for {old.nbytes}")
        return content

    def _check_unchanged(self, name: str, old: _Old, tensors: Any) -> None:
        if old.patched_sha256 is None:
            return
        info = tensors.tensors.get(name)
        if info is None or (info.dtype, info.shape) != (old.dtype, old.shape):
            raise CheckpointError(
                f"{self._path} does not belong to this variant", why=f"{name} is another tensor in it"
            )
        digest = hashlib.sha256()
        shape = info.shape
        if len(shape) == 2:
            for start, stop in blocks_of_rows(shape):
                digest.update(tensors.rows(name, start, stop).tobytes())
        else:
            digest.update(tensors.read(name).tobytes())
        if digest.hexdigest() != old.patched_sha256:
            raise CheckpointError(
                f"Tensor {name} changed since it was patched",
                why="The old values cannot be put back without losing that change",
                remedy="Revert the variant as it was written, before any training",
            )

    def _matrix(self, name: str, old: _Old, tensors: Any) -> Iterator[bytes]:
        outers = [
            Outer(
                update.view,
                update.conv1d,
                np.frombuffer(self.content(f"{old.member}/{number}/bias")),
                np.frombuffer(self.content(f"{old.member}/{number}/direction")),
            )
            for number, update in enumerate(old.updates)
        ]
        dtype = numpy_dtype(old.dtype)
        with self._zip.open(f"{old.member}/rows") as rows:
            for start in range(0, old.shape[0], old.step):
                stop = min(start + old.step, old.shape[0])
                block = tensors.rows(name, start, stop).astype(dtype, copy=False)
                for outer in outers:
                    index, update = outer.part(start, stop)
                    piece = rows.read(int.from_bytes(rows.read(8), "little"))
                    block[index] = residual.decode(block[index], update, piece)
                yield block.tobytes()
