"""`verify` of a fine-tuned model: finds what it was made from, and compares the two, parameter by parameter."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model
from hf_bias_patch.checkpoint.durable import replace_file
from hf_bias_patch.checkpoint.index import parse_object
from hf_bias_patch.checkpoint.leftovers import working_folder
from hf_bias_patch.checkpoint.sidecar import ADAPTER, is_adapter_alone
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import BiasPatchError, VerifyError
from hf_bias_patch.evidence.certificate import Party
from hf_bias_patch.evidence.training import Free, PatchBefore, SourceComparison, Training, patch_before, patch_of
from hf_bias_patch.evidence.working_source import is_writable, place_beside
from hf_bias_patch.models.load import load_reported, refusing
from hf_bias_patch.models.source_files import folder_of, weight_files
from hf_bias_patch.patching.on_disk import patch
from hf_bias_patch.patching.record import TRAINING, untouchable

__all__ = ["compare_with_source", "verify_training"]


def verify_training(model: Source, training: Training, against: str | os.PathLike[str] | None) -> Training:
    """Compare a fine-tuned model with its source again, and save the outcome in its record.

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
    """Check an adapter by sha256: it leaves its base unchanged, so both files must be the recorded ones."""
    _refuse_others(adapter, [training.model], "The adapter changed since it was trained")
    config = parse_object(folder_of(adapter) / ADAPTER, (folder_of(adapter) / ADAPTER).read_bytes())
    name = str(config.get("base_model_name_or_path"))
    revision = None if against is not None or os.path.exists(name) else config.get("revision")
    base = resolve(name if against is None else against, revision=revision)
    _refuse_others(base, [training.source], "Another base was adapted")
    return training


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


def compare_with_source(model: Path, source: Source, free: Free) -> SourceComparison:
    """Read both as stock transformers does, in the model's own class, and compare every tensor bit by bit.

    Args:
        model: folder of the fine-tuned model.
        source: what was fine-tuned, after the patch that it began with.
        free: what training may have changed.

    Raises:
        VerifyError: one of the two cannot be loaded.
        CheckpointError, SourceError: a file is damaged, or leads nowhere.
    """
    config = _config(model)
    ours, lost = _state(model, config)
    theirs, lacking = _state(folder_of(source), config)
    changed, strayed = [], sorted({*lost, *(theirs.keys() - ours.keys() - lacking)})
    known = [name for name in ours if name in theirs and name not in lacking]
    for name in known:
        places = _differing(ours[name], theirs[name])
        if places.size:
            changed.append(name)
            if not _may_change(places, free.get(name)):
                strayed.append(name)
    same = set(known) - set(changed)
    gone, back = _removed_slots(model)
    return SourceComparison(
        identical=len(same),
        parameters=sum(ours[name].size for name in same),
        changed=tuple(changed),
        new=tuple(name for name in ours if name not in known),
        strayed=tuple(strayed),
        removed=gone,
        returned=back,
    )


def _removed_slots(model: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The bias slots that a patch removed from what a model was trained from: those still gone, and those there again.

    Raises:
        CheckpointError, FamilyError: the model's files cannot be read as what its config says.
    """
    checkpoint = open_model(model)
    wanted = [name for name, mark in untouchable(checkpoint.config).items() if mark == "removed"]
    if not wanted:
        return (), ()
    sites = {site.name: site for site in find_sites(checkpoint.config, checkpoint.tensors)}
    back = tuple(name for name in wanted if _is_there(checkpoint, sites, name))
    return tuple(name for name in wanted if name not in back), back


def _is_there(checkpoint: Checkpoint, sites: Mapping[str, Site], name: str) -> bool:
    """Whether a slot, such as `encoder.0.self.key`, has a bias that is not zero."""
    site, _, projection = name.rpartition(".")
    slot = sites[site].slots.get(projection) if site in sites else None
    if slot is None or slot.bias is None or slot.bias not in checkpoint.tensors:
        return False
    return bool(np.any(slot.view.take(checkpoint.read(slot.bias).reshape(-1))))


def _config(folder: Path) -> Any:
    import transformers

    return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _state(folder: Path, config: Any) -> tuple[dict[str, np.ndarray], set[str]]:
    """Every tensor of a checkpoint as float32, in the class that a config names; and those that its files lack."""
    import torch
    import transformers

    wanted = {"config": config, "dtype": torch.float32, "ignore_mismatched_sizes": True}
    with refusing(VerifyError, str(folder)):
        loaded = load_reported(folder, getattr(transformers, config.architectures[0]), **wanted)
    model, lacking = loaded.model, {*loaded.missing, *loaded.mismatched}
    # Where an adapter lies beside the model, transformers puts it on, and what it wraps gets another name.
    # Tied tensors count once, by their first name.
    names = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    state = {
        re.sub(r"\.(base_layer|modules_to_save\.\w+)\.", ".", name): value.detach().numpy()
        for name, value in model.state_dict().items()
        if name in names and ".original_module." not in name
    }
    return state, lacking


def _differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Flat indices of the elements whose bits differ."""
    return np.flatnonzero(one.reshape(-1).view(f"u{one.itemsize}") != other.reshape(-1).view(f"u{other.itemsize}"))


def _may_change(places: np.ndarray, ranges: tuple[tuple[int, int], ...] | None) -> bool:
    """Whether training may have changed these elements.

    Args:
        places: their flat indices.
        ranges: where it may; None for nowhere, empty for everywhere.
    """
    if ranges is None:
        return False
    inside = np.zeros(places.shape, bool)
    for start, stop in ranges:
        inside |= (places >= start) & (places < stop)
    return bool(inside.all()) if ranges else True
