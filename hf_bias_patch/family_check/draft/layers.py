"""In which layers something is, told by a list of the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["by_layers"]


def by_layers(there: set[int], layers: set[int], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a trap's entry must say for it to be in some layers: nothing, if it is in all; None if no list tells.

    Args:
        there: layers that have it.
        layers: all layers.
        config: plain values.
    """
    if there == layers:
        return {}
    for key, values in _lists(config):
        if max(layers) < len(values):
            with_it = [values[layer] for layer in sorted(there)]
            without = [values[layer] for layer in sorted(layers - there)]
            if not any(value in without for value in with_it):
                return {"layers": key, "values": sorted({repr(value): value for value in with_it}.values(), key=str)}
        numbered = {value for value in values if type(value) is int}
        if numbered & layers == there:
            return {"only": key}
        if numbered & layers == layers - there:
            return {"but": key}
    return None


def _lists(config: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for key, value in config.items():
        if isinstance(value, list) and value and all(isinstance(item, (str, int, bool)) for item in value):
            yield key, value
