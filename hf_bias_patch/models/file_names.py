"""A model in memory as its files would hold it: transformers renames some tensors when it saves and loads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Stored", "stored_in", "stored_names"]


@dataclass(frozen=True)
class _Info:
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Stored:
    """Where the files hold a model's parameters.

    Attributes:
        names: in-memory name → name in a file, of parameters whose values are there as they are.
        starts: in-memory name → the row they start at, of those that a file holds fused with others.
        tensors: of the files.
    """

    names: dict[str, str]
    starts: dict[str, int]
    tensors: dict[str, _Info]


def stored_names(model: Any) -> Stored:
    """Where each parameter would be in the model's files; empty where transformers renames none.

    Args:
        model: a transformers model, float64.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # a transformers that stores every model under the names it has in memory
        return Stored({}, {}, {})
    parameters = {name: value.detach() for name, value in model.named_parameters(remove_duplicate=False)}
    return stored_in(parameters, dict(revert_weight_conversion(model, dict(parameters))))


def stored_in(parameters: Mapping[str, Any], stored: Mapping[str, Any]) -> Stored:
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
    return Stored(names | {name: other for name, (other, _) in pieces.items()}, starts, tensors)


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
