"""Where one projection lives inside a fused axis. The only owner of fused, interleaved and grouped layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ORDERS", "View", "fused", "sized"]


@dataclass(frozen=True)
class View:
    """The part of an output axis that belongs to one projection.

    The axis is seen as `runs` equal runs of `length` entries; the projection owns entries `start:stop` of each run,
    in order. That covers every layout in use:

    | layout | runs | length | start:stop |
    |---|---|---|---|
    | a map of its own | 1 | n | 0:n |
    | blocks [q\\|k\\|v] (GPT-2), the key | 1 | 3n | n:2n |
    | interleaved per head (NeoX, BLOOM), the key | heads | 3d | d:2d |
    | grouped (Falcon), the queries | groups | (q+2)d | 0:qd |
    """

    runs: int
    length: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not (self.runs > 0 and 0 <= self.start < self.stop <= self.length):
            raise ValueError(f"no part of an axis: {self}")

    @classmethod
    def whole(cls, size: int) -> View:
        """All of an axis of `size` entries."""
        return cls(1, size, 0, size)

    @property
    def axis(self) -> int:
        """Entries of the whole axis."""
        return self.runs * self.length

    @property
    def size(self) -> int:
        """Entries the projection owns."""
        return self.runs * (self.stop - self.start)

    @property
    def is_whole(self) -> bool:
        """Whether the projection owns the axis alone."""
        return self.size == self.axis

    def take(self, array: np.ndarray, axis: int = 0) -> np.ndarray:
        """The projection's entries of `array` along `axis`, as a copy in the projection's own order."""
        runs = self._runs(array, axis)
        part = runs[(slice(None),) * (axis + 1) + (slice(self.start, self.stop),)]
        return part.reshape(*array.shape[:axis], self.size, *array.shape[axis + 1 :]).copy()

    def put(self, array: np.ndarray, values: Any, axis: int = 0) -> None:
        """Write `values` (an array of `size` entries along `axis`, or a scalar) into `array`, in place."""
        runs = self._runs(array, axis)
        part = runs[(slice(None),) * (axis + 1) + (slice(self.start, self.stop),)]
        assert np.shares_memory(runs, array), "only contiguous arrays can be written through a view"
        part[...] = np.reshape(values, part.shape) if np.ndim(values) else values

    def positions(self, start: int, stop: int) -> slice | np.ndarray:
        """The projection's places on the axis that lie within `start:stop`: a slice where it has a single run."""
        if self.runs == 1:
            low = min(max(self.start, start), stop)
            return slice(low, max(low, min(self.stop, stop)))
        places = self.take(np.arange(self.axis))
        return places[(places >= start) & (places < stop)]

    def _runs(self, array: np.ndarray, axis: int) -> np.ndarray:
        if array.shape[axis] != self.axis:
            raise ValueError(f"axis {axis} has {array.shape[axis]} entries, the layout describes {self.axis}")
        return array.reshape(*array.shape[:axis], self.runs, self.length, *array.shape[axis + 1 :])


def fused(order: str, projections: Sequence[str], axis: int, heads: int, kv_heads: int) -> dict[str, View] | None:
    """Where each of several projections is on one axis; None where the sizes do not fit that order.

    Args:
        order: a key of `ORDERS`.
        projections: those on the axis, in order.
        axis: its entries.
        heads, kv_heads: query heads, and heads of keys and values.
    """
    return ORDERS[order](list(projections), axis, heads, kv_heads)


def sized(parts: Mapping[str, int], axis: int, heads: int) -> dict[str, View] | None:
    """Where several projections are on one axis that has all of a head together; None where the sizes do not fit.

    Args:
        parts: projection → entries of one of its heads, in order (multi-head latent attention has other ones for keys
            than for values).
        axis: entries of the axis.
        heads: how many heads are on it.
    """
    if heads * sum(parts.values()) != axis:
        return None
    return _cut(list(parts), heads, axis, list(parts.values()))


Views = dict[str, View] | None


def _blocks(projections: list[str], axis: int, heads: int, kv_heads: int) -> Views:
    return _cut(projections, 1, axis, [1] * len(projections))


def _grouped_blocks(projections: list[str], axis: int, heads: int, kv_heads: int) -> Views:
    return _cut(projections, 1, axis, [heads if name == "query" else kv_heads for name in projections])


def _per_head(projections: list[str], axis: int, heads: int, kv_heads: int) -> Views:
    return _cut(projections, heads, axis, [1] * len(projections))


def _per_group(projections: list[str], axis: int, heads: int, kv_heads: int) -> Views:
    if heads % kv_heads:
        return None
    return _cut(projections, kv_heads, axis, [heads // kv_heads if name == "query" else 1 for name in projections])


def _in_shards(projections: list[str], axis: int, heads: int, kv_heads: int) -> Views:
    return _cut(projections, 4, axis, [1] * len(projections))


def _cut(projections: list[str], runs: int, axis: int, parts: list[int]) -> Views:
    """`runs` equal runs, each cut in the proportion of `parts`."""
    if runs < 1 or axis % (runs * sum(parts)):
        return None
    length, unit = axis // runs, axis // (runs * sum(parts))
    starts = [unit * sum(parts[:number]) for number in range(len(parts))]
    return {
        name: View(runs, length, start, start + unit * part)
        for name, start, part in zip(projections, starts, parts, strict=True)
    }


ORDERS: dict[str, Callable[[list[str], int, int, int], Views]] = {
    "blocks": _blocks,
    "grouped blocks": _grouped_blocks,
    "per head": _per_head,
    "per group": _per_group,
    "four shards": _in_shards,
}
"""How projections share an axis: one block each, all of one size (GPT-2) or sized by their heads (GPT-BigCode); all of
a head together (NeoX, BLOOM), or of a group (Falcon); four shards of blocks (CodeGen)."""
