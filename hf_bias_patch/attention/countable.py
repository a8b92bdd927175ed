"""Refuses a config.json by which a library would make more modules than any file has tensors for.

Transformers makes a module for each layer that config.json counts before it looks at a single tensor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hf_bias_patch.checkpoint.shorten import brief
from hf_bias_patch.errors import CheckpointError

__all__ = ["refuse_countless"]

_COUNTS = re.compile(r"(.*_)?(n?_?layers?|depths?|blocks|stages|experts|codebooks|quantizers)(_.*)?", re.IGNORECASE)
_FREE = 1000
"""What a count may always be: some count what has no tensors."""


def refuse_countless(config: Mapping[str, Any], tensors: Collection[str]) -> None:
    """Refuse counts of modules that are far beyond the number of tensors; to be called before a model is made.

    Args:
        config: a parsed config.json.
        tensors: names of the checkpoint's tensors.

    Raises:
        CheckpointError: there is one; it is named.
    """
    most = max(_FREE, 10 * len(tensors))
    for key, value in _numbers(config):
        if value > most:
            raise CheckpointError(
                f"config.json: `{key}` is {brief(value)}, and the checkpoint has {len(tensors):,} tensors",
                why="A model of so many parts would not fit into any memory",
                remedy="Use the config.json that was saved with these weights",
            )


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every count of modules in a config, and in those inside it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", count) for inner, count in _numbers(value))
        elif _COUNTS.fullmatch(key):
            several = value if isinstance(value, list) else [value]
            yield from ((key, count) for count in several if isinstance(count, int | float))
