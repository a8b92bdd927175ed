"""Fills a new folder with a variant: streams one tensor at a time, and copies what is untouched as bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from hf_bias_patch.architecture.model_type import with_model_type
from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.copying import CopyRange, NewBytes, copy_whole, write_file
from hf_bias_patch.checkpoint.hashing import BackgroundHash
from hf_bias_patch.checkpoint.header import build_header
from hf_bias_patch.checkpoint.listing import companion_files
from hf_bias_patch.checkpoint.sidecar import SIDE_FOLDER, side_files
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.record import LOADER, PLAN, UNDO, loader_text, patched_config, training_files
from hf_bias_patch.patching.rewrite import Rewrite
from hf_bias_patch.patching.undo.writer import UndoWriter

__all__ = ["fill_variant", "keep_old_files"]

Progress = Callable[[int], None]


def fill_variant(
    folder: Path,
    source: Source,
    checkpoint: Checkpoint,
    plan: Plan,
    *,
    origin: Mapping[str, str] | None = None,
    known: Mapping[str, np.ndarray] | None = None,
    progress: Progress | None = None,
) -> None:
    """Execute a plan into an empty folder.

    Args:
        folder: to fill.
        source: where the checkpoint came from.
        checkpoint: its files.
        plan: made for it.
        origin: the files that the checkpoint was converted from, name to sha256; the variant names these as its
            source, while what a revert restores is the conversion.
        known: as for `Rewrite`.
        progress: called with the number of bytes written since the last call.

    Raises:
        CheckpointError, PlanError, TargetError: as for `patch`; the folder is half filled then.
    """
    rewrite = Rewrite(plan, checkpoint, known)
    with ExitStack() as stack:
        hashes = {
            file: stack.enter_context(BackgroundHash(checkpoint.folder / file))
            for file in checkpoint.files
            if file not in source.known_sha256
        }
        (folder / SIDE_FOLDER).mkdir()
        companions = companion_files(checkpoint)
        for path in (*companions, *training_files(checkpoint.folder)):
            copy_whole(checkpoint.folder / path, folder / path)
        with UndoWriter(folder / UNDO) as undo:
            for file in checkpoint.files:
                _write_weights(checkpoint, plan, rewrite, file, folder / file, undo, progress)
            sha256 = {file: source.known_sha256.get(file) or hashes[file].result() for file in checkpoint.files}
            small = _small_files(checkpoint, plan, source, origin or sha256)
            for name, content in small.items():
                (folder / name).write_bytes(content)
            created = keep_old_files(checkpoint.folder, [*small, PLAN], undo)
            (folder / PLAN).write_text(plan.dumps(), "utf-8")
            undo.finish(sha256, created)


def keep_old_files(folder: Path, names: Iterable[str], undo: UndoWriter) -> tuple[str, ...]:
    """Keep small files that will change, and the side folder of an earlier patch, so that reverts can be chained.

    Returns:
        Those of `names` that the folder does not have.
    """
    changing = dict.fromkeys([*names, *(path.as_posix() for path in side_files(folder))])
    for name in changing:
        if (folder / name).exists():
            undo.file(name, (folder / name).read_bytes())
    return tuple(name for name in changing if not (folder / name).exists())


def _write_weights(
    checkpoint: Checkpoint,
    plan: Plan,
    rewrite: Rewrite,
    file: str,
    target: Path,
    undo: UndoWriter,
    progress: Progress | None,
) -> None:
    header = checkpoint.files[file]
    absent = [name for name in header.tensors if name in plan.absent]
    for name in absent:
        undo.vector(name, file, header.tensors[name].dtype, checkpoint.read(name), None)
    segments: list[CopyRange | NewBytes] = [CopyRange(0, len(header.raw))]
    if absent:
        undo.header(file, header.raw)
        if len(absent) == len(header.tensors):
            return  # a shard that holds nothing any more: no index could name it
        raw = build_header([info for info in header.tensors.values() if info.name not in absent], header.metadata)
        segments = [NewBytes(raw, len(raw))]
    for info in sorted(header.tensors.values(), key=lambda info: info.start):
        if info.name in absent:
            continue
        if info.name in rewrite.vectors:
            new = rewrite.vectors[info.name]
            undo.vector(info.name, file, info.dtype, checkpoint.read(info.name), new)
            segments.append(NewBytes(new.tobytes(), info.nbytes))
        elif info.name in rewrite.matrices:
            segments.append(NewBytes(_matrix(info.name, file, checkpoint, rewrite, undo), info.nbytes))
        else:
            segments.append(CopyRange(info.start, info.stop))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(checkpoint.folder / file, target, segments, progress)


def _matrix(name: str, file: str, checkpoint: Checkpoint, rewrite: Rewrite, undo: UndoWriter) -> Iterator[bytes]:
    info = checkpoint.tensors[name]
    return undo.matrix(name, file, info.dtype, info.shape, rewrite.matrices[name], rewrite.blocks(name))


def _small_files(checkpoint: Checkpoint, plan: Plan, source: Source, sha256: Mapping[str, str]) -> dict[str, bytes]:
    files = {"config.json": patched_config(checkpoint.config, plan, source, sha256, checkpoint.tensors)}
    if checkpoint.index_name:
        files[checkpoint.index_name] = _index(checkpoint, plan)
    if plan.absent:
        config = with_model_type(checkpoint.config, plan.recipe.model_type)
        files[LOADER] = loader_text(config["model_type"]).encode()
    return files


def _index(checkpoint: Checkpoint, plan: Plan) -> bytes:
    """The shard index, without the tensors that left, and with the size of those that stayed.

    As it was where nothing of it is untrue: its size may be any number, text or nothing, for stock reads none of it.
    """
    assert checkpoint.index_name is not None
    kept = {name: info.nbytes for name, info in checkpoint.tensors.items() if name not in plan.absent}
    index, metadata = dict(checkpoint.index), checkpoint.index.get("metadata")
    if isinstance(metadata, dict) and "total_size" in metadata:
        index["metadata"] = {**metadata, "total_size": sum(kept.values())}
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if name not in plan.absent}
    if index == checkpoint.index:
        return (checkpoint.folder / checkpoint.index_name).read_bytes()
    return (json.dumps(index, indent=2) + "\n").encode()
