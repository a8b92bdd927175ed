"""What a check of the family table runs: each model type at its default, as published, and with values changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches

from hf_bias_patch.errors import FamilyError
from hf_bias_patch.probing.published import published
from hf_bias_patch.probing.small import model_types
from hf_bias_patch.probing.sweep import Item
from hf_bias_patch.probing.typed import NotBuiltError, changes_of_type
from hf_bias_patch.probing.variations import Change, pairs

__all__ = ["known_types", "sweep_items"]


def known_types(names: Sequence[str]) -> Collection[str]:
    """The model types that are named; all of the installed transformers if none is.

    Raises:
        FamilyError: transformers can build no small model of one of them.
    """
    known = model_types()
    if unknown := sorted(set(names) - set(known)):
        near = [close for name in unknown for close in get_close_matches(name.lower(), known, n=3)]
        raise FamilyError(
            f"No small model of type {' or '.join(map(repr, unknown))} can be built",
            why="The installed transformers has no such type, or it needs a package that is missing",
            remedy=f"Close to it: {', '.join(near)}" if near else "",
        )
    return names or known


def sweep_items(names: Sequence[str], changed: int = 0) -> Iterator[Item]:
    """The items of a sweep, made one by one.

    Args:
        names: model types; all of the installed transformers if empty.
        changed: how many config values that attention may read are changed at once: 0, each one (1), or every two as
            well (2).

    Raises:
        FamilyError: as for `known_types`.
    """
    return (item for name in known_types(names) for item in _items(name, changed))


def _items(name: str, changed: int) -> Iterator[Item]:
    yield Item(name)
    yield from (Item(name, one.changes, one.name) for one in published(name))
    changes = _changes(name) if changed else ()
    yield from (Item(name, (change,)) for change in changes)
    if changed > 1:
        yield from (Item(name, pair) for pair in pairs(changes))


def _changes(name: str) -> tuple[Change, ...]:
    try:
        return changes_of_type(name)
    except NotBuiltError:  # the check of the default says it
        return ()
