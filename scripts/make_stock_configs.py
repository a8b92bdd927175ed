"""Writes hf_bias_patch/architecture/stock_configs.toml: how transformers reads the config keys that families ask for.

    python scripts/make_stock_configs.py [--check]

It makes configs of every model type, and no models, in a minute. Run it whenever the version of transformers
changes, and whenever a family asks for another key. `--check` writes nothing and says what differs.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import textwrap
import warnings
from dataclasses import MISSING, fields
from types import NoneType
from typing import Any

from config_keys import keys_asked
from stock_tables import save, text_of
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

HEADER = """\
# Model type = how its config class reads the keys that are asked for; as_read.py says what is what.
# Made by scripts/make_stock_configs.py from the config classes of transformers.
"""
NOTHING = object()
BACKBONE = "backbone_config"
"""Its own model type always counts, and there is none where `backbone` names one elsewhere."""
ODD = {bool: (True, False), int: (8, 2)}
"""Values that a key is given to see who else takes them."""


def main() -> int:
    """Write the file, or hold it against the installed transformers."""
    warnings.simplefilter("ignore")
    logging.set_verbosity(logging.CRITICAL)
    found = {model_type: facts_of(cls) for model_type, cls in config_classes().items()}
    return save("stock_configs", text_of(HEADER, {name: facts for name, facts in found.items() if name and facts}))


def config_classes() -> dict[str, Any]:
    """Model type → config class, of every type that a config.json may name, and of parts that have no other name."""
    named = {model_type: CONFIG_MAPPING[model_type] for model_type in CONFIG_MAPPING}
    found, new = {}, list(named.values())
    while new:
        specs = [spec for cls in new for spec in cls.sub_configs_defaults.values()]
        new = [spec.config_class for spec in specs if getattr(spec.config_class, "model_type", "") not in ("", *found)]
        found |= {cls.model_type: cls for cls in new}
    return found | named


def facts_of(cls: Any) -> dict[str, Any]:
    """The entry of a config class."""
    names = names_of(cls)
    wanted = (keys_asked() | set(names.values())) - set(names)
    follows = follows_of(cls, wanted)
    facts = {
        "names": names,
        "defaults": defaults_of(cls, wanted - set(follows)),
        "follows": follows,
        "parts": {key: part_of(cls, key, spec) for key, spec in cls.sub_configs_defaults.items()},
    }
    return json.loads(json.dumps({name: value for name, value in facts.items() if value}))  # lists of tuples


# ------------------------------------------------------------------------------------------------------ its own keys


def names_of(cls: Any) -> dict[str, str]:
    """Other name of a key → the key: what the class declares, and what its `__post_init__` takes besides."""
    asked = keys_asked()
    found = {name: key for name, key in cls.attribute_map.items() if name != key and {name, key} & asked}
    for name in sorted(said_in_init(cls) - set(field_defaults(cls)) - set(found)):
        taken = takers(cls, name) & asked
        if len(taken) == 1:
            found[name] = taken.pop()
    return found


def takers(cls: Any, name: str) -> set[str]:
    """The keys that have the value which one key is given."""
    plain = build(cls)
    found: set[str] = set()
    for kind, odds in ODD.items():
        keys = {key for key in keys_asked() if isinstance(attribute(plain, key), (kind, NoneType))} - {name}
        made = [(odd, build(cls, **{name: odd})) for odd in odds] if keys else []
        if made and all(config is not None for _, config in made):
            found |= {key for key in keys if all(same(attribute(config, key), odd) for odd, config in made)}
    return found


def same(value: Any, odd: Any) -> bool:
    return type(value) is type(odd) and bool(value == odd)


def defaults_of(cls: Any, wanted: set[str]) -> dict[str, Any]:
    """Key → the value that it has where a config.json leaves it out, as far as it hangs on no other."""
    given, empty = field_defaults(cls), build(cls)
    found = {key: given[key] for key in wanted & given.keys()}
    # What is no field may be a constant of the class, which a config.json cannot change.
    found |= {
        key: vars(base)[key] for base in reversed(cls.__mro__) for key in wanted & vars(base).keys() - given.keys()
    }
    return {
        key: value
        for key, value in sorted(found.items())
        if is_plain(value) and (empty is None or attribute(empty, key) == value)
    }


def follows_of(cls: Any, wanted: set[str]) -> dict[str, str]:
    """Key that has the value of another one where a config.json leaves it out → that one."""
    counts = [key for key in sorted(wanted) if is_count(field_defaults(cls).get(key))]
    return {key: other for other in counts for key in sorted(takers(cls, other) & wanted)}


# --------------------------------------------------------------------------------------------------------- its parts


def part_of(cls: Any, key: str, spec: Any) -> dict[str, Any]:
    """What the table says of the config of a part."""
    whole = attribute(build(cls), key)
    is_made = hasattr(whole, "model_type")
    facts: dict[str, Any] = {"type": whole.model_type if is_made else spec.model_type, "optional": not is_made}
    if is_made:
        plain = build(type(whole))
        asked = sorted(name for name in keys_asked() if is_plain(attribute(whole, name)))
        values = {name: attribute(whole, name) for name in asked if attribute(whole, name) != attribute(plain, name)}
        facts |= {"values": values, "kept": keeps(cls, key, whole.model_type, values)}
    if key == BACKBONE:
        facts["unless"] = "backbone"
    else:
        facts["fixed"] = hasattr(spec.config_class, "model_type")
        facts |= elsewhere(cls, key, whole) if is_made else {}
    return {name: value for name, value in facts.items() if value}


def keeps(cls: Any, key: str, model_type: str, values: dict[str, Any]) -> bool:
    """Whether the values that a part has where it is left out are also those that it leaves out itself."""
    part = attribute(build(cls, **{key: {"model_type": model_type}}), key)
    return bool(values) and all(attribute(part, name) == value for name, value in values.items())


def elsewhere(cls: Any, key: str, whole: Any) -> dict[str, Any]:
    """Where else the values of a part may stand: at the top, or under another key."""
    found: dict[str, Any] = {}
    probe = next((name for name in sorted(keys_asked()) if is_count(attribute(whole, name))), "")
    if not probe:
        return found
    wanted = 2 * attribute(whole, probe)
    if probe not in field_defaults(cls) and lies(build(cls, **{probe: wanted}), key, probe, wanted):
        found["flat"] = True
    for other in sorted(said_in_init(cls) - set(field_defaults(cls))):
        values = {other: {probe: wanted}}
        if lies(build(cls, **values), key, probe, wanted):
            both = build(cls, **values, **{key: {probe: 2 * wanted}})
            found["over" if lies(both, key, probe, wanted) else "other"] = other
    return found


def lies(config: Any, key: str, probe: str, wanted: int) -> bool:
    """Whether a value came to the config of a part."""
    return bool(attribute(attribute(config, key), probe) == wanted)


# ------------------------------------------------------------------------------------------------------------- tools


def field_defaults(cls: Any) -> dict[str, Any]:
    """Field → its default; of one that makes a value anew, that value."""
    found = {}
    for field in fields(cls):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return found


def build(cls: Any, **values: Any) -> Any:
    """A config; None where the class takes no such values."""
    if values:
        return _made(cls, values)
    if cls not in _empty:
        _empty[cls] = _made(cls, {})
    return _empty[cls]


_empty: dict[Any, Any] = {}


def _made(cls: Any, values: dict[str, Any]) -> Any:
    try:
        return cls(**values)
    except Exception:  # whatever a class objects to
        return None


def attribute(config: Any, key: str) -> Any:
    """A value of a config; NOTHING where there is none."""
    try:
        return getattr(config, key, NOTHING)
    except Exception:  # it may be computed from what is not there
        return NOTHING


def said_in_init(cls: Any) -> set[str]:
    """Every name that the `__post_init__` of a config class speaks of."""
    found: set[str] = set()
    for base in cls.__mro__:
        own = vars(base).get("__post_init__")
        if own is not None and base.__module__.startswith("transformers.models"):
            tree = ast.parse(textwrap.dedent(inspect.getsource(own)))
            texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
            found |= {text for text in texts if isinstance(text, str) and text.isidentifier()}
    return found


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_plain(value: Any) -> bool:
    """Whether a table can hold a value."""
    if isinstance(value, (list, tuple)):
        return len(value) < 9 and all(map(is_plain, value))
    return isinstance(value, (bool, int, float, str))


if __name__ == "__main__":
    sys.exit(main())
