"""What a config says of its sites: how many heads they have, in which layers something is, and for which values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hf_bias_patch.architecture.condition import MISSING, lookup

__all__ = ["Flips", "blocker_tables", "by_layers", "head_size_key", "heads_key", "kv_heads_key", "toml_values"]

_HEADS = re.compile(
    r"(?!.*(kv|key_value|dim|size|index|mamba|linear|ssm|value))(.*_)?(n|num)?_?(attn_|attention_)?heads?(_.*)?"
)
_KV_HEADS = re.compile(r".*(kv|key_value)_?(attention_|n_|num_)*heads?.*|.*n_head_kv|multi_query_group_num")
_DIMS = re.compile(r".*dim.*|d_kv|.*size")


def heads_key(config: Mapping[str, Any], count: int, stack: str) -> str:
    """The key that counts query heads; empty if none has that value."""
    return _key(config, _HEADS, count, stack)


def kv_heads_key(config: Mapping[str, Any], count: int, stack: str) -> str:
    """The key that counts key-value heads; empty if none has that value."""
    return _key(config, _KV_HEADS, count, stack)


def head_size_key(config: Mapping[str, Any], projection: str, size: int) -> str:
    """The config key of the entries of a head; `?` if none is that large, which no family file may say."""
    found = [key for key, value in _flat(config) if _DIMS.fullmatch(key) and value == size]
    telling = {"key": "nope", "value": "v_"}.get(projection, "")
    return min(found, key=lambda key: (telling not in key, "head_dim" not in key, len(key)), default="?")


def _key(config: Mapping[str, Any], pattern: re.Pattern[str], count: int, stack: str) -> str:
    """The config key of a count of heads; one that names the stack first, then the shortest."""
    found = [key for key, value in _flat(config) if pattern.fullmatch(key.rpartition(".")[2]) and _counts(value, count)]
    return min(found, key=lambda key: (stack not in key, "num_attention_heads" not in key, len(key)), default="")


def _flat(config: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Mapping):
            if "model_type" not in value:
                yield from _flat(value, f"{path}{key}.")
        else:
            yield path + key, value


def _counts(value: Any, count: int) -> bool:
    if isinstance(value, list):
        return bool(value) and count in value and all(type(one) is int for one in value)
    return type(value) is int and value == count


def by_layers(there: set[int], layers: set[int], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a blocker's entry must say for it to be in some layers: nothing, if it is in all; None if no list tells.

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


Flips = dict[str, dict[str, list[tuple[Any, "dict[str, Any] | None"]]]]
"""Blocker → config key → values tried, each with what the blocker's entry says of the layers then; None
where there is no blocker."""


def blocker_tables(
    default: Mapping[str, Mapping[str, Any]], flips: Flips, config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The entries of blockers: those that are there by default, and those that other values bring.

    A value that was not tried counts as one that has the blocker: a fold is lost then, never a wrong one offered.

    Args:
        default: blocker → what its entry says of layers, at the default config.
        flips: what other values do.
        config: the default one, as plain values.
    """
    found: list[dict[str, Any]] = []
    for blocker in dict.fromkeys([*default, *flips]):
        by_key = flips.get(blocker, {})
        if blocker in default:
            found.append(_unless(blocker, default[blocker], by_key))
        else:
            found += (_brought(blocker, key, values, config) for key, values in by_key.items() if _any(values))
    return found


def _any(values: Iterable[tuple[Any, Any]]) -> bool:
    return any(there is not None for _, there in values)


def _unless(
    blocker: str, where: Mapping[str, Any], by_key: Mapping[str, list[tuple[Any, dict[str, Any] | None]]]
) -> dict[str, Any]:
    """A blocker that is there by default: unless the config has a value with which it is not."""
    off = {key: [value for value, there in values if there is None] for key, values in by_key.items()}
    # A list of the layers that says where it is says when it is, too.
    when = {key: {"not": toml_values(values)} for key, values in off.items() if values and key not in where.values()}
    return {"trap": blocker, **({"when": when} if when else {}), **where}


def _brought(
    blocker: str, key: str, values: list[tuple[Any, dict[str, Any] | None]], config: Mapping[str, Any]
) -> dict[str, Any]:
    """A blocker that a value of a key brings: with all values of it but those that were seen without."""
    mine = lookup(config, key)
    off = [None if mine is MISSING else mine, *(value for value, there in values if there is None)]
    plain = {json.dumps(value): value for value in off}.values()
    where = next(there for _, there in values if there is not None)
    if key in where.values():
        return {"trap": blocker, **where}
    return {"trap": blocker, "when": {key: {"not": [*toml_values(plain), "missing"]}}, **where}


def toml_values(values: Iterable[Any]) -> list[Any]:
    """Values as a family's condition has them: TOML has no null."""
    return ["null" if value is None else value for value in values]
