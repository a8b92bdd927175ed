"""Named tensors and how a plan reads them: in float64, finite or refused, matrices in blocks of rows; rounded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from hf_bias_patch.architecture.sites import Slot, Tensor
from hf_bias_patch.checkpoint.dtypes import FLOATS, numpy_dtype
from hf_bias_patch.errors import PlanError, ValuesError
from hf_bias_patch.patching.algebra import round_once

__all__ = [
    "BLOCK_VALUES", "TensorReader", "blocks_of_rows", "check_finite", "multiply", "read_finite", "read_floats", "store",
    "weight_matrix",
]  # fmt: skip

BLOCK_VALUES = 1 << 18
"""float64 values held of a matrix at a time: 2 MB stay in a cache, 4 MB take four times as long."""


class TensorReader(Protocol):
    """Named tensors and their values: a checkpoint on disk, or a model in memory."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Name → dtype and shape."""
        ...

    def read(self, name: str) -> np.ndarray:
        """A tensor's values in the storage dtype."""
        ...

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start:stop` of a tensor, in the storage dtype."""
        ...


def read_floats(tensors: TensorReader, name: str) -> np.ndarray:
    """A tensor in float64, whatever its values.

    Raises:
        ValuesError: it is not floating point.
    """
    dtype = tensors.tensors[name].dtype
    if dtype not in FLOATS:
        raise ValuesError(f"Tensor {name} is stored as {dtype}", why=f"Only {', '.join(FLOATS)} can be edited")
    with np.errstate(invalid="ignore"):  # NaN is refused by `check_finite`, in words
        return tensors.read(name).astype(np.float64)


def read_finite(tensors: TensorReader, name: str) -> np.ndarray:
    """A tensor in float64.

    Raises:
        ValuesError: it is not floating point, or holds NaN or infinite values.
    """
    return check_finite(name, read_floats(tensors, name))


def check_finite(name: str, values: np.ndarray) -> np.ndarray:
    """`values`, unless some are NaN or infinite.

    Raises:
        ValuesError: some are.
    """
    if not np.isfinite(values).all():
        raise ValuesError(
            f"Tensor {name} holds {np.count_nonzero(~np.isfinite(values))} NaN or infinite values",
            why="Whatever is computed from them would be NaN too",
            remedy="Start from an undamaged checkpoint, or leave this layer out with --layers. A drop or fill of all "
            "of a bias repairs it",
        )
    return values


def weight_matrix(tensors: TensorReader, slot: Slot) -> np.ndarray:
    """The slot's part of its weight as (out, in), float64."""
    assert slot.weight is not None
    stored = read_finite(tensors, slot.weight)
    return slot.rows.take(stored.T if slot.conv1d else stored)


def blocks_of_rows(shape: tuple[int, ...], values: int = BLOCK_VALUES) -> Iterator[tuple[int, int]]:
    """Row ranges of a matrix (or a convolution of width 1) that hold about so many values each."""
    rows, columns = shape[:2]
    step = max(1, values // max(1, columns))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def multiply(tensors: TensorReader, slot: Slot, vector: np.ndarray) -> np.ndarray:
    """W · vector for the slot's part of its weight, float64; read in blocks of rows.

    Raises:
        ValuesError: the weight holds NaN or infinite values.
    """
    assert slot.weight is not None
    result = np.zeros(slot.rows.axis)
    for start, stop in blocks_of_rows(tensors.tensors[slot.weight].shape):
        with np.errstate(invalid="ignore"):  # 0 · ∞ is NaN: any bad value shows in the result
            rows = tensors.rows(slot.weight, start, stop).astype(np.float64)
            rows = rows.reshape(rows.shape[:2])  # a convolution of width 1 is a matrix
            if slot.conv1d:
                result += vector[start:stop] @ rows
            else:
                result[start:stop] = rows @ vector
    if not np.isfinite(result).all():
        read_finite(tensors, slot.weight)  # raises, and says what is wrong with it
    return slot.rows.take(result)


def store(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` (float64) rounded once to a storage dtype.

    Raises:
        PlanError: a value is beyond the dtype's range.
    """
    stored = round_once(values, numpy_dtype(dtype))
    if not np.isfinite(stored).all():
        raise PlanError(
            f"Tensor {name} would overflow: {np.abs(values).max():.4g} is beyond the range of {dtype}",
            remedy="Choose another destination for this fold, leave the layer out with --layers, or store as float32",
        )
    return stored
