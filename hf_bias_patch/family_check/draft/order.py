"""How several projections share one map: which of the orders that a family can name it may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np

from hf_bias_patch.architecture.layout import ORDERS, fused
from hf_bias_patch.family_check.draft.config_keys import kv_heads_key
from hf_bias_patch.family_check.draft.seen import SeenProjection, SeenSite

__all__ = ["GROUPED", "Order", "kv_heads_of", "orders_of"]

GROUPED = ("grouped blocks", "per group")
"""The orders that hang on how many key-value heads there are."""


@dataclass(frozen=True)
class Order:
    """One order.

    Attributes:
        name: a key of `ORDERS`.
        projections: in order; none, where no map has several.
        sizes: (projection, entries of a head), where they need not be alike.
    """

    name: str
    projections: tuple[str, ...]
    sizes: tuple[tuple[str, int], ...] = field(default=())


def kv_heads_of(site: SeenSite) -> int:
    """Key-value heads of a site; 0 if its heads are not known."""
    query, key = (site.parts.get(name) for name in ("query", "key"))
    width = len(query.indices) // site.heads if site.heads and query else 0
    return len(key.indices) // width if width and key and len(key.indices) % width == 0 else site.heads


def orders_of(site: SeenSite, shared: Sequence[str], config: Mapping[str, Any]) -> tuple[Order, ...]:
    """The orders that a site's fused map may have, the likeliest first; none if no known one fits.

    Args:
        site: which.
        shared: the projections of that map; none, if it has no such map.
        config: plain values.
    """
    if not shared:
        return (Order("blocks", ()),)
    parts = {name: site.parts[name] for name in shared}
    axis, heads, kv_heads = next(iter(parts.values())).axis, site.heads, kv_heads_of(site)
    if not heads or not kv_heads:
        return tuple(_by_place(parts))
    sizes = {name: len(part.indices) // heads for name, part in _placed(parts)}
    if "v_head_dim" in config and sum(sizes.values()) * heads == axis and _per_head(parts, sizes):
        return (Order("per head", tuple(sizes), tuple(sizes.items())),)
    found = [
        Order(name, projections)
        for name in ORDERS
        for projections in permutations(parts)
        if _fits(fused(name, projections, axis, heads, kv_heads), parts)
    ]
    # With as many of them as of queries, groups and heads look alike; a config that counts them may have fewer.
    alike = [order for order in found if (order.name in GROUPED) == bool(kv_heads_key(config, kv_heads, ""))]
    return tuple(alike if kv_heads == heads and alike else found)


def _placed(parts: Mapping[str, SeenProjection]) -> list[tuple[str, SeenProjection]]:
    return sorted(parts.items(), key=lambda item: item[1].indices[0])


def _by_place(parts: Mapping[str, SeenProjection]) -> list[Order]:
    """Blocks, where that is seen without knowing heads."""
    names = tuple(name for name, _ in _placed(parts))
    axis = next(iter(parts.values())).axis
    return [Order("blocks", names)] if _fits(fused("blocks", names, axis, 1, 1), parts) else []


def _fits(views: Any, parts: Mapping[str, SeenProjection]) -> bool:
    if views is None:
        return False
    return all(
        set(views[name].take(np.arange(part.axis)).tolist()) == set(part.indices) for name, part in parts.items()
    )


def _per_head(parts: Mapping[str, SeenProjection], sizes: Mapping[str, int]) -> bool:
    """Whether a map has all of a head together, so many entries of each projection."""
    length, start = sum(sizes.values()), 0
    for name, part in _placed(parts):
        if any(not start <= index % length < start + sizes[name] for index in part.indices):
            return False
        start += sizes[name]
    return True
