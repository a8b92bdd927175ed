"""Which key of a config counts heads, or the entries of one: told by its name and its value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["head_size_key", "heads_key", "kv_heads_key"]

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
