"""New values for a plan's tensors. One algebra for memory and disk: values come from a `Tensors`, and go to neither.

Vectors (biases and norms) are computed at once. Matrices come in blocks of rows, so that none is held whole.
Everything is float64 until it is rounded once to the tensor's storage dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hf_bias_patch.attention.layout import View
from hf_bias_patch.attention.sites import Norm, Slot
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.errors import PlanError
from hf_bias_patch.patching import algebra
from hf_bias_patch.patching.fills import removal
from hf_bias_patch.patching.plan import Edit, Plan
from hf_bias_patch.patching.planner import Tensors, check_finite, read_finite, weight_matrix

__all__ = ["Block", "Outer", "Rewrite", "blocks_of_rows", "store"]

Index = tuple[slice | np.ndarray, ...]
BLOCK_VALUES = 1 << 18  # float64 values held of a matrix at a time: 2 MB stay in a cache, 4 MB take four times as long


@dataclass(frozen=True)
class Outer:
    """An update W + b dᵀ of one projection's part of a weight.

    Attributes:
        view: the part of the output axis.
        conv1d: whether the weight is stored (in, out).
        bias: b, shape (view.size,), float64.
        direction: d, shape (in,), float64.
    """

    view: View
    conv1d: bool
    bias: np.ndarray
    direction: np.ndarray

    def part(self, start: int, stop: int) -> tuple[Index, np.ndarray]:
        """Where in stored rows `start:stop` the update falls, and its values there."""
        if self.conv1d:
            columns = self.view.positions(0, self.view.axis)
            return (slice(None), columns), np.outer(self.direction[start:stop], self.bias)
        rows = self.view.positions(start, stop)
        bias = np.zeros(self.view.axis)
        self.view.put(bias, self.bias)
        return (_moved(rows, -start), slice(None)), np.outer(bias[rows], self.direction)


def _moved(positions: slice | np.ndarray, by: int) -> slice | np.ndarray:
    if isinstance(positions, slice):
        return slice(positions.start + by, positions.stop + by)
    return positions + by


@dataclass(frozen=True)
class Block:
    """Rows `start:stop` of a stored matrix, before and after, in the storage dtype."""

    start: int
    stop: int
    old: np.ndarray
    new: np.ndarray


def blocks_of_rows(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Row ranges of a matrix (or a convolution of width 1) that hold about `BLOCK_VALUES` values each."""
    rows, columns = shape[:2]
    step = max(1, BLOCK_VALUES // max(1, columns))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def store(name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` (float64) rounded once to a storage dtype.

    Raises:
        PlanError: a value is beyond the dtype's range.
    """
    stored = algebra.round_once(values, numpy_dtype(dtype))
    if not np.isfinite(stored).all():
        raise PlanError(
            f"Tensor {name} would overflow: {np.abs(values).max():.4g} is beyond the range of {dtype}",
            remedy="Choose another destination for this fold, leave the layer out with --layers, or store as float32",
        )
    return stored


class Rewrite:
    """What a plan's tensors become.

    Args:
        plan: made for these tensors.
        tensors: the source.
        known: new values of vectors that were computed elsewhere before, in the storage dtype: they stand instead of
            those computed here, for sums may round otherwise on another machine.

    Attributes:
        vectors: tensor name → new values, in the storage dtype; all touched tensors but matrices.
        matrices: weight name → updates, for every touched matrix.
    """

    def __init__(self, plan: Plan, tensors: Tensors, known: Mapping[str, np.ndarray] | None = None) -> None:
        self._tensors = tensors
        self._values: dict[str, np.ndarray] = {}
        edits = [edit for edit in plan.edits if edit.changes]
        folds = [edit for edit in edits if edit.action == "fold"]
        biases = {id(edit): edit.slot.view.take(self._vector(edit.bias)) for edit in folds}
        shifts = {id(edit): self._shift_norm(edit) for edit in edits if edit.into == "norm"}
        for edit in edits:
            if edit.into == "output":
                self._value_to_output(edit, biases[id(edit)])
            elif edit.into == "norm" and edit.output is not None:
                self._compensate(edit, shifts[id(edit)])
        for edit in edits:
            self._remove(edit)
        for name, values in (known or {}).items():
            self._values[name] = values.astype(np.float64)
        self.matrices: dict[str, list[Outer]] = {}
        for edit in edits:
            if edit.into == "weight":
                self._into_weight(edit, biases[id(edit)])
        self.vectors = {name: store(name, values, self._dtype(name)) for name, values in self._values.items()}

    def blocks(self, weight: str) -> Iterator[Block]:
        """The blocks of one matrix of `matrices`, in order.

        Raises:
            CheckpointError: the matrix holds NaN or infinite values.
            PlanError: a new value is beyond the range of the storage dtype.
        """
        for start, stop in blocks_of_rows(self._tensors.tensors[weight].shape):
            old = self._tensors.rows(weight, start, stop)
            new = old.copy()
            for outer in self.matrices[weight]:
                index, update = outer.part(start, stop)
                with np.errstate(invalid="ignore"):
                    values = check_finite(weight, old[index].astype(np.float64))
                new[index] = store(weight, values + update, self._dtype(weight))
            yield Block(start, stop, old, new)

    def _dtype(self, name: str) -> str:
        return self._tensors.tensors[name].dtype

    def _vector(self, name: str) -> np.ndarray:
        """Current float64 values of a vector that the plan touches."""
        if name not in self._values:
            self._values[name] = read_finite(self._tensors, name)
        return self._values[name]

    def _remove(self, edit: Edit) -> None:
        if edit.action != "fold" and edit.slot.view.is_whole:
            # Nothing is computed from the old values: where they are NaN, this repairs them.
            self._values[edit.bias] = np.zeros(edit.slot.view.axis)
        edit.slot.view.put(self._vector(edit.bias), removal(edit))

    def _shift_norm(self, edit: Edit) -> np.ndarray:
        """Identity 4: β' = β + δ with W_q δ = b_q. Returns the δ that rounding left, for others to make up for."""
        assert edit.norm is not None
        bias = edit.slot.view.take(self._vector(edit.bias))
        shift = algebra.solve_shift(weight_matrix(self._tensors, edit.slot), bias)
        assert shift is not None, "the planner measured this fold"
        beta = self._vector(edit.norm.bias)
        stored = store(edit.norm.bias, beta + shift.delta, self._dtype(edit.norm.bias)).astype(np.float64)
        delta = stored - beta
        beta[...] = stored
        return delta

    def _compensate(self, edit: Edit, delta: np.ndarray) -> None:
        """What a shifted norm adds to the value and to a post-norm residual leaves the output bias."""
        assert edit.norm and edit.value and edit.output and edit.output.bias
        gain = np.zeros(edit.output.view.size)
        if edit.value.norm is not None and edit.value.norm.bias == edit.norm.bias:
            gain += self._through_output(edit, self._map(edit.value, delta))
        if edit.norm.residual:
            gain += delta
        self._vector(edit.output.bias)[...] -= gain

    def _value_to_output(self, edit: Edit, bias: np.ndarray) -> None:
        """Identity 2: b_o' = b_o + W_o b_v."""
        assert edit.output and edit.output.bias
        self._vector(edit.output.bias)[...] += self._through_output(edit, bias)

    def _through_output(self, edit: Edit, value: np.ndarray) -> np.ndarray:
        assert edit.output and edit.output.weight
        shape = self._tensors.tensors[edit.output.weight].shape
        width = shape[0] if edit.output.conv1d else shape[1]
        return self._map(edit.output, algebra.repeat_groups(value, width, edit.heads))

    def _map(self, slot: Slot, vector: np.ndarray) -> np.ndarray:
        """W · vector for the slot's part of its weight, read in blocks of rows."""
        assert slot.weight is not None
        shape = self._tensors.tensors[slot.weight].shape
        result = np.zeros(slot.rows.axis)
        for start, stop in blocks_of_rows(shape):
            with np.errstate(invalid="ignore"):  # 0 · ∞ is NaN: any bad value shows in the result
                rows = self._tensors.rows(slot.weight, start, stop).astype(np.float64)
                rows = rows.reshape(rows.shape[:2])  # a convolution of width 1 is a matrix
                if slot.conv1d:
                    result += vector[start:stop] @ rows
                else:
                    result[start:stop] = rows @ vector
        if not np.isfinite(result).all():
            read_finite(self._tensors, slot.weight)  # raises, and says what is wrong with it
        return slot.rows.take(result)

    def _into_weight(self, edit: Edit, bias: np.ndarray) -> None:
        """Identity 3: W' = W + b dᵀ, with d from the norm as it will be stored."""
        assert edit.norm and edit.slot.weight
        witness = algebra.witness(read_finite(self._tensors, edit.norm.weight), self._norm_bias(edit.norm))
        assert witness is not None, "the planner measured this fold"
        outer = Outer(edit.slot.rows, edit.slot.conv1d, bias, witness.direction)
        self.matrices.setdefault(edit.slot.weight, []).append(outer)

    def _norm_bias(self, norm: Norm) -> np.ndarray:
        return self._values[norm.bias] if norm.bias in self._values else read_finite(self._tensors, norm.bias)
