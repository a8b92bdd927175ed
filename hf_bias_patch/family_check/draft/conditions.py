"""For which config values a trap is there, told from the values that were tried."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from hf_bias_patch.attention.condition import MISSING, lookup

__all__ = ["Flips", "trap_tables"]

Flips = dict[str, dict[str, list[tuple[Any, "dict[str, Any] | None"]]]]
"""Trap → config key → values tried, each with what the trap's entry says of layers then, None where it is not there."""


def trap_tables(
    default: Mapping[str, Mapping[str, Any]], flips: Flips, config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The entries of traps: those that are there by default, and those that other values bring.

    A value that was not tried counts as one that has the trap: a fold is lost then, never a wrong one offered.

    Args:
        default: trap → what its entry says of layers, at the default config.
        flips: what other values do.
        config: the default one, as plain values.
    """
    found: list[dict[str, Any]] = []
    for trap in dict.fromkeys([*default, *flips]):
        by_key = flips.get(trap, {})
        if trap in default:
            found.append(_unless(trap, default[trap], by_key))
        else:
            found += (_brought(trap, key, values, config) for key, values in by_key.items() if _any(values))
    return found


def _any(values: Iterable[tuple[Any, Any]]) -> bool:
    return any(there is not None for _, there in values)


def _unless(
    trap: str, where: Mapping[str, Any], by_key: Mapping[str, list[tuple[Any, dict[str, Any] | None]]]
) -> dict[str, Any]:
    """A trap that is there by default: unless the config has a value with which it is not."""
    off = {key: [value for value, there in values if there is None] for key, values in by_key.items()}
    # A list of the layers that says where it is says when it is, too.
    when = {key: {"not": _toml(values)} for key, values in off.items() if values and key not in where.values()}
    return {"trap": trap, **({"when": when} if when else {}), **where}


def _brought(
    trap: str, key: str, values: list[tuple[Any, dict[str, Any] | None]], config: Mapping[str, Any]
) -> dict[str, Any]:
    """A trap that a value of a key brings: with all values of it but those that were seen without."""
    mine = lookup(config, key)
    off = [None if mine is MISSING else mine, *(value for value, there in values if there is None)]
    plain = {json.dumps(value): value for value in off}.values()
    where = next(there for _, there in values if there is not None)
    if key in where.values():
        return {"trap": trap, **where}
    return {"trap": trap, "when": {key: {"not": [*_toml(plain), "missing"]}}, **where}


def _toml(values: Iterable[Any]) -> list[Any]:
    """Values as a family's condition has them: TOML has no null."""
    return ["null" if value is None else value for value in values]
