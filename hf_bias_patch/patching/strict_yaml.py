"""YAML (and so JSON) in which no key stands twice: the last one would win, and the first be forgotten silently."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from hf_bias_patch.errors import BiasPatchError

__all__ = ["load", "read_fields"]


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


def read_fields(path: str | Path, what: str, error: type[BiasPatchError], remedy: str) -> dict[str, Any]:
    """The mapping that a YAML (or JSON) file holds, its keys as text.

    Args:
        path: the file.
        what: what it should be, for errors: `The recipe`.
        error: what to raise if it cannot be read, is no mapping, or has a key twice.
        remedy: what to write instead of something that is no mapping.
    """
    try:
        content = load(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise error(f"{what} {path} cannot be read: {problem}") from None
    if not isinstance(content, dict):
        raise error(f"{what} {path} is no mapping of fields", remedy=remedy)
    return {str(key): value for key, value in content.items()}
