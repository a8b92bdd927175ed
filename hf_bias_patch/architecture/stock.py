"""Tables of what stock transformers does, an entry a model type.

Scripts make them (`make tables`), so that nothing here imports transformers.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import resources
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["entry", "named_in", "parse_toml"]

parse_toml = tomllib.loads


def entry(table: str, model_type: object) -> Any:
    """What a table says of a model type; an empty mapping where it says nothing.

    Only the type's own line is parsed: a whole table takes longer than all else that `inspect` does.

    Args:
        table: a file of this folder, without its ending.
        model_type: of a config.
    """
    return _parsed(table, model_type) if isinstance(model_type, str) else {}


@cache
def _parsed(table: str, model_type: str) -> Any:
    line = _lines(table).get(model_type)
    return parse_toml(line)[model_type] if line else {}


def named_in(table: str) -> tuple[str, ...]:
    """Every model type that a table says something of."""
    return tuple(_lines(table))


@cache
def _lines(table: str) -> dict[str, str]:
    text = resources.files(__package__).joinpath(f"{table}.toml").read_text("utf-8")
    return {line[1:].partition('"')[0]: line for line in text.splitlines() if line.startswith('"')}
