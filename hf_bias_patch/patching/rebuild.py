"""Rebuilds a variant from its base and a patch without weights, and proves by sha256 that it is the published one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model
from hf_bias_patch.checkpoint.copying import copy_whole
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.folder import new_folder
from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.hub_files import open_hub_files
from hf_bias_patch.checkpoint.listing import files_beside
from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.checkpoint.sidecar import PATCH, side_files
from hf_bias_patch.checkpoint.source import HubModel, Source, arrived_sha256, locate, resolve
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.on_disk import readable
from hf_bias_patch.patching.patch_only import VALUES, PatchOnly, read_patch
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.request import Request
from hf_bias_patch.patching.variant import fill_variant

__all__ = ["fetch_base", "rebuild"]

_NOT_THE_VARIANTS = (PATCH, VALUES, ".gitattributes")


def fetch_base(patch: PatchOnly) -> Source:
    """The base at the commit that was patched, downloaded where it is not on this machine.

    Raises:
        CheckpointError: it is another one now; nothing was downloaded then.
        SourceError: it is gone, or the Hub cannot be reached.
    """
    found = locate(patch.base, revision=patch.revision)
    if isinstance(found, HubModel):
        there = open_hub_files(patch.base, patch.revision).sha256
        _compare(patch.base, {name: there[name] for name in patch.base_sha256 if name in there}, patch)
    return resolve(patch.base, revision=patch.revision)


def rebuild(
    published: Source,
    base: Source,
    out: Path,
    *,
    overwrite: bool = False,
    announce: Callable[[int], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Make the variant.

    Args:
        published: a folder with a patch alone (see `patch_only`).
        base: what it was made for.
        out: the folder to make; appears whole or not at all.
        overwrite: whether an existing `out` may be replaced.
        announce: called with the number of bytes to write, before anything is written.
        progress: called with the number of bytes written since the last call.

    Raises:
        CheckpointError: the base is another one or damaged, the patch is damaged, or the result is not the variant
            that was published.
        PlanError: the plan is not one for this base.
        TargetError: `out` cannot be written.
    """
    folder = published.path
    arrived_sha256(folder, VALUES, published.known_sha256.get(VALUES), published.name)
    patch = read_patch(folder)
    _check_base(patch, base)
    with readable(base, out) as (source, _):
        checkpoint = open_model(source.path)
        plan = Request.of(patch.plan, {}, None).resolve(checkpoint.config, checkpoint)
        _check_values(patch, checkpoint, plan)
        origin = {} if source is base else patch.base_sha256
        if announce is not None:
            announce(plan.nbytes)
        source = replace(source, known_sha256={} if origin else dict(patch.base_sha256))
        with new_folder(out, overwrite=overwrite, inputs=[checkpoint.folder, base.path, folder]) as made:
            fill_variant(made, source, checkpoint, plan, origin=origin, known=patch.values, progress=progress)
            for name in _given(folder):
                copy_whole(folder / name, made / name)
            _check_result(patch, made)


def _given(folder: Path) -> list[Path]:
    """The variant's own files: config, card, evidence. All else is the base's."""
    found = [*files_beside(folder, ()), *side_files(folder)]
    return [path for path in found if path.as_posix() not in _NOT_THE_VARIANTS]


def _check_base(patch: PatchOnly, base: Source) -> None:
    place = base.path if base.path.is_dir() else base.path.parent
    said = base.known_sha256
    found = {name: arrived_sha256(place, name, said.get(name), base.name) for name in patch.base_sha256}
    _compare(base.name, found, patch)


def _check_values(patch: PatchOnly, checkpoint: Checkpoint, plan: Plan) -> None:
    """Refuse new values of tensors that the plan leaves alone, or that are of another kind than the base's."""
    for name, values in patch.values.items():
        info = checkpoint.tensors.get(name) if name in plan.touched else None
        if info is None or (numpy_dtype(info.dtype), info.shape) != (values.dtype, values.shape):
            raise CheckpointError(
                f"The patch holds values of {brief(name)} that do not fit",
                why="Its plan does not touch that tensor, or the base has it in another dtype or shape",
                remedy="The patch is damaged, or its files belong to two patches: fetch it again",
            )


def _compare(base: str, found: Mapping[str, str], patch: PatchOnly) -> None:
    for name, sha256 in found.items():
        if sha256 != patch.base_sha256[name]:
            raise CheckpointError(
                f"{name} of {base} is not what was patched: its sha256 is {sha256}, and the patch is for "
                f"{patch.base_sha256[name]}",
                why="The patch was verified on that base only",
                remedy=f"Get {patch.base} at commit {patch.revision}",
            )


def _check_result(patch: PatchOnly, made: Path) -> None:
    for name, expected in patch.variant_sha256.items():
        found = sha256_file(made / name) if (made / name).is_file() else "missing"
        if found != expected:
            raise CheckpointError(
                f"{name} differs from what was published: its sha256 is {found} instead of {expected}",
                why="The patch is damaged, or this version of the package computes it differently",
                remedy="Fetch it again, or use the version that made it (`version` in its config.json)",
            )
