"""Writes the undo file of a variant while the variant itself is written."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from hf_bias_patch.patching.folds import RankOneUpdate
from hf_bias_patch.patching.rewrite import Block
from hf_bias_patch.patching.undo.manifest import MANIFEST, Manifest, OldTensor
from hf_bias_patch.patching.undo.matrix import MatrixResiduals

__all__ = ["UndoWriter"]

_AHEAD = 12  # jobs that may wait for the thread: blocks of about 3 MB


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
        kept = MatrixResiduals(updates)
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
