"""Sites of one kind, repeated in layers, as the facts that a family has of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import numpy as np

from hf_bias_patch.attention.layout import ORDERS, fused
from hf_bias_patch.probing.draft.counts import kv_heads_key
from hf_bias_patch.probing.draft.files import Files
from hf_bias_patch.probing.draft.layers import by_layers
from hf_bias_patch.probing.draft.pattern import Numbering, reads_pattern, wild
from hf_bias_patch.probing.draft.seen import Part, SeenSite

__all__ = ["Group", "group"]


@dataclass(frozen=True)
class Group:
    """What a draft says of one kind of site.

    Attributes:
        stack, kind, maps, biases, reads, reads_first, dropout_after, dropout_after_first, conv1d: as in `Attention`.
        order: how fused maps are ordered; empty for blocks.
        heads, kv_heads: query heads, key-value heads; 0 if not seen.
        sizes: projection → entries of a head, where a fused map's are not alike.
        traps: name → what else its entry says (`layers` and `values`, `but`, `only`; nothing, if it is always there).
        in_files: maps as the files have them, where they fuse what is apart in memory; empty if they do not.
        doubts: what could not be told.
    """

    stack: str
    kind: str
    maps: dict[str, list[str]]
    biases: dict[str, str] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)
    reads_first: dict[str, str] = field(default_factory=dict)
    dropout_after: bool = False
    dropout_after_first: bool = False
    conv1d: bool = False
    order: str = ""
    heads: int = 0
    kv_heads: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    traps: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_files: dict[str, list[str]] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What is the same in every config."""
        return self.stack, self.kind, tuple((name, tuple(made)) for name, made in self.maps.items())

    @property
    def facts(self) -> tuple[Any, ...]:
        """What decides about folds, traps aside."""
        return self.order, tuple(self.reads.items()), tuple(self.reads_first.items()), tuple(self.biases.items())


def group(sites: Sequence[SeenSite], files: Files, config: Mapping[str, Any]) -> tuple[list[Group], list[str]]:
    """The kinds of sites, in the order they were seen, and what could not be put into words.

    Args:
        sites: of one model or tower.
        files: how its modules are called in the files.
        config: its own, as plain values.
    """
    kinds: dict[tuple[Any, ...], list[SeenSite]] = {}
    for site in _joined(sites):
        key = (site.kind, site.decoder, *((name, wild(part.module)) for name, part in site.parts.items()))
        kinds.setdefault(key, []).append(site)
    last = max((Numbering([s.own for s in same]).of(s.own)[1] for same in kinds.values() for s in same), default=0)
    found, lost = [], []
    for same in kinds.values():
        made = _group(same, files, config, last)
        if isinstance(made, str):
            lost.append(made)
        else:
            found.append(made)
    return found, lost


def _joined(sites: Sequence[SeenSite]) -> list[SeenSite]:
    """Sites of the same maps as one: attention in two halves uses a part of the value map each."""
    found: dict[tuple[tuple[str, str], ...], SeenSite] = {}
    for site in sites:
        key = tuple((name, part.module) for name, part in site.parts.items())
        old = found.get(key)
        if old is None:
            found[key] = site
            continue
        parts = {
            name: replace(part, indices=tuple(sorted({*part.indices, *old.parts[name].indices})))
            for name, part in site.parts.items()
        }
        traps = tuple(dict.fromkeys((*old.traps, *site.traps)))
        found[key] = replace(old, parts=parts, traps=traps, doubts=(*old.doubts, *site.doubts))
    return list(found.values())


def _group(sites: list[SeenSite], files: Files, config: Mapping[str, Any], last: int) -> Group | str:
    numbering = Numbering([site.own for site in sites])
    first = sites[0]
    if numbering.many:
        return f"{first.own}: more numbers in its name vary than a family can say"
    maps: dict[str, list[str]] = {}
    for projection, part in _in_order(first.parts):
        maps.setdefault(part.module, []).append(projection)
    order = _order(first, maps, "v_head_dim" in config, bool(kv_heads_key(config, first.heads, "")))
    if order is None:
        return f"{first.own}: how its map of several projections is laid out is none of {', '.join(ORDERS)}"
    at = {numbering.of(site.own): site for site in sites}
    traps = {trap: {place for place, site in at.items() if trap in site.traps} for site in sites for trap in site.traps}
    conditions = {trap: by_layers({place[1] for place in where}, {p[1] for p in at}, config) for trap, where in traps.items()}
    doubts = [doubt for site in sites for doubt in site.doubts]
    doubts += [f"`{trap}` in some layers only, and no list of the config says in which" for trap, c in conditions.items() if c is None]
    reads, reads_first, more = _reads(at, files, last)
    named = {files.name(module, numbering.pattern): made for module, made in maps.items()}
    return Group(
        stack="decoder" if first.decoder else "encoder",
        kind=first.kind,
        maps=named,
        biases=_biases(first, numbering),
        reads=reads,
        reads_first=reads_first,
        dropout_after=any(p.dropout for place, s in at.items() for p in s.parts.values() if place[1]),
        dropout_after_first=any(p.dropout for place, s in at.items() for p in s.parts.values() if not place[1]),
        conv1d=any(part.conv1d for part in first.parts.values()),
        order=order[0],
        heads=first.heads,
        kv_heads=order[1],
        sizes=order[2],
        traps={trap: condition or {} for trap, condition in conditions.items()},
        in_files=files.fused(maps, numbering.pattern),
        doubts=tuple(dict.fromkeys((*doubts, *more))),
    )


def _in_order(parts: Mapping[str, Part]) -> list[tuple[str, Part]]:
    """Projections as a family file lists them; those of one map in their order on its axis."""
    names = list(parts)
    modules = list(dict.fromkeys(part.module for part in parts.values()))
    return sorted(parts.items(), key=lambda item: (modules.index(item[1].module), item[1].indices[0], names.index(item[0])))


def _order(
    site: SeenSite, maps: Mapping[str, list[str]], latent: bool, has_kv_heads: bool
) -> tuple[str, int, dict[str, int]] | None:
    """The order of its fused map (empty for blocks or none), key-value heads, and sizes of a head that may differ.

    `latent`: whether the config has a size of its own for the heads of values; `has_kv_heads`: whether it counts
    key-value heads, so that a group with as many of them as of queries may have fewer elsewhere.
    """
    shared = next((made for made in maps.values() if len(made) > 1), None)
    width = len(site.parts["query"].indices) // site.heads if site.heads and "query" in site.parts else 0
    kv_heads = len(site.parts["key"].indices) // width if width else site.heads
    if shared is None:
        return "", kv_heads, {}
    parts = {name: site.parts[name] for name in shared}
    axis = next(iter(parts.values())).axis
    sizes = {name: len(part.indices) // site.heads for name, part in parts.items()} if site.heads else {}
    if latent and sizes and sum(sizes.values()) * site.heads == axis and _per_head(parts, sizes):
        return "per head", site.heads, sizes
    grouped = kv_heads == site.heads and has_kv_heads
    for order in ("blocks", "per group", *ORDERS) if grouped else ORDERS:
        for projections in permutations(shared):
            for heads, groups in ((site.heads, kv_heads), (site.heads, site.heads)):
                if heads and groups and _fits(fused(order, projections, axis, heads, groups), parts):
                    shared[:] = projections
                    return ("" if order == "blocks" else order), groups, {}
    return None


def _fits(views: Any, parts: Mapping[str, Part]) -> bool:
    if views is None:
        return False
    return all(set(views[name].take(np.arange(part.axis)).tolist()) == set(part.indices) for name, part in parts.items())


def _per_head(parts: Mapping[str, Part], sizes: Mapping[str, int]) -> bool:
    """Whether a map has all of a head together, so many entries of each projection."""
    length, start = sum(sizes.values()), 0
    for name, part in sorted(parts.items(), key=lambda item: item[1].indices[0]):
        if any(not start <= index % length < start + sizes[name] for index in part.indices):
            return False
        start += sizes[name]
    return True


def _biases(site: SeenSite, numbering: Numbering) -> dict[str, str]:
    """Biases that are not called after their map."""
    return {
        name: numbering.pattern(part.bias)
        for name, part in site.parts.items()
        if part.bias and part.bias not in (f"{part.module}.bias", f"{part.module}bias")
    }


def _reads(
    at: Mapping[tuple[int, int], SeenSite], files: Files, last: int
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Projection → the norm it reads, the one it reads in the first layer, and what could not be told."""
    reads, first, doubts = {}, {}, []
    for name in ("query", "key", "value"):
        parts = {place: site.parts[name] for place, site in at.items() if name in site.parts}
        norms = {place: part.reads for place, part in parts.items()}
        named = {place: (part.reads, part.module) for place, part in parts.items()}
        found = reads_pattern(named, last) if named else ("", "")
        if found is None:
            doubts.append(f"its {name} reads layer norms that follow no one pattern over the layers")
            continue
        if found[0] or found[1] not in ("", "none"):
            reads[name] = _both(found[0], norms, files)
            if found[1]:
                first[name] = _both(found[1], norms, files)
    return reads, first, doubts


def _both(pattern: str, norms: Mapping[tuple[int, int], str], files: Files) -> str:
    """A norm's name in memory, and in the files where that is another, with `|` between them."""
    example = next((name for name in norms.values() if wild(name) == re.sub(r"\{\w+\}", "#", wild(pattern))), "")
    if not example or pattern == "none":
        return pattern or "none"
    return files.alike(example, pattern)
