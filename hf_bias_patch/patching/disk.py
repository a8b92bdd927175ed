"""Executes a plan on disk: streams a variant, one tensor at a time, and copies what is untouched as bytes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_bias_patch.attention.find import find_sites
from hf_bias_patch.attention.sites import Site
from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model
from hf_bias_patch.checkpoint.copying import Keep, Put, write_file
from hf_bias_patch.checkpoint.folder import new_folder
from hf_bias_patch.checkpoint.hashing import BackgroundHash
from hf_bias_patch.checkpoint.header import build_header
from hf_bias_patch.checkpoint.listing import SIDE_FOLDER, companion_files, stale_files
from hf_bias_patch.checkpoint.look import look
from hf_bias_patch.checkpoint.pickled import convert, is_pickled, pickle_files
from hf_bias_patch.checkpoint.source import Source, place_name, resolve, sha256_of
from hf_bias_patch.errors import PlanError
from hf_bias_patch.patching.asked import plan_asked, recipe_asked
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import Recipe
from hf_bias_patch.patching.record import LOADER, PLAN, UNDO, is_same, loader_text, patched_config
from hf_bias_patch.patching.rewrite import Rewrite
from hf_bias_patch.patching.undo import UndoWriter

__all__ = ["Patched", "patch", "plan", "write_variant"]

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Patched:
    """What `patch` did.

    Attributes:
        path: the variant's folder.
        plan: the edits made.
        left_behind: weight files of other formats in the source, which would be stale in the variant.
        unchanged: whether there was nothing to change, so that nothing was written.
    """

    path: Path
    plan: Plan
    left_behind: tuple[Path, ...] = ()
    unchanged: bool = False


def plan(
    model: str | os.PathLike[str],
    recipe: Recipe | Plan | None = None,
    *,
    sites: Sequence[Site] | None = None,
    **fields: Any,
) -> Plan:
    """Resolve a recipe against a checkpoint; writes nothing, and downloads no weights of one on the Hub.

    Args:
        model: a folder, a safetensors file, `embedded:NAME` or a Hub id (`owner/name@REVISION`).
        recipe: what is asked for, or a plan to check against this checkpoint; or give a recipe's fields as keywords,
            such as `fold="key,value"`.
        sites: the attention sites and their verdicts, such as `probe(model).sites`; by default the family's.

    Raises:
        RecipeError, PlanError, FamilyError, CheckpointError, SourceError: see `planner.make_plan`.
        ArgumentError: `model` is no path or Hub id, or `recipe` no recipe.
    """
    place_name(model)
    wanted = recipe_asked(recipe, fields)
    checkpoint = look(model).checkpoint
    chosen = sites or find_sites(checkpoint.config, checkpoint.tensors)
    checkpoint.prepare(name for site in chosen for slot in site.slots.values() for name in slot.vectors)
    return plan_asked(checkpoint.config, checkpoint, recipe or wanted, wanted, sites)


def patch(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe | Plan | None = None,
    *,
    sites: Sequence[Site] | None = None,
    overwrite: bool = False,
    announce: Callable[[Plan], None] | None = None,
    progress: Progress | None = None,
    **fields: Any,
) -> Patched:
    """Write a variant of a checkpoint. The source is never modified; `out` appears whole or not at all.

    The variant has no certificate yet: `verify` measures, and writes it.

    Args:
        model: a folder, a safetensors file, `embedded:NAME` or a Hub id (`owner/name@REVISION`). A folder that holds
            its weights only as a PyTorch pickle is converted first, without executing it, which needs torch.
        out: the folder to make; an empty one may be there.
        recipe: what is asked for, or a plan made for this checkpoint; or give a recipe's fields as keywords, such as
            `fold="key,value"`.
        sites: the attention sites and their verdicts, such as `probe(model).sites`; by default the family's. Verify a
            variant that rests on them.
        overwrite: whether an existing `out` may be replaced.
        announce: called with the plan before anything is written.
        progress: called with the number of bytes written since the last call.

    Raises:
        RecipeError, PlanError, FamilyError, CheckpointError, SourceError: nothing is written. PlanError also for a
            plan of another checkpoint.
        ArgumentError: `model` or `out` is no path, or `recipe` no recipe.
        TargetError: `out` exists, lies in the source, or cannot be written.
    """
    place_name(model)
    out = Path(place_name(out))
    wanted = recipe_asked(recipe, fields)
    given = resolve(model)
    with readable(given, out) as (source, shared):
        checkpoint = open_model(source.path)
        resolved = plan_asked(checkpoint.config, checkpoint, recipe or wanted, wanted, sites)
        _refuse_shared(resolved, shared)
        if changes_nothing(checkpoint, resolved):
            return Patched(checkpoint.folder if source is given else given.path, resolved, unchanged=True)
        if announce is not None:
            announce(resolved)
        pickles = {} if source is given else sha256_of(given, pickle_files(given.path))
        left_behind = write_variant(
            source,
            checkpoint,
            resolved,
            out,
            inputs=(given.path,),
            origin=pickles,
            overwrite=overwrite,
            progress=progress,
        )
    return Patched(out, resolved, left_behind)


@contextmanager
def readable(source: Source, near: Path) -> Iterator[tuple[Source, list[tuple[str, ...]]]]:
    """The source, or for a PyTorch pickle the same as safetensors in a folder that goes away again.

    Args:
        source: what to read.
        near: the conversion is written on this path's disk.

    Yields:
        The source to open, and the groups of tensor names that shared memory in a pickle.
    """
    if not (source.path.is_dir() and is_pickled(source.path)):
        yield source, []
        return
    place = next(parent for parent in near.absolute().parents if parent.exists())
    with TemporaryDirectory(prefix=f".{source.path.name}.converted-", dir=place) as folder:
        shared = convert(source.path, Path(folder))
        yield replace(source, path=Path(folder), known_sha256={}), shared


def changes_nothing(checkpoint: Checkpoint, plan: Plan) -> bool:
    """Whether a checkpoint was patched by this very recipe before, or has nothing left that it would change."""
    if any(edit.removes and edit.changes for edit in plan.edits):
        return False  # a variant that was trained on keeps its config, while its biases may have come back
    return is_same(checkpoint.config, plan.recipe) or not (plan.changes or plan.frozen)


def _refuse_shared(plan: Plan, shared: list[tuple[str, ...]]) -> None:
    for names in shared:
        if touched := sorted(set(names) & set(plan.touched)):
            raise PlanError(
                f"Tensor {touched[0]} shares its memory with {next(name for name in names if name != touched[0])}",
                why="Loaders tie them to one another, so editing one would edit the other",
                remedy="Untie them first, or leave these sites out with --layers, --stack or --attention",
            )


def write_variant(
    source: Source,
    checkpoint: Checkpoint,
    plan: Plan,
    out: Path,
    *,
    inputs: tuple[Path, ...] = (),
    origin: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Execute a plan as a new folder. Returns the stale weight files that were left behind.

    Args:
        source: where the checkpoint came from.
        checkpoint: its files.
        plan: made for it.
        out: the folder to make.
        inputs: places that `out` must stay clear of, besides the checkpoint's folder (a pickle lies elsewhere).
        origin: the files that the checkpoint was converted from, name to sha256; the variant names these as its
            source, while what a revert restores is the conversion.
        overwrite, progress: as for `patch`.

    Raises:
        CheckpointError, PlanError, TargetError: as for `patch`; nothing of `out` is visible then.
    """
    rewrite = Rewrite(plan, checkpoint)
    weights = {*checkpoint.files, *([checkpoint.index_name] if checkpoint.index_name else [])}
    with new_folder(out, overwrite=overwrite, inputs=[checkpoint.folder, *inputs]) as folder, ExitStack() as stack:
        hashes = {
            file: stack.enter_context(BackgroundHash(checkpoint.folder / file))
            for file in checkpoint.files
            if file not in source.known_sha256
        }
        (folder / SIDE_FOLDER).mkdir()
        for path in companion_files(checkpoint.folder, weights):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint.folder / path, folder / path)
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
    return tuple(stale_files(source.path if source.path.is_dir() else checkpoint.folder, weights))


def keep_old_files(folder: Path, names: Iterable[str], undo: UndoWriter) -> tuple[str, ...]:
    """Keep small files that will change, and the side folder of an earlier patch, so that reverts can be chained.

    Returns:
        Those of `names` that the folder does not have.
    """
    side = [path.relative_to(folder).as_posix() for path in (folder / SIDE_FOLDER).rglob("*") if path.is_file()]
    changing = dict.fromkeys([*names, *sorted(side)])
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
    segments: list[Keep | Put] = [Keep(0, len(header.raw))]
    if absent:
        undo.header(file, header.raw)
        if len(absent) == len(header.tensors):
            return  # a shard that holds nothing any more: no index could name it
        raw = build_header([info for info in header.tensors.values() if info.name not in absent], header.metadata)
        segments = [Put(raw, len(raw))]
    for info in sorted(header.tensors.values(), key=lambda info: info.start):
        if info.name in absent:
            continue
        if info.name in rewrite.vectors:
            new = rewrite.vectors[info.name]
            undo.vector(info.name, file, info.dtype, checkpoint.read(info.name), new)
            segments.append(Put(new.tobytes(), info.nbytes))
        elif info.name in rewrite.matrices:
            segments.append(Put(_matrix(info.name, file, checkpoint, rewrite, undo), info.nbytes))
        else:
            segments.append(Keep(info.start, info.stop))
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
        files[LOADER] = loader_text(checkpoint.config["model_type"]).encode()
    return files


def _index(checkpoint: Checkpoint, plan: Plan) -> bytes:
    """The shard index, without the tensors that left."""
    assert checkpoint.index_name is not None
    if not plan.absent:
        return (checkpoint.folder / checkpoint.index_name).read_bytes()
    index = dict(checkpoint.index)
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if name not in plan.absent}
    gone = sum(checkpoint.tensors[name].nbytes for name in plan.absent)
    if isinstance(index.get("metadata"), dict) and "total_size" in index["metadata"]:
        index["metadata"] = {**index["metadata"], "total_size": index["metadata"]["total_size"] - gone}
    return (json.dumps(index, indent=2) + "\n").encode()
