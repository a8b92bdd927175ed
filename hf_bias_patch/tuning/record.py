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
from hf_bias_patch.evidence.models import folder_of
from hf_bias_patch.evidence.retrace import weight_files
from hf_bias_patch.evidence.training import Free, Kept, TrainedTensor, Training, read_training
from hf_bias_patch.evidence.untouched import compare_with_source
from hf_bias_patch.patching.base_card import base_card, front_matter
from hf_bias_patch.patching.record import BASE, BEFORE, CERTIFICATE, PLAN, TRAINING, block_of, public_name
from hf_bias_patch.version import __version__

if TYPE_CHECKING:
    from hf_bias_patch.scoring.tasks import Task
    from hf_bias_patch.tuning.select import Selection
    from hf_bias_patch.tuning.settings import Settings
    from hf_bias_patch.tuning.start import Start
    from hf_bias_patch.tuning.task_data import TaskData

__all__ = ["write_adapter_record", "write_record"]

_PRIVATE = ("model_name_or_path", "train_file", "validation_file", "report_to")
"""Settings that name places on one machine; what data it was is said by its identity."""


def write_record(
    model: Path,
    settings: Settings,
    start: Start,
    data: TaskData,
    selection: Selection,
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
        The record, as it was written. That it does not pass is no error here: a push looks at it.

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
    """Keep the record of a model beside the adapter that makes it of its source.

    Args:
        adapter: the folder.
        training: of the model that holds the same trained tensors.

    Raises:
        OSError: the disk is full.
    """
    files = {ADAPTER_WEIGHTS: sha256_file(adapter / ADAPTER_WEIGHTS)}
    own = {"model": Party(name=adapter.name, sha256=files), "base": training.source}
    replace_file(adapter / TRAINING, training.model_copy(update=own).dumps().encode())


def _kept(model: Path, source: Source, free: Free) -> Kept | None:
    """The comparison; None where it cannot be made: no training is lost for that, and `verify` tries again."""
    try:
        return compare_with_source(model, source, free)
    except BiasPatchError:
        return None


def _party(source: Source) -> Party:
    """A checkpoint under the name that others may know it by."""
    return Party(name=public_name(source), revision=source.revision, sha256=weight_files(source))


def _base(source: Party, folder: Path) -> Party:
    """What others know the source by: itself if it is on the Hub, else what it was made from, as far as is told."""
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


def _take_patch_along(model: Path, start: Start) -> None:
    """Plan and certificate of the patch go where a later patch leaves them, and so does the base's name."""
    (model / BEFORE if start.before else (model / TRAINING).parent).mkdir(parents=True, exist_ok=True)
    for name, content in zip((PLAN, CERTIFICATE), start.before or (), strict=False):
        if content is not None:
            replace_file(model / BEFORE / Path(name).name, content.dumps().encode())
    base = folder_of(start.source) / BASE
    if base.is_file():
        replace_file(model / BASE, base.read_bytes())


def _public_settings(settings: Settings) -> dict[str, Any]:
    plain = {name: value for name, value in settings.plain().items() if name not in _PRIVATE}
    return plain | {"learning_rate": settings.rate}


def _public_task(task: Task) -> dict[str, Any]:
    """A task as its YAML file has it; local files without their folders."""
    plain = task.model_dump(mode="json", exclude_defaults=True)
    if "files" in plain:
        plain["files"] = {split: Path(path).name for split, path in plain["files"].items()}
    return plain
