"""Names that a model's tensors have in memory, and in its files: transformers renames some when it loads and saves.

ViT's files say `encoder.layer.0.attention.attention.query`, the model says `layers.0.attention.q_proj`. What tells that
they are one is that their values are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Norm, Site, Slot
from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.patching.in_memory import ModelTensors

__all__ = ["FileNames", "names_among", "names_in_files", "names_on_disk", "sites_in_memory"]

_KINDS = ("weight", "bias")
_SAMPLE = 64
"""Values compared before all are: enough to tell almost any two tensors apart."""


def names_on_disk(model: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """In-memory name → name in the files, of every parameter that could be told.

    Args:
        model: loaded from the checkpoint, in float64, its values unchanged.
        checkpoint: its files.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    found = {
        name: name
        for name, value in parameters.items()
        if name in checkpoint.tensors and checkpoint.tensors[name].shape == tuple(value.shape)
    }
    left = {name: value for name, value in parameters.items() if name not in found}
    taken = set(found)
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, info in checkpoint.tensors.items():
        if name not in taken and info.dtype in FLOATS:
            by_shape.setdefault(info.shape, []).append(name)
    for name, value in left.items():
        same = [other for other in by_shape.get(tuple(value.shape), ()) if _equal(value.numpy(), checkpoint, other)]
        if len(same) == 1:
            found[name] = same[0]
    _complete(found, left, checkpoint)
    return found


def _equal(values: np.ndarray, checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor of the files has these values. A constant one proves nothing: many tensors are all 0 or 1."""
    shape = checkpoint.tensors[name].shape
    if not shape or math.prod(shape) < 2 or bool((values == values.flat[0]).all()):
        return False
    rows = checkpoint.rows(name, 0, min(shape[0], max(1, _SAMPLE // max(1, math.prod(shape[1:])))))
    if not np.array_equal(rows.astype(np.float64), values[: len(rows)]):
        return False
    return np.array_equal(checkpoint.read(name).astype(np.float64), values)


def _complete(found: dict[str, str], left: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """A weight that was found tells its bias, and a bias its weight: they are parameters of one module."""
    modules = {
        memory.rpartition(".")[0]: disk.rpartition(".")[0]
        for memory, disk in found.items()
        if memory.rpartition(".")[2] == disk.rpartition(".")[2]
    }
    taken = set(found.values())
    for name, value in left.items():
        module, _, kind = name.rpartition(".")
        other = f"{modules.get(module)}.{kind}"
        if name in found or module not in modules or kind not in _KINDS or other in taken:
            continue
        if other in checkpoint.tensors and checkpoint.tensors[other].shape == tuple(value.shape):
            found[name] = other


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


@dataclass(frozen=True)
class _Info:
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FileNames:
    """Where the files hold a model's parameters.

    Attributes:
        names: in-memory name → name in a file, of parameters whose values are there as they are.
        starts: in-memory name → the row they start at, of those that a file holds fused with others.
        tensors: of the files.
    """

    names: dict[str, str]
    starts: dict[str, int]
    tensors: dict[str, _Info]


def names_in_files(model: Any) -> FileNames:
    """Where each parameter would be in the model's files; empty where transformers renames none.

    Args:
        model: a transformers model, float64.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # a transformers that stores every model under the names it has in memory
        return FileNames({}, {}, {})
    parameters = {name: value.detach() for name, value in model.named_parameters(remove_duplicate=False)}
    return names_among(parameters, dict(revert_weight_conversion(model, dict(parameters))))


def names_among(parameters: Mapping[str, Any], stored: Mapping[str, Any]) -> FileNames:
    """Where each parameter is among the tensors of a model's files, told by its values.

    Args:
        parameters: in-memory name → tensor, random values that no other has.
        stored: name in a file → tensor, of the same dtype.
    """
    places = {_values(value): name for name, value in stored.items()}
    # Tied parameters share a place: those that keep their names come first.
    places |= {_values(value): name for name, value in stored.items() if name in parameters}
    found = {name: places.get(_values(value), "") for name, value in parameters.items()}
    names = {name: name if name in stored else other for name, other in found.items() if other}
    pieces = _pieces({name: value for name, value in parameters.items() if name not in names}, stored)
    tensors = {name: _Info("F64", tuple(value.shape)) for name, value in stored.items()}
    starts = {name: start for name, (_, start) in pieces.items()}
    return FileNames(names | {name: other for name, (other, _) in pieces.items()}, starts, tensors)


def _values(tensor: Any) -> tuple[tuple[int, ...], bytes]:
    """What two tensors have in common that are one: shape and values."""
    return tuple(tensor.shape), hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).digest()


def _pieces(left: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Name → the stored tensor that holds a parameter among its rows, and the first of them.

    Elements of a vector may be in another order there: rotary positions pair them in two ways.
    """
    found: dict[str, tuple[str, int]] = {}
    for name, value in left.items():
        for other, whole in stored.items():
            rows = len(value) if value.dim() else 0
            if not rows or whole.dim() != value.dim() or whole.shape[1:] != value.shape[1:] or len(whole) <= rows:
                continue
            starts = range(0, len(whole) - rows + 1, rows)
            start = next((start for start in starts if _same(whole[start : start + rows], value)), None)
            if start is not None:
                found[name] = (other, start)
                break
    return found


def _same(rows: Any, value: Any) -> bool:
    if value.dim() == 1:
        return bool(rows.sort().values.eq(value.sort().values).all())
    return bool(rows[0].eq(value[0]).all()) and bool(rows.eq(value).all())
