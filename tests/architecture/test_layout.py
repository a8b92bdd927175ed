"""Every fused layout is taken apart and put together as a list of positions, written by hand, says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_bias_patch.architecture.layout import View


@dataclass(frozen=True)
class Fused:
    """An axis that several projections share: the view of each, and the places it owns, written out."""

    size: int
    views: tuple[View, ...]
    places: tuple[list[int], ...]


sizes = st.integers(1, 5)


@st.composite
def whole(draw: st.DrawFn) -> Fused:
    """A map of its own."""
    size = draw(st.integers(1, 12))
    return Fused(size, (View.whole(size),), (list(range(size)),))


@st.composite
def blocks(draw: st.DrawFn) -> Fused:
    """GPT-2: [q|k|v], or [k|v] in cross-attention."""
    count, width = draw(st.integers(1, 4)), draw(sizes)
    size = count * width
    places = tuple([block * width + i for i in range(width)] for block in range(count))
    return Fused(
        size, tuple(View(1, size, block * size // count, (block + 1) * size // count) for block in range(count)), places
    )


@st.composite
def interleaved(draw: st.DrawFn) -> Fused:
    """NeoX, BLOOM: [q|k|v] of the first head, then of the second, and so on."""
    heads, dim = draw(sizes), draw(sizes)
    places: tuple[list[int], ...] = ([], [], [])
    place = 0
    for _ in range(heads):
        for projection in places:
            for _ in range(dim):
                projection.append(place)
                place += 1
    views = tuple(View(heads, 3 * dim, part * dim, (part + 1) * dim) for part in range(3))
    return Fused(place, views, places)


@st.composite
def grouped(draw: st.DrawFn) -> Fused:
    """Falcon: per group [q..q|k|v]."""
    groups, queries, dim = draw(sizes), draw(sizes), draw(sizes)
    places: tuple[list[int], ...] = ([], [], [])
    place = 0
    for _ in range(groups):
        for projection, heads in zip(places, (queries, 1, 1), strict=True):
            for _ in range(heads * dim):
                projection.append(place)
                place += 1
    length = (queries + 2) * dim
    edges = (0, queries * dim, (queries + 1) * dim, length)
    views = tuple(View(groups, length, edges[part], edges[part + 1]) for part in range(3))
    return Fused(place, views, places)


layouts = st.one_of(whole(), blocks(), interleaved(), grouped())


def array(fused: Fused, axis: int, before: int = 2, after: int = 3) -> np.ndarray:
    """Distinct numbers, with the fused axis first, in the middle or last."""
    shape = [before, after]
    shape.insert(axis, fused.size)
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


@given(layouts, st.integers(0, 2))
def test_take_gives_the_places_in_order(fused: Fused, axis: int) -> None:
    values = array(fused, axis)
    for view, places in zip(fused.views, fused.places, strict=True):
        assert view.axis == fused.size and view.size == len(places)
        assert view.is_whole == (len(places) == fused.size)
        np.testing.assert_array_equal(view.take(values, axis), np.take(values, places, axis))


@given(layouts, st.integers(0, 2))
def test_merging_what_was_split_is_the_identity(fused: Fused, axis: int) -> None:
    values = array(fused, axis)
    parts = [view.take(values, axis) for view in fused.views]
    merged = np.full_like(values, -1)
    for view, part in zip(fused.views, parts, strict=True):
        view.put(merged, part, axis)
    np.testing.assert_array_equal(merged, values)
    for view, part in zip(fused.views, parts, strict=True):
        np.testing.assert_array_equal(view.take(merged, axis), part)


@given(layouts)
def test_put_touches_nothing_else(fused: Fused) -> None:
    for view, places in zip(fused.views, fused.places, strict=True):
        values = np.zeros(fused.size)
        view.put(values, 1.0)
        assert np.flatnonzero(values).tolist() == sorted(places)
        view.put(values, np.arange(2, 2 + view.size))
        assert values[places].tolist() == list(range(2, 2 + view.size))


@given(layouts)
def test_take_gives_a_copy(fused: Fused) -> None:
    values = np.zeros(fused.size)
    for view in fused.views:
        view.take(values)[...] = 1
    assert not values.any()


@given(layouts, st.data())
def test_positions_are_the_places_in_a_range(fused: Fused, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, fused.size))
    stop = data.draw(st.integers(start, fused.size))
    axis = np.arange(fused.size)
    for view, places in zip(fused.views, fused.places, strict=True):
        found = axis[view.positions(start, stop)]
        assert found.tolist() == [place for place in places if start <= place < stop]


def test_an_axis_of_another_length_is_refused() -> None:
    view = View(1, 12, 4, 8)
    with pytest.raises(ValueError, match="13 entries, the layout describes 12"):
        view.take(np.zeros(13))
    with pytest.raises(ValueError, match="11 entries"):
        view.put(np.zeros(11), 0.0)


def test_values_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError):
        View(1, 12, 4, 8).put(np.zeros(12), np.zeros(5))


def test_put_writes_through_a_transposed_array() -> None:
    values = np.zeros((12, 2))
    View(3, 4, 1, 2).put(values.T, 1.0, axis=1)
    assert np.flatnonzero(values[:, 0]).tolist() == [1, 5, 9] and (values[:, 0] == values[:, 1]).all()


@pytest.mark.parametrize("part", [(0, 4, 0, 2), (1, 4, 2, 2), (1, 4, 3, 5), (1, 4, -1, 2), (1, 0, 0, 0)])
def test_parts_that_are_none_are_refused(part: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="no part of an axis"):
        View(*part)
