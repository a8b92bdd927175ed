"""How much of a stranger's file a message shows: a value may be long, deeply nested, or one of many thousands."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

__all__ = ["brief", "listed"]

_LONGEST = 200
"""Letters of a name in a message: what a stranger's file is called may be any text."""

_REPR = reprlib.Repr()
_REPR.maxstring, _REPR.maxother, _REPR.maxlong = _LONGEST, 80, 40
_REPR.maxlist = _REPR.maxdict = 8
_REPR.maxlevel = 3


def brief(value: Any) -> str:
    """A value of a file as Python writes it, as far as a message has room: it may be long, and deeply nested."""
    return _REPR.repr(value)


def listed(names: Sequence[str], shown: int = 3) -> str:
    """The first of some names, each cut to a readable length, and how many more there are."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…" for name in names[:shown]) + more
