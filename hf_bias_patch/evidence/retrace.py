"""`verify` of a fine-tuned model: finds what it was made from, and compares the two again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.checkpoint.leftovers import working_folder
from hf_bias_patch.checkpoint.pickled import is_pickled, pickle_files
from hf_bias_patch.checkpoint.sidecar import ADAPTER, ADAPTER_WEIGHTS, is_adapter_alone
from hf_bias_patch.checkpoint.source import Source, resolve, sha256_of
from hf_bias_patch.errors import BiasPatchError, VerifyError
from hf_bias_patch.evidence.certificate import Party
from hf_bias_patch.evidence.keep import is_writable
from hf_bias_patch.evidence.models import folder_of
from hf_bias_patch.evidence.restore import place_beside
from hf_bias_patch.evidence.training import PatchBefore, Training, patch_before, patch_of
from hf_bias_patch.evidence.untouched import compare_with_source
from hf_bias_patch.patching.disk import patch
from hf_bias_patch.patching.record import TRAINING

__all__ = ["retrace", "weight_files"]


def retrace(model: Source, training: Training, against: str | os.PathLike[str] | None) -> Training:
    """Compare a fine-tuned model with its source again, and keep the outcome in its record.

    Args:
        model: the fine-tuned model.
        training: its record.
        against: its source; by default what the record, or the run folder around the model, names.

    Raises:
        VerifyError: model or source are not those that the record speaks of, or the source cannot be found.
        SourceError, CheckpointError: one of the two leads nowhere or is damaged.
    """
    folder = folder_of(model)
    if is_adapter_alone(folder):
        return _check_adapter(model, training, against)
    _refuse_others(model, [training.model], "The model changed since it was trained")
    source = _source(folder, training, against)
    _refuse_others(source, [training.source, training.base], "Another checkpoint was fine-tuned")
    with _as_it_began(source, patch_before(folder), place_beside(folder)) as began:
        found = training.model_copy(update={"kept": compare_with_source(folder, began, training.free)})
    if is_writable(folder):
        replace_file(folder / TRAINING, found.dumps().encode())
    return found


def _check_adapter(adapter: Source, training: Training, against: str | os.PathLike[str] | None) -> Training:
    """An adapter changes nothing of its base, so that it is enough that both are those of the record."""
    _refuse_others(adapter, [training.model], "The adapter changed since it was trained")
    config = parse_object(folder_of(adapter) / ADAPTER, (folder_of(adapter) / ADAPTER).read_bytes())
    name = str(config.get("base_model_name_or_path"))
    revision = None if against is not None or os.path.exists(name) else config.get("revision")
    base = resolve(name if against is None else against, revision=revision)
    _refuse_others(base, [training.source], "Another base was adapted")
    return training


def weight_files(source: Source) -> dict[str, str]:
    """The weight files of a checkpoint, a pickle's or an adapter's too: name to sha256."""
    folder = folder_of(source)
    if is_adapter_alone(folder):
        return sha256_of(source, [ADAPTER_WEIGHTS])
    return sha256_of(source, pickle_files(folder) if is_pickled(folder) else open_model(source.path).files)


def _refuse_others(place: Source, recorded: Sequence[Party], what: str) -> None:
    found = weight_files(place)
    if any(found == party.sha256 for party in recorded):
        return
    known = recorded[0].sha256
    name = next((name for name in (*found, *known) if found.get(name) != known.get(name)), "")
    raise VerifyError(
        f"{what}: {name} of {place.name} is not the recorded one",
        why=f"Its sha256 is {found.get(name)}, and the training record has {known.get(name)}",
        remedy="Compare the model as it was saved with the checkpoint that it was trained from (--against)",
    )


def _source(folder: Path, training: Training, against: str | os.PathLike[str] | None) -> Source:
    if against is not None:
        return resolve(against)
    known = training.source
    name = f"{known.name}@{known.revision}" if known.revision else known.name
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # it may not be in its run folder any more
        name = str(json.loads((folder.parent / "environment.json").read_bytes())["source"])
    try:
        return resolve(name)
    except BiasPatchError as error:
        raise VerifyError(
            f"What {folder} was fine-tuned from cannot be found: {error.what}",
            why=error.why,
            remedy="Say where it is: --against MODEL (in Python, against=MODEL)",
        ) from error


@contextmanager
def _as_it_began(source: Source, before: PatchBefore | None, place: Path) -> Iterator[Source]:
    """The source after the patch that training began with: itself, where it was a variant already."""
    done = patch_of(folder_of(source))
    if before is None or (done is not None and done.plan.dumps() == before.plan.dumps()):
        yield source
        return
    with working_folder(place, "source") as made:
        yield resolve(patch(source.path, made / "patched", before.plan.recipe).path)
