"""Pieces of Markdown that cards are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hf_bias_patch.publish.base import BaseRef

__all__ = ["and_list", "link", "table"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a `|` in a cell is no border."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def and_list(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def link(base: BaseRef) -> str:
    """A base by name and commit, as a link where the Hub has it."""
    if not base.on_hub:
        return f"`{base.name}`"
    at = f" at `{base.revision}`" if base.revision else ""
    if base.revision and re.fullmatch("[0-9a-f]{40}", base.revision):
        at = f" at commit `{base.revision[:12]}`"
    return f"[{base.name}](https://hf.co/{base.name}){at}"
