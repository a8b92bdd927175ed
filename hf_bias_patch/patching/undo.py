"""The undo file of a variant: a zip archive of everything needed to restore its source bit for bit."""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
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
_DEEPEST = 100
_AHEAD = 12  # jobs that may wait for the thread: blocks of about 3 MB
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
    """Writes an undo file, one tensor at a time. A context manager; nothing is complete before `finish`.

    A thread does the work, in order, while the caller writes the variant: checksums and residuals take as long as
    everything else of a fold into a weight. What the caller passes in must not change afterwards.
    """

    def __init__(self, target: Path | IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(target, "w", zipfile.ZIP_STORED)
        self._tensors: dict[str, Callable[[], _Old]] = {}  # asked when all that was kept of a tensor went by
        self._headers: dict[str, str] = {}
        self._files: dict[str, str] = {}
        self._rows: IO[bytes] = io.BytesIO()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: deque[Future[object]] = deque()

    def __enter__(self) -> UndoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        if kind is None:
            self._zip.close()
            return
        # A matrix may have been left in the middle, and the disk be full: neither may hide what went wrong.
        for file in (self._rows, self._zip):
            with suppress(OSError, ValueError):
                file.close()

    def vector(self, name: str, file: str, dtype: str, old: np.ndarray, new: np.ndarray | None) -> None:
        """Keep a tensor whole; `new` is None if it leaves the checkpoint."""
        member = f"tensors/{len(self._tensors)}"
        after = None if new is None else hashlib.sha256(new.tobytes()).hexdigest()
        before = hashlib.sha256(old.tobytes()).hexdigest()
        record = _Old(member=member, file=file, dtype=dtype, shape=old.shape, sha256=before, patched_sha256=after)
        self._tensors[name] = lambda: record
        self._later(self._write, member, old.tobytes())

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
        member = f"tensors/{len(self._tensors)}"
        kept = _Matrix(outers)
        self._tensors[name] = partial(kept.record, member=member, file=file, dtype=dtype, shape=shape)
        self._later(self._open_rows, member)
        for block in blocks:
            new = block.new.tobytes()
            self._later(lambda block, new: self._rows.write(kept.residuals(block, new)), block, new)
            yield new
        self._later(lambda: self._rows.close())
        for number, outer in enumerate(outers):
            self._later(self._write, f"{member}/{number}/bias", outer.bias.tobytes())
            self._later(self._write, f"{member}/{number}/direction", outer.direction.tobytes())

    def header(self, file: str, raw: bytes) -> None:
        """Keep a weight file's header."""
        self._headers[file] = f"headers/{len(self._headers)}"
        self._later(self._write, self._headers[file], raw)

    def file(self, name: str, content: bytes) -> None:
        """Keep a file that is no weight file."""
        self._files[name] = f"files/{len(self._files)}"
        self._later(self._write, self._files[name], content)

    def finish(self, sha256: Mapping[str, str], created: tuple[str, ...]) -> None:
        """Write the manifest.

        Args:
            sha256: the source's weight files, where they are known.
            created: files of the variant that the source did not have.
        """
        while self._waiting:
            self._waiting.popleft().result()
        manifest = _Manifest(
            sha256=dict(sha256),
            tensors={name: record() for name, record in self._tensors.items()},
            headers=self._headers,
            files=self._files,
            created=created,
        )
        self._write(_MANIFEST, manifest.model_dump_json().encode())

    def _later(self, job: Callable[..., object], *given: Any) -> None:
        """Hand a job to the thread; what went wrong in an earlier one is raised here, or by `finish`."""
        if len(self._waiting) == _AHEAD:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(job, *given))

    def _info(self, member: str) -> zipfile.ZipInfo:
        # A fixed date: the same patch makes the same file.
        return zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0))

    def _open_rows(self, member: str) -> None:
        self._rows = self._zip.open(self._info(f"{member}/rows"), "w", force_zip64=True)

    def _write(self, member: str, content: bytes) -> None:
        self._zip.writestr(self._info(member), content)


class _Matrix:
    """What is kept of one matrix, block by block."""

    def __init__(self, outers: list[Outer]) -> None:
        self._outers = outers
        self._before, self._after = hashlib.sha256(), hashlib.sha256()
        self._step = 1

    def residuals(self, block: Block, new: bytes) -> bytes:
        """What restores a block, and its length before each piece of it."""
        self._step = max(self._step, block.stop - block.start)
        self._before.update(np.ascontiguousarray(block.old).view(np.uint8).data)
        self._after.update(new)
        pieces = []
        for outer in self._outers:
            index, update = outer.part(block.start, block.stop)
            piece = residual.encode(block.old[index], block.new[index], update)
            pieces += [len(piece).to_bytes(8, "little"), piece]
        return b"".join(pieces)

    def record(self, **place: Any) -> _Old:
        """The entry of the manifest, once all blocks went by."""
        updates = tuple(_Update(view=outer.view, conv1d=outer.conv1d) for outer in self._outers)
        checksums = {"sha256": self._before.hexdigest(), "patched_sha256": self._after.hexdigest()}
        return _Old(**place, **checksums, updates=updates, step=self._step)


class Undo:
    """An opened undo file.

    Args:
        path: the file.
        within: the archive itself, where that lies within the file.
        depth: in how many others it lies.

    Attributes:
        manifest: what it holds.
    """

    def __init__(self, path: Path, within: IO[bytes] | None = None, depth: int = 0) -> None:
        if not path.exists():
            raise CheckpointError(f"{path} is missing", why="It holds the values to restore")
        if depth > _DEEPEST:
            raise CheckpointError(f"{path} holds more than {_DEEPEST} patches within one another")
        self._path, self._depth = path, depth
        with self._readable("its list of contents"):
            self._zip = zipfile.ZipFile(path if within is None else within)
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in self._zip.infolist()):
                raise ValueError("packed")  # never by us; a few bytes could stand for any number
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

    def nested(self, name: str) -> Undo:
        """The undo file of an earlier patch, which this one keeps among the old files; closed before this one is.

        Args:
            name: an entry of the manifest's `files`.
        """
        with self._readable(name):
            return Undo(self._path, self._zip.open(self.manifest.files[name]), self._depth + 1)

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
        axis = -1 if old.updates[0].conv1d else 0
        if any(update.view.axis != old.shape[axis] for update in old.updates):
            raise ValueError("an update of another size than its matrix")
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
