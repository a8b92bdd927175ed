"""Hints for unknown models: types with a similar spelling, families with the same tensor names. Never a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice

from hf_bias_patch.architecture.family import Attention, Family, families
from hf_bias_patch.architecture.name_patterns import KINDS, LayerIndex, Scope, first_there, parameter, places

__all__ = ["alike", "close_to", "hint"]

_SHOWN = 3

_MOST = 5_000
"""Names that are looked at, by all families: a likeness shows in some layers."""


def close_to(unknown: Iterable[str], known: Sequence[str]) -> str:
    """Names that are spelt like unknown ones, as a sentence for an error; empty if there are none."""
    near = [close for name in unknown for close in get_close_matches(name.lower(), known, n=3)]
    return f"Close to it: {', '.join(near)}" if near else ""


def alike(names: Iterable[str]) -> tuple[str, ...]:
    """The families that find all of their attention maps among some parameter names, the best first.

    Better are those that recognise more maps; then those all of whose norms are there too.
    """
    tensors = list(names)
    maps = (name for name in tensors if any(f".{kind}" in f".{name}" for kind in KINDS))
    attention = list(islice(maps, _MOST))
    scores = {family.name: _score(family, attention) for family in families() if family.attention}
    best = max(scores.values(), default=(0, 0))
    return tuple(name for name, score in scores.items() if score == best and score[0])


def hint(names: Iterable[str]) -> str:
    """What an unknown model looks like, as a sentence; empty if like nothing known."""
    found = alike(names)
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    word = "family" if len(found) == 1 else "families"
    return f"It looks like the {word} {', '.join(found[:_SHOWN])}{more} (same names), which proves nothing"


def _score(family: Family, names: list[str]) -> tuple[int, int]:
    """How well a family fits: the number of its maps found (0 if one is missing), then minus its missing norms."""
    scores: dict[tuple[str, ...], tuple[int, int]] = {}
    for attention in family.attention:
        modules = tuple(attention.maps)
        found = [places(first_there(module, names, Scope()), names, Scope()) for module in modules]
        if not any(found):
            continue  # the family has more kinds of attention than this model: a cross-attention, say
        prefixes = _prefixes(found)
        if not prefixes:
            return 0, 0
        prefix, count = max(prefixes.items(), key=lambda item: item[1])
        # The same maps may stand there for several configs, with other norms: they count once, at their best.
        scores[modules] = max(scores.get(modules, (0, 0)), (count, -_lacking(attention, prefix, names)))
    return sum(maps for maps, _ in scores.values()), sum(lacking for _, lacking in scores.values())


def _prefixes(found: Sequence[Mapping[str, set[LayerIndex]]]) -> dict[str, int]:
    """Prefix → maps under it, for prefixes that have all of a site's maps."""
    common = set.intersection(*(set(each) for each in found))
    return {prefix: sum(len(each[prefix]) for each in found) for prefix in common}


def _lacking(attention: Attention, prefix: str, names: list[str]) -> int:
    """How many of the norms that the facts name are not there, in layer 1."""
    patterns = {attention.reads} if isinstance(attention.reads, str) else set(attention.reads.values())
    there = set(names)
    layers = {"stage": 0, "layer": 1, "before": 0, "last": 1}
    wanted = [pattern.format(**layers).split("|") for pattern in patterns if pattern not in ("", "none")]
    return sum(
        all(parameter(prefix + module, ("weight", "gamma"), there) is None for module in modules) for modules in wanted
    )
