"""Writes the undo file of a variant while the variant itself is written."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from hf_bias_patch.architecture.layout import View
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.patching.folds import RankOneUpdate
from hf_bias_patch.patching.rewrite import Block
from hf_bias_patch.patching.undo.matrix import residuals

__all__ = ["MANIFEST", "Manifest", "OldTensor", "UndoWriter"]

MANIFEST = "manifest.json"
"""The list of contents, a member of the archive."""

_AHEAD = 12  # jobs that may wait for the thread: blocks of about 3 MB


class OldUpdate(BaseModel):
    """The part of a matrix that a bias was folded into; b and d of the update are members of their own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    view: View
    conv1d: bool


class OldTensor(BaseModel):
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
    updates: tuple[OldUpdate, ...] = ()
    step: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's values."""
        return math.prod(self.shape) * numpy_dtype(self.dtype).itemsize


class Manifest(BaseModel):
    """Contents of the archive.

    `sha256` is of the source's weight files; empty after an edit in place, which never reads them whole.
    `headers` maps weight files whose header changed to the member with the old one.
    `files` maps other files that changed or went to members; `created` are files the source did not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    sha256: dict[str, str] = {}
    tensors: dict[str, OldTensor] = {}
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
        self._tensors: dict[str, Callable[[], OldTensor]] = {}  # asked when all that was kept of a tensor went by
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
        record = OldTensor(member=member, file=file, dtype=dtype, shape=old.shape, sha256=before, patched_sha256=after)
        self._tensors[name] = lambda: record
        self._later(self._write, member, old.tobytes())

    def matrix(
        self,
        name: str,
        file: str,
        dtype: str,
        shape: tuple[int, ...],
        updates: list[RankOneUpdate],
        blocks: Iterator[Block],
    ) -> Iterator[bytes]:
        """Keep what restores a matrix from its new values, while passing on the new rows as bytes."""
        member = f"tensors/{len(self._tensors)}"
        kept = _Matrix(updates)
        self._tensors[name] = partial(kept.record, member=member, file=file, dtype=dtype, shape=shape)
        self._later(self._open_rows, member)
        for block in blocks:
            new = block.new.tobytes()
            self._later(lambda block, new: self._rows.write(kept.residuals(block, new)), block, new)
            yield new
        self._later(lambda: self._rows.close())
        for number, update in enumerate(updates):
            self._later(self._write, f"{member}/{number}/bias", update.bias.tobytes())
            self._later(self._write, f"{member}/{number}/direction", update.direction.tobytes())

    def header(self, file: str, raw: bytes) -> None:
        """Keep a weight file's header."""
        self._headers[file] = f"headers/{len(self._headers)}"
        self._later(self._write, self._headers[file], raw)

    def file(self, name: str, content: bytes) -> None:
        """Keep a file that is not a weight file."""
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
        manifest = Manifest(
            sha256=dict(sha256),
            tensors={name: record() for name, record in self._tensors.items()},
            headers=self._headers,
            files=self._files,
            created=created,
        )
        self._write(MANIFEST, manifest.model_dump_json().encode())

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
    """What the manifest says of a matrix, gathered block by block."""

    def __init__(self, updates: Sequence[RankOneUpdate]) -> None:
        self._updates = updates
        self._before, self._after = hashlib.sha256(), hashlib.sha256()
        self._step = 1

    def residuals(self, block: Block, new: bytes) -> bytes:
        """What restores a block, and its length before each piece of it."""
        self._step = max(self._step, block.stop - block.start)
        self._before.update(np.ascontiguousarray(block.old).view(np.uint8).data)
        self._after.update(new)
        return residuals(self._updates, block)

    def record(self, **place: Any) -> OldTensor:
        """The entry of the manifest, once all blocks went by."""
        updates = tuple(OldUpdate(view=update.view, conv1d=update.conv1d) for update in self._updates)
        checksums = {"sha256": self._before.hexdigest(), "patched_sha256": self._after.hexdigest()}
        return OldTensor(**place, **checksums, updates=updates, step=self._step)
