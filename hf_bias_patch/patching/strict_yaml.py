"""YAML (and so JSON) that refuses a key given twice: the last would win silently, and the first be lost.

Nor do some lines stand for more than they have room for: `*name` repeats what `&name` marks, and a few lines of
repeated repetitions would fill any memory.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from hf_bias_patch.checkpoint.paths import open_regular
from hf_bias_patch.errors import BiasPatchError

__all__ = ["load", "read_fields"]


_LARGEST = 1_000_000
"""Characters of a file; and its values, what repeats counted as often as it stands there."""

_DIGITS = 100
"""Of a number: reading longer ones takes ever more work, and none is meant."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, strict about keys, repetitions and numbers."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _size(node, {}, set()) > _LARGEST:
            raise yaml.composer.ComposerError(
                None, None, f"repetitions (*name) make more than {_LARGEST:,} values of it", node.start_mark
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # Before the merge keys (`<<`) are resolved: what they bring in may be overridden, that is their purpose.
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} occurs twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, int], within: set[int]) -> int:
    """How many values a node stands for."""
    if id(node) in within:
        raise yaml.composer.ComposerError(None, None, "a value contains itself", node.start_mark)
    if id(node) not in known:
        pairs = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = (part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,)))
        known[id(node)] = 1 + sum(_size(part, known, {*within, id(node)}) for part in parts)
    return known[id(node)]


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    if len(node.value) > _DIGITS:
        raise yaml.constructor.ConstructorError(
            None, None, f"a number of {len(node.value):,} characters", node.start_mark
        )
    return _MAKERS[node.tag](loader, node)


_MAKERS = {
    "tag:yaml.org,2002:int": yaml.SafeLoader.construct_yaml_int,
    "tag:yaml.org,2002:float": yaml.SafeLoader.construct_yaml_float,
}
for _tag in _MAKERS:
    _Loader.add_constructor(_tag, _number)


def load(text: str) -> Any:
    """What a YAML document holds, as plain Python values.

    Raises:
        yaml.YAMLError: it is no YAML, names a Python type, a key of a mapping occurs twice, or repetitions make
            too much of it.
        ValueError, RecursionError: a value is not a date although it looks like one, or the nesting is too deep.
    """
    return yaml.load(text, _Loader)


def read_fields(path: str | Path, what: str, error: type[BiasPatchError], remedy: str) -> dict[str, Any]:
    """The mapping that a YAML (or JSON) file holds, its keys as text.

    Args:
        path: the file.
        what: what it should be, for errors: `The recipe`.
        error: what to raise if it cannot be read, is not a mapping, or has a key twice.
        remedy: what to write instead of something that is not a mapping.
    """
    try:
        with open_regular(Path(path)) as file:
            text = file.read(4 * _LARGEST + 1).decode("utf-8")
        if len(text) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST:,} characters")
        content = load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise error(f"{what} {path} cannot be read: {problem}") from None
    if not isinstance(content, dict):
        raise error(f"{what} {path} is not a mapping of fields", remedy=remedy)
    return {str(key): value for key, value in content.items()}
