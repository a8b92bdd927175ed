"""A model in memory as its files would hold it: transformers renames some tensors when it saves and loads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["stored_names"]


@dataclass(frozen=True)
class _Info:
    dtype: str
    shape: tuple[int, ...]


def stored_names(model: Any) -> tuple[dict[str, str], dict[str, _Info]]:
    """In-memory name → name in a file, of parameters stored one to one; and all tensors of the file.

    Args:
        model: a transformers model, float64.
    """
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:  # a transformers that stores every model under the names it has in memory
        return {}, {}
    parameters = {name: value.detach() for name, value in model.named_parameters(remove_duplicate=False)}
    stored = dict(revert_weight_conversion(model, dict(parameters)))
    places = {(value.data_ptr(), tuple(value.shape)): name for name, value in stored.items()}
    # Tied parameters share a place: those that keep their names come first.
    places |= {(value.data_ptr(), tuple(value.shape)): name for name, value in stored.items() if name in parameters}
    names = {name: places.get((value.data_ptr(), tuple(value.shape)), "") for name, value in parameters.items()}
    tensors = {name: _Info("F64", tuple(value.shape)) for name, value in stored.items()}
    return {name: name if name in stored else other for name, other in names.items() if other}, tensors
