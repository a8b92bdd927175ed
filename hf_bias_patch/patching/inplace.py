"""Executes a plan on a checkpoint where it lies: only the touched bytes are written, all or nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.architecture.wrapped import refuse_wrapped
from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model
from hf_bias_patch.checkpoint.choice import refuse_other_name
from hf_bias_patch.checkpoint.inplace import ByteEdit, edit_in_place, refuse_unsafe
from hf_bias_patch.checkpoint.listing import left_behind
from hf_bias_patch.checkpoint.sidecar import side_files
from hf_bias_patch.checkpoint.source import Source, place_name, resolve
from hf_bias_patch.errors import PlanError
from hf_bias_patch.patching.base_card import readme_of_source
from hf_bias_patch.patching.on_disk import Patched, changes_nothing
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import Recipe
from hf_bias_patch.patching.record import PLAN, UNDO, patched_config, training_files
from hf_bias_patch.patching.request import Request
from hf_bias_patch.patching.rewrite import Rewrite
from hf_bias_patch.patching.undo.writer import UndoWriter
from hf_bias_patch.patching.variant import keep_old_files

__all__ = ["editable", "patch_in_place"]


def patch_in_place(
    model: str | os.PathLike[str],
    recipe: Recipe | Plan | None = None,
    *,
    sites: Sequence[Site] | None = None,
    announce: Callable[[Plan], None] | None = None,
    **fields: Any,
) -> Patched:
    """Patch a local checkpoint where it lies. A kill at any moment ends in the old or the new state.

    Args:
        model: a local folder or safetensors file.
        recipe: what is asked for, or a plan made for this checkpoint; or give a recipe's fields as keywords.
        sites: the attention sites and their verdicts, from a probe; by default the family's.
        announce: called with the plan before anything is written.

    Raises:
        PlanError: also for storage `absent`, which would move every byte of the file, and for a plan of another
            checkpoint.
        ArgumentError: `model` is not a path, or `recipe` no recipe.
        TargetError: a file is read-only, a link, in the Hub's cache, in this package or has other hard links; nothing
            is changed.
    """
    place_name(model)
    request = Request.of(recipe, fields, sites)
    if request.recipe.storage == "absent":
        raise PlanError(
            "Storage `absent` cannot be made in place",
            why="Removing a tensor moves every byte after it",
            remedy="Write a copy, or keep --storage zeros",
        )
    source = resolve(model)
    checkpoint = editable(source)
    plan = request.resolve(checkpoint.config, checkpoint)
    if changes_nothing(checkpoint, plan):
        return Patched(checkpoint.folder, plan, unchanged=True)
    if announce is not None:
        announce(plan)
    archive = io.BytesIO()
    before = _of_the_state_before(checkpoint.folder)
    with UndoWriter(archive) as undo:
        edits = _edits(checkpoint, plan, undo)
        created = keep_old_files(checkpoint.folder, ["config.json", PLAN, *before], undo)
        # The source's sha256 would cost reading the whole checkpoint; checksums of the touched tensors do not.
        undo.finish({}, created)
    replace: dict[str, bytes | None] = before | {
        UNDO: archive.getvalue(),
        PLAN: plan.dumps().encode(),
        "config.json": patched_config(checkpoint.config, plan, source, {}, checkpoint.tensors),
    }
    left = left_behind(checkpoint)
    edit_in_place(checkpoint.folder, edits, replace)
    return Patched(checkpoint.folder, plan, left)


def editable(source: Source) -> Checkpoint:
    """A checkpoint that may be edited where it lies; who computes long before an edit asks this first.

    Raises:
        CheckpointError: it cannot be opened.
        TargetError: a file is read-only, a link, in the Hub's cache, in this package or has other hard links.
    """
    checkpoint = open_model(source.path)
    refuse_other_name(checkpoint.folder, checkpoint.entry, checkpoint.config)
    refuse_wrapped(checkpoint.config, checkpoint.tensors)
    for file in checkpoint.files:
        refuse_unsafe(checkpoint.folder / file)
    return checkpoint


def _of_the_state_before(folder: Path) -> dict[str, bytes | None]:
    """Certificate, scores and card of an earlier patch, which the new state is not: name → what takes their place."""
    stale = set(side_files(folder)) - set(training_files(folder))
    return dict.fromkeys(sorted(path.as_posix() for path in stale)) | readme_of_source(folder)


def _edits(checkpoint: Checkpoint, plan: Plan, undo: UndoWriter) -> list[ByteEdit]:
    rewrite = Rewrite(plan, checkpoint)
    edits = []
    for name, new in rewrite.vectors.items():
        info, file = checkpoint.tensors[name], checkpoint.file_of(name)
        old = checkpoint.read(name)
        undo.vector(name, file, info.dtype, old, new)
        edits += _changed(file, info.start, old.tobytes(), new.tobytes())
    for name, outers in rewrite.matrices.items():
        info, file = checkpoint.tensors[name], checkpoint.file_of(name)
        # Computed twice, for the undo file now and for the checkpoint later, rather than held meanwhile.
        for _ in undo.matrix(name, file, info.dtype, info.shape, outers, rewrite.blocks(name)):
            pass
        edits.append(ByteEdit(file, info.start, partial(_rows, rewrite, name), info.nbytes))
    return edits


def _changed(file: str, offset: int, old: bytes, new: bytes) -> list[ByteEdit]:
    """The part of a tensor that differs: of a fused bias, often one projection's alone."""
    places = np.flatnonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8))
    if not places.size:
        return []
    start, stop = int(places[0]), int(places[-1]) + 1
    return [ByteEdit(file, offset + start, new[start:stop])]


def _rows(rewrite: Rewrite, name: str) -> Iterator[bytes]:
    return (block.new.tobytes() for block in rewrite.blocks(name))
