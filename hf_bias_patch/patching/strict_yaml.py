"""YAML (and so JSON) in which no key stands twice: the last one would win, and the first be forgotten silently."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["load"]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, and strict about keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # Before the merge keys (`<<`) are resolved: what they bring in may be overridden, that is their purpose.
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} stands there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(text: str) -> Any:
    """What a YAML document holds, as plain Python values.

    Raises:
        yaml.YAMLError: it is no YAML, names a Python type, or a key of a mapping stands there twice.
        ValueError, RecursionError: a value is no date although it looks like one, or the nesting is too deep.
    """
    return yaml.load(text, _Loader)
