"""Values of a config that depend on each other."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from hf_bias_patch.family_check.small_models.rules import VOCAB
from hf_bias_patch.models.inputs.wanted import read

__all__ = ["cut", "repaired", "tapped"]

_COUNTS = ("num_hidden_layers", "num_layers", "n_layer")
_MANY = 5
"""Lists as long as this, and as long as the layers of the default config, are taken to be one value per layer."""


def cut(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Lists with one value per layer, cut to the layers that are left."""
    values = dict(values)
    name = next((n for n in _COUNTS if isinstance(values.get(n), int) and isinstance(defaults.get(n), int)), None)
    if name is None or defaults[name] < _MANY:
        return values
    for key, default in defaults.items():
        value = values.get(key, default)
        if isinstance(value, (list, tuple)) and len(value) == defaults[name]:
            values[key] = value[: values[name]]
    return values


def tapped(given: dict[str, Any], defaults: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a backbone: as many layers as are tapped, and what to set so that each is.

    Args:
        given: what its parent sets.
        defaults: of its fields.
    """
    taps = given.get("out_indices") or given.get("out_features")
    if not taps or "num_hidden_layers" not in defaults or "depths" in defaults:
        return given, {}
    given = {name: value for name, value in given.items() if name not in ("out_indices", "out_features")}
    count = max(2, len(taps))
    return given, {"num_hidden_layers": count, "out_indices": list(range(count + 1 - len(taps), count + 1))}


def repaired(config: Any) -> Any:
    """Fill what the class leaves open though its model needs it."""
    width, heads = read(config, "hidden_size"), read(config, "num_attention_heads")
    if isinstance(width, int) and isinstance(heads, int) and heads:
        _fill(config, "head_dim", width // heads)
        _fill(config, "num_key_value_heads", heads)
    _fill(config, "vocab_size", VOCAB)
    _fill(config, "num_experts_per_tok", 2)
    rope = read(config, "rope_parameters")
    if isinstance(rope, dict):
        for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
            if part.get("rope_theta", 0) is None:
                part["rope_theta"] = 10000.0
            if _multimodal_rope(config) and "rope_theta" in part:
                wanted = _sections(config, part)
                if sum(part.get("mrope_section", ())) != sum(wanted):
                    part["mrope_section"] = wanted
    return config


def _fill(config: Any, name: str, value: Any) -> None:
    if read(config, name, 0) is None:
        setattr(config, name, value)


def _multimodal_rope(config: Any) -> bool:
    if any(word in config.model_type for word in ("vision", "audio")):
        return False
    return "mrope_section" in inspect.getsource(sys.modules[type(config).__module__])


def _sections(config: Any, rope: dict[str, Any]) -> list[int]:
    """Frequencies for time, height and width: half the rotated width in all."""
    width = read(config, "head_dim") or config.hidden_size // config.num_attention_heads
    half = int(width * rope.get("partial_rotary_factor", 1.0)) // 2
    return [half - 2 * (half // 3), half // 3, half // 3]
