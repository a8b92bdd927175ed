"""What a variant was made from: the patches that made it, and the weight files of each of its ancestors.

Each patch keeps, in its undo file, checksums of what it touched, before and after, and the side files of the patch
before it. So the chain can be followed from the variant to the checkpoint that was patched first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.durable import read_range
from hf_bias_patch.checkpoint.header import Header, TensorInfo, parse_header
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import PLAN, UNDO, source_sha256
from hf_bias_patch.patching.undo.reader import Undo

__all__ = ["Patch", "ancestor", "ancestor_files", "history"]


@dataclass(frozen=True)
class Patch:
    """One earlier patch, as the files of its variant describe it.

    Attributes:
        plan: what it did.
        sha256: of the weight files it was made from; empty for an edit in place, which never reads them whole.
        before: touched tensor → sha256 of its bytes before.
        after: the same after; None for a tensor that left the file.
    """

    plan: Plan
    sha256: Mapping[str, str]
    before: Mapping[str, str]
    after: Mapping[str, str | None]


def history(variant: Checkpoint) -> list[Patch]:
    """The patches that made a variant, the last one first; as far back as its side files can be read."""
    found: list[Patch] = []
    if not (variant.folder / PLAN).is_file() or not (variant.folder / UNDO).is_file():
        return found
    with suppress(CheckpointError), Undo(variant.folder / UNDO) as undo:
        found += _follow(Plan.loads((variant.folder / PLAN).read_bytes(), PLAN), undo)
    return found


def _follow(plan: Plan, undo: Undo) -> Iterator[Patch]:
    tensors = undo.manifest.tensors
    yield Patch(
        plan,
        undo.manifest.sha256,
        {name: old.sha256 for name, old in tensors.items()},
        {name: old.patched_sha256 for name, old in tensors.items()},
    )
    members = undo.manifest.files
    if PLAN in members and UNDO in members:
        with suppress(CheckpointError), undo.nested(UNDO) as earlier:
            yield from _follow(Plan.loads(undo.content(members[PLAN]), PLAN), earlier)


def ancestor(patches: list[Patch], source: Checkpoint, sha256: Collection[str]) -> int | None:
    """How many of a variant's patches a checkpoint lies before.

    Args:
        patches: of the variant, the last one first.
        source: the checkpoint.
        sha256: of its weight files.

    Returns:
        1 if it is what the last patch was made from, 2 if another patch lies between, and so on; None if it is none
        of the variant's ancestors.
    """
    checksum = _checksums(source)
    for index, patch in enumerate(patches):
        if patch.sha256:
            same = sorted(patch.sha256.values()) == sorted(sha256)
        else:
            same = all(checksum(name) == known for name, known in _before(patches, index).items())
        if same:
            return index + 1
    return None


def _before(patches: list[Patch], index: int) -> dict[str, str | None]:
    """Checksums of tensors as they were before one of the patches, as far as any patch knows them."""
    known: dict[str, str | None] = {}
    for older in reversed(patches[index + 1 :]):
        known |= older.after
    known |= patches[index].before
    for newer in reversed(patches[:index]):
        known = {**newer.before, **known}
    return known


def _checksums(checkpoint: Checkpoint) -> Callable[[str], str | None]:
    """Tensor name → sha256 of its bytes, or None if the checkpoint has none of that name; each read once."""
    known: dict[str, str | None] = {}

    def checksum(name: str) -> str | None:
        if name not in known:
            known[name] = _sha256(checkpoint, name) if name in checkpoint.tensors else None
        return known[name]

    return checksum


def _sha256(checkpoint: Checkpoint, name: str) -> str:
    info, digest = checkpoint.tensors[name], hashlib.sha256()
    for piece in read_range(checkpoint.folder / checkpoint.file_of(name), info.start, info.nbytes):
        digest.update(piece)
    return digest.hexdigest()


def ancestor_files(folder: Path) -> Iterator[Mapping[str, str]]:
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
                yield {file: _file_sha256(state, file) for file in state.files}
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


def _file_sha256(state: _Before, file: str) -> str:
    header = state.files[file]
    digest = hashlib.sha256(header.raw)
    try:
        for info in sorted(header.tensors.values(), key=lambda info: info.start):
            for piece in state.pieces(info.name):
                digest.update(piece)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read", why=error.strerror or str(error)) from error
    return digest.hexdigest()
