"""Attention sites under the names that their tensors have in a loaded model: transformers renames some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_bias_patch.attention.find import find_sites
from hf_bias_patch.attention.sites import Norm, Site, Slot
from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.patching.memory import ModelTensors

__all__ = ["sites_in_memory"]


def sites_in_memory(model: Any, files: Checkpoint, given: Sequence[Site]) -> tuple[Site, ...] | None:
    """What `apply` takes as `sites`.

    Args:
        model: loaded from the checkpoint, in float64, its values unchanged.
        files: the checkpoint.
        given: the plan's sites, which a probe found; empty where they are the family's.

    Returns:
        Sites; None where the family finds them in the model by itself, or nobody does.
    """
    tensors = ModelTensors(model).tensors
    sites = tuple(given)
    try:
        if not sites:
            find_sites(model.config.to_dict(), tensors)
            return None
    except BiasPatchError:
        sites = _of_files(files)
    if not sites or all(name in tensors for site in sites for name in _names(site)):
        return sites or None
    from hf_bias_patch.probing.renames import names_on_disk

    names = {disk: memory for memory, disk in names_on_disk(model, files).items()}
    return tuple(_renamed(site, names) for site in sites)


def _of_files(files: Checkpoint) -> tuple[Site, ...]:
    try:
        return find_sites(files.config, files.tensors)
    except BiasPatchError:
        return ()


def _names(site: Site) -> Iterator[str]:
    for slot in site.slots.values():
        norm = (slot.norm.weight, slot.norm.bias) if slot.norm else ()
        yield from (name for name in (slot.bias, slot.weight, *norm) if name)


def _renamed(site: Site, names: Mapping[str, str]) -> Site:
    return replace(site, slots={name: _slot(slot, names) for name, slot in site.slots.items()})


def _slot(slot: Slot, names: Mapping[str, str]) -> Slot:
    norm = slot.norm
    return replace(
        slot,
        bias=slot.bias and names.get(slot.bias, slot.bias),
        weight=slot.weight and names.get(slot.weight, slot.weight),
        norm=norm and _norm(norm, names),
    )


def _norm(norm: Norm, names: Mapping[str, str]) -> Norm:
    return replace(norm, weight=names.get(norm.weight, norm.weight), bias=names.get(norm.bias, norm.bias))
