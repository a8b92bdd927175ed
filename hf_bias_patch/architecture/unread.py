"""What stock transformers does not read: biases that its classes do not have, layers beyond their count, other models.

It makes a model from config.json, fills it with the tensors whose names the model has, and leaves out the others. What
it leaves out is no part of the model, whatever the file holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hf_bias_patch.architecture.condition import MISSING, lookup
from hf_bias_patch.architecture.name_patterns import LayerIndex
from hf_bias_patch.architecture.stock import entry

__all__ = ["NEVER", "NOT", "SITE", "TABLE", "layers_key", "unread", "within"]

TABLE = "stock_biases"
"""Model type → `layers` (stack → the key that counts its layers; of a staged model, a list of counts), and `biases`
(`stack.kind` → what the model has only where a key is on, or `not`, or never). What these say is `query`, … for the
bias, `query.norm`, … for the bias of the norm that it reads, `site` for all of the attention."""

NEVER = "never"
SITE = "site"
NOT = "not "


def unread(config: Mapping[str, Any], stack: str, kind: str, path: str = "", stage: int = 0) -> dict[str, str]:
    """What stock transformers does not read of one kind of attention → why.

    Args:
        config: as transformers reads it; of a model, or a tower's own.
        stack, kind: as in a family.
        path: the keys that lead to this config, with dots.
        stage: of a staged model, whose switches may be lists.
    """
    facts = entry(TABLE, config.get("model_type")).get("biases", {}).get(f"{stack}.{kind}", {})
    found: dict[str, str] = {}
    for key, names in facts.items():
        if why := _why(config, key, path, stage):
            found |= dict.fromkeys(names.split(), why)
    return found


def _why(config: Mapping[str, Any], key: str, path: str, stage: int) -> str:
    if key == NEVER:
        return f"a model of type {config['model_type']} has no such bias"
    off, key = key.startswith(NOT), key.removeprefix(NOT)
    value = lookup(config, key)
    turned = value[stage] if isinstance(value, (list, tuple)) and stage < len(value) else value
    if value is MISSING or bool(turned) is not off:
        return ""
    return f"`{path}{key}` is {json.dumps(value)}"


def layers_key(config: Mapping[str, Any], stack: str) -> str:
    """The key of a config that counts the layers of a stack; empty where none is known."""
    return str(entry(TABLE, config.get("model_type")).get("layers", {}).get(stack, ""))


def within(place: LayerIndex, count: Any) -> bool:
    """Whether a layer is among those that a config counts, by a number or, of a staged model, by a list of them."""
    if isinstance(count, (list, tuple)):
        if place.stage >= len(count):
            return False
        count = count[place.stage]
    counts = isinstance(count, int) and not isinstance(count, bool) and count > 0
    return not counts or place.layer < count
