"""Sites of one kind, repeated in layers, as the facts that a family has of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hf_bias_patch.architecture.layout import ORDERS
from hf_bias_patch.family_check.draft.config_keys import by_layers
from hf_bias_patch.family_check.draft.names import ModuleNames, Numbering, reads_pattern, wild
from hf_bias_patch.family_check.draft.order import Order, kv_heads_of, orders_of
from hf_bias_patch.family_check.draft.seen import SeenProjection, SeenSite

__all__ = ["SiteKind", "group"]


@dataclass(frozen=True)
class SiteKind:
    """What a draft says of one kind of site.

    Attributes:
        stack, kind, maps, biases, reads, reads_first, dropout_after, dropout_after_first, conv1d: as in `Attention`.
        orders: how a fused map may be ordered, by what was seen; the first is taken.
        heads, kv_heads: query heads, key-value heads; 0 if not seen.
        blockers: name → what else its entry says (`layers` and `values`, `but`, `only`; empty if it is always there).
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
    orders: tuple[Order, ...] = (Order("blocks", ()),)
    heads: int = 0
    kv_heads: int = 0
    blockers: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_files: dict[str, list[str]] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What is the same in every config."""
        return self.stack, self.kind, tuple((name, tuple(sorted(made))) for name, made in self.maps.items())

    @property
    def order(self) -> Order:
        """How its fused map is ordered."""
        return self.orders[0]

    def ordered(self, orders: tuple[Order, ...]) -> SiteKind:
        """The kind of site with other orders of its fused map."""
        maps = {name: list(orders[0].projections) if len(made) > 1 else made for name, made in self.maps.items()}
        return replace(self, orders=orders, maps=maps)


def group(sites: Sequence[SeenSite], files: ModuleNames, config: Mapping[str, Any]) -> tuple[list[SiteKind], list[str]]:
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
    last = _last([same for same in kinds.values() if not same[0].decoder] or list(kinds.values()))
    found, lost = [], []
    for same in kinds.values():
        made = _group(same, files, config, last)
        if isinstance(made, str):
            lost.append(made)
        else:
            found.append(made)
    return found, lost


def _last(kinds: Sequence[Sequence[SeenSite]]) -> int:
    """The last layer of several kinds of sites: of the encoder, where there is one, however many the decoder has."""
    return max((Numbering([s.own for s in same]).of(s.own)[1] for same in kinds for s in same), default=0)


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
        blockers = tuple(dict.fromkeys((*old.blockers, *site.blockers)))
        found[key] = replace(old, parts=parts, blockers=blockers, doubts=(*old.doubts, *site.doubts))
    return list(found.values())


def _group(sites: list[SeenSite], files: ModuleNames, config: Mapping[str, Any], last: int) -> SiteKind | str:
    numbering = Numbering([site.own for site in sites])
    first = _headed(sites[0], config)
    if numbering.many:
        return f"{first.own}: more numbers in its name vary than a family can say"
    maps: dict[str, list[str]] = {}
    for projection, part in _in_order(first.parts):
        maps.setdefault(part.module, []).append(projection)
    shared = next((module for module, made in maps.items() if len(made) > 1), None)
    orders = orders_of(first, maps[shared] if shared else [], config)
    if not orders:
        return f"{first.own}: how its map of several projections is laid out is none of {', '.join(ORDERS)}"
    at = {numbering.of(site.own): site for site in sites}
    blockers = {
        name: {place for place, site in at.items() if name in site.blockers} for site in sites for name in site.blockers
    }
    conditions = {
        name: by_layers({place[1] for place in where}, {p[1] for p in at}, config) for name, where in blockers.items()
    }
    doubts = [doubt for site in (first, *sites) for doubt in site.doubts]
    doubts += [
        f"`{name}` in some layers only, and no list of the config says in which"
        for name, c in conditions.items()
        if c is None
    ]
    reads, reads_first, more = _reads(at, files, last)
    if shared:
        maps[shared] = list(orders[0].projections)
    apart = files.fuses(maps)  # then the files have an entry of their own
    names = [numbering.pattern(module) if apart else files.name(module, numbering.pattern) for module in maps]
    return SiteKind(
        stack="decoder" if first.decoder else "encoder",
        kind=first.kind,
        maps=dict(zip(names, maps.values(), strict=True)),
        biases=_biases(first, numbering),
        reads=reads,
        reads_first=reads_first,
        dropout_after=any(p.dropout for place, s in at.items() for p in s.parts.values() if place[1]),
        dropout_after_first=any(p.dropout for place, s in at.items() for p in s.parts.values() if not place[1]),
        conv1d=any(part.conv1d for part in first.parts.values()),
        orders=orders,
        heads=first.heads,
        kv_heads=kv_heads_of(first),
        blockers={name: condition or {} for name, condition in conditions.items()},
        in_files=files.fused(maps, numbering.pattern) if apart else {},
        doubts=tuple(dict.fromkeys((*doubts, *more))),
    )


def _headed(site: SeenSite, config: Mapping[str, Any]) -> SeenSite:
    """A site with the head counts from the config, where none were seen."""
    said = next((config[key] for key in ("num_attention_heads", "n_head", "num_heads") if key in config), 0)
    if site.heads or type(said) is not int or said < 1:
        return site
    return replace(site, heads=said, doubts=(*site.doubts, f"its heads were not seen; the config says {said}"))


def _in_order(parts: Mapping[str, SeenProjection]) -> list[tuple[str, SeenProjection]]:
    """Projections as a family file lists them; those of one map in their order on its axis."""
    names = list(parts)
    modules = list(dict.fromkeys(part.module for part in parts.values()))
    return sorted(
        parts.items(), key=lambda item: (modules.index(item[1].module), item[1].indices[0], names.index(item[0]))
    )


def _biases(site: SeenSite, numbering: Numbering) -> dict[str, str]:
    """Biases that are not called after their map."""
    return {
        name: numbering.pattern(part.bias)
        for name, part in site.parts.items()
        if part.bias and part.bias not in (f"{part.module}.bias", f"{part.module}bias")
    }


def _reads(
    at: Mapping[tuple[int, int], SeenSite], files: ModuleNames, last: int
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


def _both(pattern: str, norms: Mapping[tuple[int, int], str], files: ModuleNames) -> str:
    """A norm's name in memory, and in the files where that is another, with `|` between them."""
    example = next((name for name in norms.values() if wild(name) == re.sub(r"\{\w+\}", "#", wild(pattern))), "")
    if not example or pattern == "none":
        return pattern or "none"
    return files.alike(example, pattern)
