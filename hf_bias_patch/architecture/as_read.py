"""A config as transformers reads it: other names of its keys, values that it leaves out, configs of its parts.

What a config class does is a table, `stock_configs.toml`, for the keys that families ask for. Nothing of it is ever
written: the config.json of a variant is the source's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hf_bias_patch.architecture.stock import entry

__all__ = ["as_read"]

TABLE = "stock_configs"
"""Model type → `names` (another name of a key → the key), `defaults` (key → value), `follows` (key → the key whose
value it has where it is left out or null), and `parts`, the configs inside. Of a part: its `type`; the `values` it has
where the config leaves it out, `kept` by one that leaves out some of them; whether it is `fixed` (of that type whatever
it says), `optional` (there is none where the config leaves it out; nor, of some, where it has the key `unless`), `flat`
(the keys of the config itself are its own then); and the key of the `other` config that stands for it then, or goes
`over` it."""


LEVELS = 8
"""Configs inside configs that are read; none of transformers has half as many."""


def as_read(config: Mapping[str, Any], levels: int = LEVELS) -> Mapping[str, Any]:
    """A config with every key that families ask for, as the config class of its model type has it.

    Args:
        config: a parsed config.json, or a part of one. One of a type that transformers lacks is given back as it is.
        levels: how deep to go; what lies deeper is given back as it is, too.
    """
    facts = entry(TABLE, config.get("model_type")) if levels else {}
    if not facts:
        return config
    read = {**facts.get("defaults", {}), **config}
    for key, other in facts.get("follows", {}).items():
        if read.get(key) is None and other in read:
            read[key] = read[other]
    names = facts.get("names", {})  # config classes look at other names last, when what follows is settled
    read |= {key: config[name] for name, key in names.items() if name in config}
    read |= {name: read[key] for name, key in names.items() if key in read}
    return read | dict(_parts(config, facts.get("parts", {}), levels - 1))


def _parts(config: Mapping[str, Any], parts: Mapping[str, Any], levels: int) -> Iterator[tuple[str, Any]]:
    for key, facts in parts.items():
        part = _given(config, key, facts)
        if part is None and not facts.get("optional") and config.get(facts.get("unless", "")) is None:
            part = facts.get("values", {})
        if isinstance(part, Mapping):
            part = {**facts.get("values", {}), **part} if facts.get("kept") else part
            own = "" if facts.get("fixed") else part.get("model_type")
            yield key, as_read({**part, "model_type": own or facts.get("type", "")}, levels)


def _given(config: Mapping[str, Any], key: str, facts: Mapping[str, Any]) -> Any:
    """What a config says of one of its parts; None if it says nothing."""
    part, over = config.get(key), config.get(facts.get("over", ""))
    part = config.get(facts.get("other", "")) if part is None else part
    if part is None and facts.get("flat"):
        part = {name: value for name, value in config.items() if name != "model_type"}
    if isinstance(over, Mapping) and isinstance(part or {}, Mapping):
        part = {**(part or {}), **as_read({**over, "model_type": facts.get("type", "")}, 1)}
    return part
