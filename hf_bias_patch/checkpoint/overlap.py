"""Which tensors of a file share values (tied weights). Views of one storage that do not overlap share none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.header import Header
from hf_bias_patch.checkpoint.pickled_file import PickledTensor

__all__ = ["overlapping"]

_WORK = 10_000
"""What numpy may spend on the question whether two strided views meet; in doubt they do."""

_PAIRS = 64
"""Different views within one another's reach up to which each pair is looked at; in doubt they meet."""


def overlapping(header: Header) -> tuple[tuple[str, ...], ...]:
    """Groups of tensors that have bytes in common, in the order of the file's table."""
    order = {name: place for place, name in enumerate(header.tensors)}
    views = [info for info in header.tensors.values() if isinstance(info, PickledTensor) and info.extent]
    groups = [group for reach in _reaching(views) for group in _groups(reach) if len(group) > 1]
    return tuple(sorted((tuple(sorted(group, key=order.__getitem__)) for group in groups), key=lambda g: order[g[0]]))


def _reaching(views: Iterable[PickledTensor]) -> Iterator[list[PickledTensor]]:
    """Views whose byte ranges overlap."""
    together: list[PickledTensor] = []
    stop = 0
    for view in sorted(views, key=lambda view: view.start):
        if together and view.start >= stop:
            yield together
            together = []
        together.append(view)
        stop = max(stop if len(together) > 1 else 0, view.start + view.extent)
    if together:
        yield together


def _groups(views: Sequence[PickledTensor]) -> list[list[str]]:
    """Names of those that meet, directly or by others."""
    same: dict[object, list[PickledTensor]] = {}
    for view in views:
        same.setdefault((view.start, view.dtype, view.shape, view.strides), []).append(view)
    if len(same) > _PAIRS:
        return [[view.name for alike in same.values() for view in alike]]
    found: list[list[list[PickledTensor]]] = []
    for alike in same.values():
        meeting = [group for group in found if any(_meet(alike[0], other[0]) for other in group)]
        found = [group for group in found if group not in meeting] + [[alike, *(one for g in meeting for one in g)]]
    return [[view.name for alike in group for view in alike] for group in found]


def _meet(one: PickledTensor, other: PickledTensor) -> bool:
    first = min(one.start, other.start)
    try:
        return np.shares_memory(_laid_out(one, first), _laid_out(other, first), max_work=_WORK)  # type: ignore[arg-type]  # any number will do, says numpy's manual
    except np.exceptions.TooHardError:
        return True


def _laid_out(view: PickledTensor, first: int) -> np.ndarray:
    """An array with a view's layout, counted from `first`. There is nothing behind it: only its layout may be asked."""
    layout = {
        "version": 3,
        "data": (4096 + view.start - first, True),
        "shape": view.shape,
        "strides": view.strides,
        "typestr": f"|V{numpy_dtype(view.dtype).itemsize}",
    }
    return np.asarray(type("Layout", (), {"__array_interface__": layout})())
