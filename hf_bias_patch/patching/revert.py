"""Takes a patch back: the source, bit for bit, from a variant and its undo file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_checkpoint
from hf_bias_patch.checkpoint.copying import CopyRange, NewBytes, copy_whole, write_file
from hf_bias_patch.checkpoint.durable import read_range
from hf_bias_patch.checkpoint.folder import new_folder
from hf_bias_patch.checkpoint.guards import refuse_place
from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.inplace import ByteEdit, edit_in_place, recover
from hf_bias_patch.checkpoint.listing import companion_files
from hf_bias_patch.checkpoint.sidecar import side_files
from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.base_card import readme_of_source
from hf_bias_patch.patching.record import UNDO, source_sha256
from hf_bias_patch.patching.undo.reader import Undo

__all__ = ["Reverted", "restored_sha256", "revert"]

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Reverted:
    """What `revert` did.

    Attributes:
        path: the folder that now holds the source.
        tensors: how many tensors were restored.
        sha256: weight files whose sha256 was compared with the source's; empty for edits in place, where every
            restored tensor was compared instead.
        recovered: whether an interrupted in-place edit was taken back, instead of a finished patch.
        converted: the PyTorch pickles that the patch was made from; what is restored is their conversion to
            safetensors, the same values in other files. Empty where the source itself is restored.
    """

    path: Path
    tensors: int
    sha256: tuple[str, ...] = ()
    recovered: bool = False
    converted: tuple[str, ...] = ()


def revert(
    variant: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Reverted:
    """Restore what a variant was made from; of several patches, the last is taken back.

    Args:
        variant: a variant's folder.
        out: where to write the source; by default the variant itself becomes the source again.
        overwrite: whether an existing `out` may be replaced.
        progress: called with the number of bytes written since the last call.

    Raises:
        CheckpointError: it is not a variant, its tensors changed since, or the undo file is damaged.
        TargetError: the place to write to cannot be used, as the Hub's cache and this package's own checkpoints cannot.
            In either case nothing is changed.
    """
    source = resolve(variant)
    folder = source.path if source.path.is_dir() else source.path.parent
    if out is None:
        refuse_place(folder)
    if recover(folder):
        return Reverted(folder, 0, recovered=True)
    checkpoint = open_checkpoint(source.path)
    if not (folder / UNDO).exists():
        raise CheckpointError(
            f"{folder} cannot be reverted",
            why=f"It has no {UNDO}, so it is not a variant, or was saved again since it was patched",
            remedy="Go back to the model it was made from",
        )
    with Undo(folder / UNDO) as undo:
        pickles = _pickles(checkpoint, undo)
        if out is not None:
            _copy(checkpoint, undo, Path(out), overwrite, progress)
        elif undo.manifest.headers:
            # The file's layout changed, so it is written anew beside the variant and takes its place.
            _copy(checkpoint, undo, folder, True, progress, inputs=())
        else:
            _in_place(checkpoint, undo)
        return Reverted(
            Path(out) if out is not None else folder,
            len(undo.manifest.tensors),
            tuple(undo.manifest.sha256),
            converted=pickles,
        )


def _pickles(checkpoint: Checkpoint, undo: Undo) -> tuple[str, ...]:
    """The files that the variant names as its source, where they are others than those it restores."""
    named = source_sha256(checkpoint.config)
    return tuple(named) if undo.manifest.sha256 and named.keys().isdisjoint(undo.manifest.sha256) else ()


def _in_place(checkpoint: Checkpoint, undo: Undo) -> None:
    folder = checkpoint.folder
    for file in {*checkpoint.files, *undo.manifest.sha256}:
        if file not in checkpoint.files:
            raise CheckpointError(
                f"{folder} has no {file}, which it was made from", why="It was deleted or renamed since"
            )
        _check(checkpoint, undo, file)
    edits = [
        ByteEdit(
            checkpoint.file_of(name),
            checkpoint.info(name).start,
            partial(undo.restored, name, checkpoint),
            checkpoint.info(name).nbytes,
        )
        for name in undo.manifest.tensors
    ]
    side = [path.as_posix() for path in side_files(folder)]
    replace: dict[str, bytes | None] = readme_of_source(folder) | dict.fromkeys([*side, *undo.manifest.created])
    edit_in_place(folder, edits, replace | undo.files())
    for left in sorted({parent for name in side for parent in Path(name).parents if parent.name}, reverse=True):
        if (folder / left).is_dir() and not any((folder / left).iterdir()):
            (folder / left).rmdir()


def _check(checkpoint: Checkpoint, undo: Undo, file: str) -> None:
    """Run through what a file would be restored to, without writing.

    The whole file's checksum counts where the source's is known, else those of the restored tensors alone.
    """
    if file in undo.manifest.sha256:
        return _check_sha256(file, restored_sha256(checkpoint, undo, file), undo.manifest.sha256[file])
    for name in checkpoint.files[file].tensors:
        if name in undo.manifest.tensors:
            for _ in undo.restored(name, checkpoint):
                pass


def restored_sha256(checkpoint: Checkpoint, undo: Undo, file: str) -> str:
    """The sha256 that a weight file would have once a patch were taken back.

    Raises:
        CheckpointError: a tensor changed since it was patched, or the undo file is damaged.
    """
    digest = hashlib.sha256()
    for segment in _segments(checkpoint, undo, file):
        if isinstance(segment, CopyRange):
            pieces: Iterable[Any] = read_range(checkpoint.folder / file, segment.start, segment.stop - segment.start)
        else:
            pieces = [segment.data] if isinstance(segment.data, (bytes, bytearray, memoryview)) else segment.data
        for piece in pieces:
            digest.update(piece)
    return digest.hexdigest()


def _check_sha256(file: str, found: str, expected: str) -> None:
    if found != expected:
        raise CheckpointError(
            f"{file} would not be restored: its sha256 is not {expected}",
            why="Tensors that the patch did not touch changed since",
            remedy="Revert the variant as it was written, before any training",
        )


def _copy(
    checkpoint: Checkpoint,
    undo: Undo,
    out: Path,
    overwrite: bool,
    progress: Progress | None,
    inputs: tuple[Path, ...] | None = None,
) -> None:
    readme = readme_of_source(checkpoint.folder)
    files = {name: content for name, content in readme.items() if content is not None} | undo.files()
    made = {*undo.manifest.created, *readme}
    kept = [path for path in companion_files(checkpoint) if path.as_posix() not in made]
    given = (checkpoint.folder,) if inputs is None else inputs
    with new_folder(out, overwrite=overwrite, inputs=given) as folder:
        for path in kept:
            copy_whole(checkpoint.folder / path, folder / path)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        # Shards of which every tensor left have no file in the variant.
        for file in dict.fromkeys([*checkpoint.files, *undo.manifest.headers]):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            origin = checkpoint.folder / file if file in checkpoint.files else None
            write_file(origin, folder / file, _segments(checkpoint, undo, file), progress)
        for file, expected in undo.manifest.sha256.items():
            _check_sha256(file, sha256_file(folder / file) if (folder / file).is_file() else "", expected)


def _segments(checkpoint: Checkpoint, undo: Undo, file: str) -> Iterator[CopyRange | NewBytes]:
    if file in undo.manifest.headers:
        raw = undo.content(undo.manifest.headers[file])
        names = _names(file, raw)
    else:
        header = checkpoint.files[file]
        raw, names = header.raw, [info.name for info in sorted(header.tensors.values(), key=lambda info: info.start)]
    yield NewBytes(raw, len(raw))
    for name in names:
        if name in undo.manifest.tensors:
            old = undo.manifest.tensors[name]
            yield NewBytes(undo.restored(name, checkpoint), old.nbytes)
        else:
            info = checkpoint.info(name)
            yield CopyRange(info.start, info.stop)


def _names(file: str, header: bytes) -> list[str]:
    """Tensor names of a header that was valid when it was kept, in the order of their data."""
    try:
        entries = json.loads(header[8:])
        entries.pop("__metadata__", None)
        return sorted(entries, key=lambda name: (entries[name]["data_offsets"], name))
    except (ValueError, TypeError, AttributeError, KeyError):
        raise CheckpointError(f"{UNDO} is damaged at the header of {file}") from None
