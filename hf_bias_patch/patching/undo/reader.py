"""Reads the undo file of a variant. It may come with a stranger's variant, so nothing in it is believed."""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.paths import is_inside
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.folds import RankOneUpdate
from hf_bias_patch.patching.tensors import TensorReader, blocks_of_rows
from hf_bias_patch.patching.undo.matrix import restore
from hf_bias_patch.patching.undo.writer import MANIFEST, Manifest, OldTensor

__all__ = ["Undo"]

_DEEPEST = 100
"""Patches of patches that are followed."""

# What reading a damaged archive, or decoding its contents, may raise.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, OSError, OverflowError, RuntimeError,
    ValueError,
)  # fmt: skip


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
            raise CheckpointError(f"{path} holds more than {_DEEPEST} nested patches")
        self._path, self._depth = path, depth
        with self._readable("its list of contents"):
            self._zip = zipfile.ZipFile(path if within is None else within)
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in self._zip.infolist()):
                raise ValueError("packed")  # never by us; a few bytes could stand for any number
            self.manifest = Manifest.model_validate_json(self._zip.read(MANIFEST))
        self._check_names()

    def _check_names(self) -> None:
        """An undo file may come with a stranger's variant, and must not name files outside of it."""
        manifest = self.manifest
        tensors = [old.file for old in manifest.tensors.values()]
        for name in (*manifest.sha256, *manifest.headers, *manifest.files, *manifest.created, *tensors):
            if not is_inside(name):
                raise CheckpointError(
                    f"{self._path} names {name!r}, which lies outside the variant",
                    why="The file is damaged, or made to do harm",
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

    def restored(self, name: str, tensors: TensorReader) -> Iterator[bytes]:
        """The old bytes of a tensor, in blocks.

        Args:
            name: a tensor of the manifest.
            tensors: the patched checkpoint .

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

    def _vector(self, old: OldTensor) -> bytes:
        content = self.content(old.member)
        if len(content) != old.nbytes:
            raise ValueError(f"{len(content)} bytes for {old.nbytes}")
        return content

    def _check_unchanged(self, name: str, old: OldTensor, tensors: TensorReader) -> None:
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

    def _matrix(self, name: str, old: OldTensor, tensors: TensorReader) -> Iterator[bytes]:
        axis = -1 if old.updates[0].conv1d else 0
        if any(update.view.axis != old.shape[axis] for update in old.updates):
            raise ValueError("an update of another size than its matrix")
        updates = [
            RankOneUpdate(
                update.view,
                update.conv1d,
                np.frombuffer(self.content(f"{old.member}/{number}/bias")),
                np.frombuffer(self.content(f"{old.member}/{number}/direction")),
            )
            for number, update in enumerate(old.updates)
        ]
        with self._zip.open(f"{old.member}/rows") as kept:
            for start in range(0, old.shape[0], old.step):
                block = tensors.rows(name, start, min(start + old.step, old.shape[0]))
                block = block.astype(numpy_dtype(old.dtype), copy=False)
                restore(updates, start, block, kept)
                yield block.tobytes()
