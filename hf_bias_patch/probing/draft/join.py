"""Whether an existing family says the same as a draft; then the model type belongs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hf_bias_patch.attention.family import Attention, Family, families, parsed
from hf_bias_patch.probing.draft.text import types_text

__all__ = ["joined", "same_as"]


def same_as(text: str) -> Family | None:
    """The existing family with the facts of a drafted one; None if there is none.

    Names that an existing family has more of (`|`) do no harm, nor do its entries for other names: they say something
    of checkpoints that have them.

    Args:
        text: of the drafted file.
    """
    drafted = parsed("draft", text)
    return next((family for family in families() if _covers(family, drafted)), None)


def _covers(family: Family, drafted: Family) -> bool:
    same = (family.stacks, family.towers, family.handled, family.memory, family.bridge) == (
        drafted.stacks, drafted.towers, drafted.handled, drafted.memory, drafted.bridge,
    )  # fmt: skip
    if not same or len(family.attention) != len(drafted.attention):
        return False
    return all(any(_says(mine, one) for mine in family.attention) for one in drafted.attention)


def _says(mine: Attention, one: Attention) -> bool:
    """Whether an entry says what a drafted one does, under the same names and perhaps others."""
    if sorted(map(repr, mine.blockers)) != sorted(map(repr, one.blockers)):
        return False
    bare = [
        replace(each, maps={}, blockers=(), reads="", reads_first="", shift=False, post_norm=False)
        for each in (mine, one)
    ]
    if bare[0] != bare[1] or mine.shift or mine.post_norm:
        return False
    return (
        _named(mine.maps, one.maps) and _named(_all(mine.reads), _all(one.reads))
        and _named(_all(mine.reads_first), _all(one.reads_first))
    )  # fmt: skip


def _all(reads: str | Mapping[Any, str]) -> dict[str, Any]:
    if isinstance(reads, str):
        return {reads: "all"} if reads else {}
    return {f"{norm}": projection for projection, norm in reads.items()}


def _named(mine: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    """Whether two tables have the same entries, the first perhaps under more names."""
    if len(mine) != len(one):
        return False
    return all(
        any(set(name.split("|")) <= set(other.split("|")) and made == mine[other] for other in mine)
        for name, made in one.items()
    )


def joined(existing: str, model_types: Sequence[str]) -> str:
    """An existing file's text with other model types; what stands around them stays.

    Args:
        existing: its text.
        model_types: all of them, old and new.
    """
    before, _, rest = existing.partition("model_types = [")
    return f"{before}{types_text(model_types)}{rest.partition(']')[2]}"
