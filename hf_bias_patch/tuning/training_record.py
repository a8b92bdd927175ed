"""Writes the training record: what a model was made from, what trained, and the proof that nothing else did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.checkpoint.sidecar import ADAPTER_WEIGHTS
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.evidence.certificate import Party
from hf_bias_patch.evidence.training import Free, SourceComparison, TrainedTensor, Training, read_training
from hf_bias_patch.evidence.verify_training import compare_with_source
from hf_bias_patch.models.source_files import folder_of, weight_files
from hf_bias_patch.patching.base_card import base_card, front_matter
from hf_bias_patch.patching.record import BASE, BEFORE, CERTIFICATE, PLAN, TRAINING, block_of, public_name
from hf_bias_patch.version import __version__

if TYPE_CHECKING:
    from hf_bias_patch.scoring.tasks import Task
    from hf_bias_patch.tuning.settings import TuneSettings
    from hf_bias_patch.tuning.starting_checkpoint import StartingCheckpoint
    from hf_bias_patch.tuning.task_data import TaskData
    from hf_bias_patch.tuning.trainable import Trainable

__all__ = ["write_adapter_record", "write_record"]

_PRIVATE = ("model_name_or_path", "train_file", "validation_file", "report_to")
"""Settings that are paths on one machine; which data it was is told by its identity."""


def write_record(
    model: Path,
    settings: TuneSettings,
    start: StartingCheckpoint,
    data: TaskData,
    selection: Trainable,
    results: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> Training:
    """Compare a model that was just saved with what it began as, and keep the outcome in its folder.

    Args:
        model: the folder.
        settings: of the run.
        start: what it began with; still on disk.
        data: what it was trained on.
        selection: what trained.
        results: of the run.
        environment: what it ran on.

    Returns:
        The record, as it was written; it may not pass, which `push` checks.

    Raises:
        OSError: the disk is full.
    """
    _take_patch_along(model, start)
    source, folder = _party(start.source), folder_of(start.source)
    earlier = read_training(folder)
    free = {tensor.name: tensor.places for tensor in selection.trained}
    record = Training(
        package=__version__,
        model=_party(resolve(model)),
        source=source,
        base=_base(source, folder),
        inherited=front_matter(base_card(folder) or b"") or (earlier.inherited if earlier else {}),
        task=_public_task(data.task),
        train_data=data.train_identity.plain(),
        validation_data=data.validation_identity.plain() if data.validation_identity else None,
        settings=_public_settings(settings) | ({"decode": results["decode"]} if "decode" in results else {}),
        tensors=tuple(TrainedTensor.model_validate(vars(tensor)) for tensor in selection.trained),
        parameters={name: count for name, count in selection.plain().items() if isinstance(count, int)},
        free=free,
        steps=results["step"],
        best_step=results["best_step"],
        metrics=dict(results["metrics"]),
        main_metric=results["main_metric"],
        kept=_kept(model, start.loaded, free),
        earlier=earlier,
        environment=dict(environment),
    )
    replace_file(model / TRAINING, record.dumps().encode())
    return record


def write_adapter_record(adapter: Path, training: Training) -> None:
    """Write the record of a model beside its adapter too.

    Args:
        adapter: the folder.
        training: of the model that holds the same trained tensors.

    Raises:
        OSError: the disk is full.
    """
    files = {ADAPTER_WEIGHTS: sha256_file(adapter / ADAPTER_WEIGHTS)}
    own = {"model": Party(name=adapter.name, sha256=files), "base": training.source}
    replace_file(adapter / TRAINING, training.model_copy(update=own).dumps().encode())


def _kept(model: Path, source: Source, free: Free) -> SourceComparison | None:
    """The comparison; None where it cannot be made: the training is kept, and `verify` tries again."""
    try:
        return compare_with_source(model, source, free)
    except BiasPatchError:
        return None


def _party(source: Source) -> Party:
    """A checkpoint by its public name."""
    return Party(name=public_name(source), revision=source.revision, sha256=weight_files(source))


def _base(source: Party, folder: Path) -> Party:
    """The model on the Hub that the source is or was made from; the source itself if none is known."""
    if source.revision is not None:
        return source
    made_from = (
        block_of(parse_object(folder / "config.json", (folder / "config.json").read_bytes())).get("source") or {}
    )
    if made_from.get("revision") or (made_from and read_training(folder) is None):
        return Party(
            name=made_from.get("name") or source.name,
            revision=made_from.get("revision"),
            sha256=made_from.get("sha256") or {},
        )
    earlier = read_training(folder)
    return earlier.base if earlier else source


def _take_patch_along(model: Path, start: StartingCheckpoint) -> None:
    """Copy plan, certificate and base of the patch to where a later patch keeps them."""
    (model / BEFORE if start.before else (model / TRAINING).parent).mkdir(parents=True, exist_ok=True)
    for name, content in zip((PLAN, CERTIFICATE), start.before or (), strict=False):
        if content is not None:
            replace_file(model / BEFORE / Path(name).name, content.dumps().encode())
    base = folder_of(start.source) / BASE
    if base.is_file():
        replace_file(model / BASE, base.read_bytes())


def _public_settings(settings: TuneSettings) -> dict[str, Any]:
    plain = {name: value for name, value in settings.plain().items() if name not in _PRIVATE}
    return plain | {"learning_rate": settings.rate}


def _public_task(task: Task) -> dict[str, Any]:
    """A task as its YAML file has it; local files without their folders."""
    plain = task.model_dump(mode="json", exclude_defaults=True)
    if "files" in plain:
        plain["files"] = {split: Path(path).name for split, path in plain["files"].items()}
    return plain
