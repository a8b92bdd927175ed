"""Compares a fine-tuned model with its source, parameter by parameter: what changed, and whether it might."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hf_bias_patch.attention.find import find_sites
from hf_bias_patch.attention.sites import Site
from hf_bias_patch.checkpoint.checkpoint import Checkpoint, open_model
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.evidence.training import Free, Kept
from hf_bias_patch.models.load import load_reported, refusing
from hf_bias_patch.models.source_files import folder_of
from hf_bias_patch.patching.record import untouchable

__all__ = ["compare_with_source", "removed_slots"]


def compare_with_source(model: Path, source: Source, free: Free) -> Kept:
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
    gone, back = removed_slots(model)
    return Kept(
        identical=len(same),
        parameters=sum(ours[name].size for name in same),
        changed=tuple(changed),
        new=tuple(name for name in ours if name not in known),
        strayed=tuple(strayed),
        removed=gone,
        returned=back,
    )


def removed_slots(model: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
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
