"""Token ids that a config names, and whether the model has them: published configs name some that it does not.

A padding token that was added to the tokenizer alone has the number of the first row that the embedding lacks; others
say -1 for none, or give several ids where one is meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["first_known", "pad_of", "special_ids", "unknown_ids", "vocabulary_size"]

_FILES = ("config.json", "generation_config.json")
_PARTS = ("encoder", "decoder", "text_config")


def vocabulary_size(config: Any) -> int | None:
    """Rows of the smallest embedding that a config describes; None where it does not say."""
    parts = [config, *(getattr(config, part, None) for part in _PARTS)]
    sizes = [getattr(part, "vocab_size", None) for part in parts]
    return min((size for size in sizes if isinstance(size, int)), default=None)


def first_known(values: Sequence[Any], size: int | None) -> int | None:
    """The first of these config values that is a token id of the vocabulary. Of a list, its first entry counts.

    Args:
        values: whatever the config says: ids, lists of ids, None.
        size: rows of the embedding; None where that is not known.
    """
    ids = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return next((item for item in ids if _is_id(item) and item >= 0 and (size is None or item < size)), None)


def pad_of(config: Any) -> int:
    """The id that fills padded positions: the model's own, else its end-of-sequence id, else 0."""
    named = [getattr(config, name, None) for name in ("pad_token_id", "eos_token_id")]
    return first_known([*named, 0], vocabulary_size(config)) or 0


def special_ids(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The ids of a config with the fields that name them, those of lists one by one."""
    for key, value in config.items():
        if str(key).endswith(("_token_id", "_token_ids")):
            yield from ((key, item) for item in (value if isinstance(value, list) else [value]) if _is_id(item))


def unknown_ids(folder: Path, size: int | None) -> str:
    """A sentence on token ids that the configs name and the vocabulary lacks; empty if none is known to be missing."""
    found: dict[str, str] = {}
    for name in _FILES:
        try:
            config = json.loads((folder / name).read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        ids = special_ids(config) if isinstance(config, dict) else ()
        for key, item in ids:
            if size is not None and not 0 <= item < size:
                found.setdefault(f"{key} {item}", name)
    if size is None or not found:
        return ""
    named = ", ".join(f"{what} ({file})" for what, file in found.items())
    return f"The model has the token ids 0 to {size - 1:,}, and none of these: {named}."


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
