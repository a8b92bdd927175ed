"""A small config of any type the installed transformers knows."""

from __future__ import annotations

import copy
import dataclasses
import functools
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import FamilyError
from hf_bias_patch.family_check.small_models.cannot import CANNOT
from hf_bias_patch.family_check.small_models.consistent import cut, repaired, tapped
from hf_bias_patch.family_check.small_models.overrides import FIELDS
from hf_bias_patch.family_check.small_models.rules import shrink
from hf_bias_patch.family_check.small_models.sizes import own_size
from hf_bias_patch.models.inputs.wanted import read

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["CANNOT", "model_types", "put", "small_config"]

_MOST_LAYERS = 8
"""Layers tried until every kind of layer occurs."""
_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_PATTERNS = ("layer_types", "mlp_layer_types", "layers_block_type", "attention_layers", "block_types", "indexer_types")


def model_types() -> tuple[str, ...]:
    """Every model type of the installed transformers that can be built, sorted."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return tuple(sorted(set(CONFIG_MAPPING.keys()) - set(CANNOT)))


def small_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """The default config of a type, shrunk.

    Args:
        model_type: a key of transformers' CONFIG_MAPPING.
        changes: values to set; dotted keys (`text_config.attention_bias`) reach into sub-configs.

    Raises:
        FamilyError: no such type, or one that needs a package which is not there.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type in CANNOT:
        raise FamilyError(f"No small {model_type} can be built", why=CANNOT[model_type])
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
