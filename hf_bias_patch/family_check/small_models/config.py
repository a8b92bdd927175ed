"""A small config of any type the installed transformers knows."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import FamilyError
from hf_bias_patch.family_check.reasons import reason_of, reasons
from hf_bias_patch.family_check.small_models.overrides import FIELDS
from hf_bias_patch.family_check.small_models.rules import VOCAB, shrink
from hf_bias_patch.family_check.small_models.sizes import own_size
from hf_bias_patch.models.inputs.wanted import read

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["model_types", "put", "small_config"]

_MOST_LAYERS = 8
"""Layers tried until every kind of layer occurs."""
_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_PATTERNS = ("layer_types", "mlp_layer_types", "layers_block_type", "attention_layers", "block_types", "indexer_types")


def model_types() -> tuple[str, ...]:
    """Every model type of the installed transformers that can be built, sorted."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    not_built = {model_type for reason in reasons("not_built") for model_type in reason.model_types}
    return tuple(sorted(set(CONFIG_MAPPING.keys()) - not_built))


def small_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """The default config of a type, shrunk.

    Args:
        model_type: a key of transformers' CONFIG_MAPPING.
        changes: values to set; dotted keys (`text_config.attention_bias`) reach into sub-configs.

    Raises:
        FamilyError: no such type, or one that needs a package which is not there.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if why := reason_of("not_built", {"model_type": model_type}, "", ""):
        raise FamilyError(f"No small {model_type} can be built", why=why)
    if model_type not in CONFIG_MAPPING:
        raise FamilyError(f"{model_type!r} is no model type of the installed transformers", remedy="See model_types()")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _small(CONFIG_MAPPING[model_type], {}, put({}, changes), model_type)


def put(fields: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with values put into them; the keys of those lead by dots into nested dicts."""
    for key, value in changes.items():
        *path, last = key.split(".")
        place = fields
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return fields


def _small(cls: Any, given: dict[str, Any], changes: dict[str, Any], path: str) -> Any:
    """A small config of a class.

    Args:
        cls: its class.
        given: the defaults its parent sets.
        changes: values that win over everything.
        path: model type and keys that lead to it, as `own_size` wants.
    """
    asked = _merge(FIELDS.get(cls.model_type, {}), changes)
    defaults = {field.name: _default(field) for field in dataclasses.fields(cls)}
    own = set(defaults) - _base_fields()
    specs = cls.sub_configs_defaults
    values: dict[str, Any] = {}
    given, layers = tapped(given, defaults)
    for name in own - set(specs):
        old = given.get(name, defaults[name])
        new = own_size(path, name, old, shrink(name, old, defaults | given))
        if name in given or new is not defaults[name]:
            values[name] = copy.deepcopy(new)
    extra = {name: value for name, value in given.items() if name not in defaults}
    values |= {name: own_size(path, name, old, shrink(name, old, extra)) for name, old in extra.items()} | layers
    for name, spec in specs.items():
        if name in asked and not isinstance(asked[name], dict):
            continue
        sub, model_type = asked.pop(name, {}), spec.model_type
        model_type = sub.pop("model_type", model_type)
        kwargs = (
            {k: v for k, v in spec.init_kwargs.items() if k != "model_type"} if model_type == spec.model_type else {}
        )
        values[name] = _small(_sub_class(spec, model_type), kwargs, sub, f"{path}.{name}")
    for name, inner in _inner_configs(cls, own - set(specs)).items():
        if isinstance(asked.get(name, {}), dict):
            values[name] = _small(type(inner), {}, asked.pop(name, {}), f"{path}.{name}")
    return _fitting(cls, values, asked, defaults)


def _inner_configs(cls: Any, names: set[str]) -> dict[str, Any]:
    """Sub-configs that the class makes by itself."""
    from transformers import PreTrainedConfig

    default = _default_config(cls)
    found = {name: read(default, name) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, PreTrainedConfig)}


@functools.cache
def _default_config(cls: Any) -> Any:
    try:
        return cls()
    except Exception:  # some types have no defaults for everything
        return None


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts, the values of `high` winning."""
    merged = copy.deepcopy(low)
    for name, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if both else value
    return merged


def _sub_class(spec: Any, model_type: str) -> Any:
    from transformers import PreTrainedConfig

    if issubclass(spec.config_class, PreTrainedConfig):
        return spec.config_class
    return spec.get_config_class(model_type)


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if field.default_factory is dataclasses.MISSING else field.default_factory()


def _base_fields() -> set[str]:
    from transformers import PreTrainedConfig

    return {field.name for field in dataclasses.fields(PreTrainedConfig)}


def _fitting(cls: Any, values: dict[str, Any], asked: dict[str, Any], defaults: dict[str, Any]) -> Any:
    """The config with as few layers as show every kind of layer."""
    patterns = _patterns(cls)
    kinds = {name: set(pattern) for name, pattern in patterns.items() if name not in asked}
    layers = next((n for n in _COUNTS if n in values), None)

    def make(count: int | None, **more: Any) -> Any:
        counted = {} if layers is None or count is None else {layers: count}
        return repaired(cls(**cut(values | counted | more | asked, defaults)))

    if not kinds or layers is None or layers in asked:
        return make(None)
    for count in range(2, _MOST_LAYERS + 1):
        config = make(count)
        if all(set(read(config, name) or ()) >= kinds[name] for name in kinds):
            return config
    # A pattern too long to fit: one layer of each kind, in the order of the default.
    count = max(2, *(len(found) for found in kinds.values()))
    forced = {}
    for name in kinds:
        order = list(dict.fromkeys(patterns[name]))
        forced[name] = (order * count)[:count]
    return make(count, **forced)


def _patterns(cls: Any) -> dict[str, list[Any]]:
    """Lists that name the kind of each layer, in the default config."""
    found = {name: read(_default_config(cls), name) for name in _PATTERNS}
    return {name: list(value) for name, value in found.items() if isinstance(value, (list, tuple)) and value}


_CUT_BY = ("num_hidden_layers", "num_layers", "n_layer")
_MANY = 5
"""Lists as long as this, and as long as the layers of the default config, are taken to be one value per layer."""


def cut(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Lists with one value per layer, cut to the layers that are left."""
    values = dict(values)
    name = next((n for n in _CUT_BY if isinstance(values.get(n), int) and isinstance(defaults.get(n), int)), None)
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
