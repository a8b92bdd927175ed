"""Config values that published checkpoints have and the defaults of their types have not.

The table must hold for the configs that people have, not only for those that transformers makes by itself. Each TOML
file holds checkpoints: name → model type and values as in its config.json. Only what decides how attention is computed
is listed, and only what differs from the installed transformers' default. Sizes are those of a small model: a count of
key-value heads, a window or a block is less than in the checkpoint, and in the same relation to the rest. The values
were noted by hand, after the checkpoints' config.json or the scripts that converted them; nothing here is downloaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from hf_bias_patch.family_check.variations import Change

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Published", "published"]


@dataclass(frozen=True)
class Published:
    """A checkpoint and what its config.json says.

    Attributes:
        name: on the Hub.
        model_type: its type.
        changes: of the type's default config.
    """

    name: str
    model_type: str
    changes: tuple[Change, ...]


def published(model_type: str = "") -> tuple[Published, ...]:
    """The checkpoints of a model type whose configs are no defaults, in the order of the files; of all, if empty."""
    return tuple(one for one in _all() if model_type in ("", one.model_type))


@cache
def _all() -> tuple[Published, ...]:
    found: dict[str, Published] = {}
    files = sorted(resources.files(__name__).iterdir(), key=lambda file: file.name)
    for file in files:
        if file.name.endswith(".toml"):
            for name, values in tomllib.loads(file.read_text("utf-8")).items():
                if name in found:
                    raise AssertionError(f"{name} is there twice")
                model_type = values.pop("model_type")
                found[name] = Published(name, model_type, tuple(_changes(values)))
    return tuple(found.values())


def _changes(values: Mapping[str, Any], path: str = "") -> Iterator[Change]:
    """Nested tables as dotted keys."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _changes(value, f"{path}{key}.")
        else:
            yield Change(path + key, value)
