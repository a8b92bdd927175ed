"""The checkpoint that training starts from: as it is, or patched first, on disk and certified like any variant."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf_bias_patch.checkpoint.leftovers import clear_leftovers, working_folder
from hf_bias_patch.checkpoint.source import Source, resolve, sha256_of
from hf_bias_patch.errors import BiasPatchError, TuneError
from hf_bias_patch.evidence.certificate import Certificate
from hf_bias_patch.evidence.run import verify
from hf_bias_patch.evidence.training import PatchBefore, patch_before, patch_of
from hf_bias_patch.evidence.where_possible import where_possible
from hf_bias_patch.models.source_files import folder_of
from hf_bias_patch.patching.on_disk import patch, plan
from hf_bias_patch.patching.recipe import Recipe, make_recipe
from hf_bias_patch.patching.record import CERTIFICATE
from hf_bias_patch.patching.summary import stays
from hf_bias_patch.tuning.settings import TuneSettings
from hf_bias_patch.tuning.watcher import Watcher

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["StartingCheckpoint", "starting_checkpoint"]


@dataclass(frozen=True)
class StartingCheckpoint:
    """What training starts from.

    Attributes:
        source: the checkpoint that the user named.
        loaded: what the model is loaded from: the source, or a variant of it that lasts as long as the run.
        before: the patch that made `loaded`, if it is a variant.
    """

    source: Source
    loaded: Source
    before: PatchBefore | None


@contextmanager
def starting_checkpoint(
    settings: TuneSettings, source: Source, accelerator: Accelerator, watcher: Watcher
) -> Iterator[StartingCheckpoint]:
    """The checkpoint, patched first where `fold` or `drop` are given. Called by all processes.

    The variant is in a working folder beside the run folder, and is deleted when the block is left.

    Raises:
        SourceError, CheckpointError, FamilyError, RecipeError, PlanError, TargetError: as for `patch`.
        TuneError: the patch does not pass its certificate.
    """
    if not (settings.fold or settings.drop):
        yield StartingCheckpoint(source, source, _patch_of(source))
        return
    recipe = make_recipe(fold=settings.fold, drop=settings.drop, where_possible=settings.where_possible)
    plan(settings.model_name_or_path, recipe)  # on every process: a refusal on one must not leave the others waiting
    with ExitStack() as stack:
        made: list[Path | BiasPatchError] = [settings.output_dir]
        if accelerator.is_main_process:
            try:
                made = [_patched(settings, recipe, watcher, stack)]
            except BiasPatchError as error:
                made = [error]
        place = _of_main(made)
        # If it is not there, there was nothing to patch.
        loaded = replace(resolve(place), name=source.name) if place.exists() else source
        yield StartingCheckpoint(source, loaded, _patch_of(loaded))


def _patched(settings: TuneSettings, recipe: Recipe, watcher: Watcher, stack: ExitStack) -> Path:
    """The folder of the variant, until the stack is closed."""
    beside = settings.output_dir.absolute()
    beside.parent.mkdir(parents=True, exist_ok=True)
    for folder in clear_leftovers(beside.parent):
        watcher.say(f"Removed {folder}: the working folder of a run that was killed")
    place = stack.enter_context(working_folder(beside.parent, beside.name)) / "patched"
    if recipe.where_possible:
        watcher.say("Measuring which folds can be made")
        recipe = where_possible(settings.model_name_or_path, recipe)
        for line in stays(recipe.left_out):
            watcher.say(f"Left out: {line}")
    done = patch(settings.model_name_or_path, place, recipe)
    if done.unchanged or not settings.fold:
        return place
    known = settings.output_dir / Path(CERTIFICATE).name
    if settings.resume and known.is_file() and _is_of(known, place):
        shutil.copyfile(known, place / CERTIFICATE)
        return place
    watcher.say("Verifying the patch before training")
    certificate = verify(place, settings.model_name_or_path)
    if not certificate.passed and not done.plan.lossy:
        raise TuneError(
            "The patch before training does not pass its certificate",
            why=" ".join(certificate.reasons),
            remedy="Fold fewer biases, or add --where-possible; or patch some layers only with `hf-bias-patch patch`, "
            "and tune that variant",
        )
    return place


def _patch_of(source: Source) -> PatchBefore | None:
    """The last patch of a checkpoint; of a fine-tuned one, the patch before its training."""
    folder = folder_of(source)
    return patch_of(folder) or patch_before(folder)


def _is_of(certificate: Path, variant: Path) -> bool:
    """Whether a certificate that an interrupted run kept is of exactly these weights."""
    measured = Certificate.loads(certificate.read_bytes(), certificate).variant.sha256
    return measured == sha256_of(resolve(variant), measured)


def _of_main(made: list[Path | BiasPatchError]) -> Path:
    """What the main process made, on every process, or its error; all wait for it here."""
    from accelerate.utils import broadcast_object_list

    found: Path | BiasPatchError = broadcast_object_list(made)[0]
    if isinstance(found, BiasPatchError):
        raise found
    return found
