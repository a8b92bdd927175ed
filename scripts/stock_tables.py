"""What the scripts that make tables of transformers share: the form of a table, and holding one against a new one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

__all__ = ["save", "text_of"]

FOLDER = Path(__file__).parents[1] / "hf_bias_patch" / "architecture"
MADE_FROM = "# Made from transformers "


def text_of(header: str, entries: Mapping[str, Any]) -> str:
    """A table as TOML, a line for each model type."""
    version = f"{MADE_FROM}{transformers.__version__}.\n"
    return header + version + "".join(f"{json.dumps(name)} = {_value(entries[name])}\n" for name in sorted(entries))


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else json.dumps(key)


def save(name: str, text: str) -> int:
    """Write a table; with `--check` on the command line, say whether it is what stands there.

    Returns:
        The exit code: 1 if the table is another.
    """
    target = FOLDER / f"{name}.toml"
    old = target.read_text("utf-8") if target.exists() else ""
    if "--check" not in sys.argv:
        target.write_text(text, "utf-8")
        print(f"{target}: {sum(line.startswith(chr(34)) for line in text.splitlines())} model types")
        return 0
    changed = sorted(set(text.splitlines()) ^ set(old.splitlines()))
    for line in changed[:20]:
        print(("new: " if line in text.splitlines() else "old: ") + line[:300])
    print(f"{target}: {len(changed)} lines differ" if changed else f"{target}: as transformers has it")
    return int(bool(changed))
