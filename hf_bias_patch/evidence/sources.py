"""What a variant was made from, patch by patch: the sha256 of the weight files of each of its ancestors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.durable import read_range
from hf_bias_patch.checkpoint.header import Header, TensorInfo, parse_header
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.record import PLAN, UNDO, source_sha256
from hf_bias_patch.patching.undo.reader import Undo

__all__ = ["sources"]


def sources(folder: Path) -> Iterator[Mapping[str, str]]:
    """The weight files of what a variant was made from, then of what that was made from, and so on.

    A patch into a folder of its own names the files that it read, PyTorch pickles too. An edit in place does not: what
    it edited is restored, in memory, and hashed, which reads the whole variant.

    Args:
        folder: of a variant. Its weights need not be there, unless it was edited in place.

    Yields:
        File name → sha256, once for each patch, the last one first; as far as the undo files tell.

    Raises:
        CheckpointError: config.json or an undo file is damaged; or a tensor changed since it was edited in place.
    """
    config = parse_object(folder / "config.json", (folder / "config.json").read_bytes())
    with ExitStack() as opened:
        undo: Undo | None = None
        state: Checkpoint | _Before | None = None
        while True:
            if named := source_sha256(config):
                yield named
            if undo is None:
                if not (folder / UNDO).is_file():
                    return
                undo = opened.enter_context(Undo(folder / UNDO))
            else:
                undo = opened.enter_context(undo.nested(UNDO))
            state = _Before(state or open_checkpoint(folder), undo)
            if not named:
                yield {file: _sha256(state, file) for file in state.files}
            if not {PLAN, UNDO, "config.json"} <= set(undo.manifest.files):
                return
            config = parse_object(folder / UNDO, undo.content(undo.manifest.files["config.json"]))


class _Before:
    """A checkpoint as it was before a patch: what that touched is restored, all else is as it is after it.

    It is read tensor by tensor, as an undo file of an earlier patch reads the checkpoint that it belongs to.

    Args:
        after: the checkpoint, or what it was before a later patch.
        undo: of the patch.
    """

    def __init__(self, after: Checkpoint | _Before, undo: Undo) -> None:
        self._after, self._undo = after, undo
        old = {file: _old_header(after.files.get(file), undo, file) for file in undo.manifest.headers}
        self.files: Mapping[str, Header] = {**after.files, **old}
        self.tensors: Mapping[str, TensorInfo] = {
            name: info for header in self.files.values() for name, info in header.tensors.items()
        }
        self._last: tuple[str, np.ndarray] | None = None

    def pieces(self, name: str) -> Iterator[bytes]:
        """A tensor's bytes."""
        if name in self._undo.manifest.tensors:
            return self._undo.restored(name, self._after)
        if isinstance(self._after, _Before):
            return self._after.pieces(name)
        info = self._after.info(name)
        return read_range(self._after.folder / self._after.file_of(name), info.start, info.nbytes)

    def read(self, name: str) -> np.ndarray:
        """A tensor's values, of shape and dtype as stored. The last one is kept: a matrix is read row by row."""
        if self._last is None or self._last[0] != name:
            info = self.tensors[name]
            content = b"".join(self.pieces(name))
            self._last = name, np.frombuffer(content, numpy_dtype(info.dtype)).reshape(info.shape)
        return self._last[1]

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows of a matrix, of shape (stop - start, *shape[1:])."""
        return self.read(name)[start:stop].copy()


def _old_header(after: Header | None, undo: Undo, file: str) -> Header:
    """The header of a file that tensors left, or that went with them."""
    raw = undo.content(undo.manifest.headers[file])
    stayed = sum(info.nbytes for info in after.tensors.values()) if after else 0
    left = (old.nbytes for old in undo.manifest.tensors.values() if old.file == file and old.patched_sha256 is None)
    return parse_header(Path(file), raw, len(raw) + stayed + sum(left))


def _sha256(state: _Before, file: str) -> str:
    header = state.files[file]
    digest = hashlib.sha256(header.raw)
    try:
        for info in sorted(header.tensors.values(), key=lambda info: info.start):
            for piece in state.pieces(info.name):
                digest.update(piece)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read", why=error.strerror or str(error)) from error
    return digest.hexdigest()
