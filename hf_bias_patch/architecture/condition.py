"""Conditions on a config, as family files write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["MISSING", "Condition", "holds", "lookup", "matches", "may_hold", "meant"]

Condition = dict[str, Any]
"""Config key (with dots into nested tables) → the values it must have, a list; or a table `{not = [...]}` of those
it must not have. All keys must agree. TOML has no null: the text "null" stands for None, and "missing", in such a
table, for a key that is not there."""

MISSING = object()
"""What a key has that is not there."""


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """A config value, by a key with dots; MISSING where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part, MISSING) if isinstance(value, Mapping) else MISSING
    return value


def matches(value: Any, values: Sequence[Any]) -> bool:
    """Whether a list has a value. True does not equal 1, and the text "null" means None."""
    return any(
        (value is None if wanted == "null" else value == wanted and isinstance(value, bool) == isinstance(wanted, bool))
        for wanted in values
    )


def holds(condition: Condition, config: Mapping[str, Any]) -> bool:
    """Whether a config has every key of a condition, each with a value that it lists."""
    return may_hold(condition, config) and all(lookup(config, key) is not MISSING for key in condition)


def may_hold(condition: Condition, config: Mapping[str, Any]) -> bool:
    """Whether no key of a config contradicts a condition. A missing key contradicts nothing."""
    values = {key: lookup(config, key) for key in condition}
    return all(_fulfils(value, condition[key]) or _unsaid(value, condition[key]) for key, value in values.items())


def meant(condition: Condition, config: Mapping[str, Any]) -> bool:
    """Whether a config fulfils a condition, a key that is not there counting as None."""
    values = {key: lookup(config, key) for key in condition}
    return all(
        _fulfils(None if _unsaid(value, condition[key]) else value, condition[key]) for key, value in values.items()
    )


def _unsaid(value: Any, wanted: Any) -> bool:
    """Whether a key is not there, and the condition says nothing about that."""
    return value is MISSING and not (isinstance(wanted, Mapping) and "missing" in wanted["not"])


def _fulfils(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return matches(value, wanted)
    return value is not MISSING and not matches(value, wanted["not"])
