"""`plan` and `patch` as users call them: for a checkpoint on disk, the plan, and the variant."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.model_type import with_model_type
from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.architecture.wrapped import refuse_wrapped
from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model
from hf_bias_patch.checkpoint.choice import refuse_other_name
from hf_bias_patch.checkpoint.convert import convert
from hf_bias_patch.checkpoint.folder import new_folder
from hf_bias_patch.checkpoint.leftovers import working_folder
from hf_bias_patch.checkpoint.listing import left_behind
from hf_bias_patch.checkpoint.pickled import is_pickled, open_any_model, pickle_files
from hf_bias_patch.checkpoint.remote import open_anywhere
from hf_bias_patch.checkpoint.source import Source, place_name, resolve, sha256_of
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import Recipe
from hf_bias_patch.patching.record import is_same
from hf_bias_patch.patching.request import Request
from hf_bias_patch.patching.variant import fill_variant

__all__ = ["Patched", "changes_nothing", "patch", "plan", "readable"]

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Patched:
    """What `patch` did.

    Attributes:
        path: the variant's folder.
        plan: the edits made.
        left_behind: files of the source that are not in the variant, since they hold the unpatched weights or go with
            these: path in the source → what it holds. Of an edit in place: files that still do.
        unchanged: whether there was nothing to change, so that nothing was written.
    """

    path: Path
    plan: Plan
    left_behind: Mapping[Path, str] = field(default_factory=dict)
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
        ArgumentError: `model` is not a path or Hub id, or `recipe` no recipe.
    """
    place_name(model)
    request = Request.of(recipe, fields, sites)
    checkpoint = open_anywhere(model).checkpoint
    config = with_model_type(checkpoint.config, request.recipe.model_type)
    refuse_other_name(checkpoint.folder, checkpoint.entry, config)
    refuse_wrapped(config, checkpoint.tensors)
    chosen = sites or find_sites(config, checkpoint.tensors)
    checkpoint.prepare(name for site in chosen for slot in site.slots.values() for name in slot.vectors)
    return request.resolve(checkpoint.config, checkpoint, checkpoint.shared)


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
        model: a folder, a safetensors file, `embedded:NAME` or a Hub id (`owner/name@REVISION`). Where stock
            transformers loads a PyTorch pickle, that is converted first, without executing it.
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
        ArgumentError: `model` or `out` is not a path, or `recipe` no recipe.
        TargetError: `out` exists, lies in the source, or cannot be written.
    """
    place_name(model)
    out = Path(place_name(out))
    request = Request.of(recipe, fields, sites)
    given = resolve(model)
    with readable(given, out) as (source, shared):
        checkpoint = open_model(source.path)
        refuse_other_name(checkpoint.folder, checkpoint.entry, checkpoint.config)
        refuse_wrapped(checkpoint.config, checkpoint.tensors)
        resolved = request.resolve(checkpoint.config, checkpoint, shared)
        if changes_nothing(checkpoint, resolved):
            return Patched(checkpoint.folder if source is given else given.path, resolved, unchanged=True)
        if announce is not None:
            announce(resolved)
        pickles = {} if source is given else sha256_of(given, pickle_files(given.path))
        left = left_behind(open_any_model(given.path))
        with new_folder(out, overwrite=overwrite, inputs=[checkpoint.folder, given.path]) as folder:
            fill_variant(folder, source, checkpoint, resolved, origin=pickles, progress=progress)
        return Patched(out, resolved, left)


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
    with working_folder(place, "converted") as folder:
        shared = convert(source.path, folder)
        yield replace(source, path=folder, known_sha256={}), shared


def changes_nothing(checkpoint: Checkpoint, plan: Plan) -> bool:
    """Whether a checkpoint was patched by this very recipe before, or has nothing left that it would change."""
    if any(edit.removes and edit.changes for edit in plan.edits):
        return False  # a variant that was trained on keeps its config, while its biases may have come back
    return is_same(checkpoint.config, plan.recipe) or not (plan.changes or plan.frozen)
