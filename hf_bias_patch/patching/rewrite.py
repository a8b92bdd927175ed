"""Computes new values for a plan's tensors, for files and for models in memory. The caller reads and writes them.

Vectors (biases and norms) are computed at once. Matrices come in blocks of rows, so that none is held whole.
Everything is float64 until it is rounded once to the tensor's storage dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hf_bias_patch.patching.folds import FOLDS, RankOneUpdate, Vectors
from hf_bias_patch.patching.plan import Edit, Plan
from hf_bias_patch.patching.tensors import BLOCK_VALUES, TensorReader, blocks_of_rows, check_finite, store

__all__ = ["Block", "Rewrite"]


@dataclass(frozen=True)
class Block:
    """Rows `start:stop` of a stored matrix, before and after, in the storage dtype."""

    start: int
    stop: int
    old: np.ndarray
    new: np.ndarray


class Rewrite:
    """What a plan's tensors become.

    Args:
        plan: made for these tensors.
        tensors: the source.
        known: new values of vectors that were computed elsewhere before, in the storage dtype: they stand instead of
            those computed here, for sums may round otherwise on another machine.
        block_values: of a matrix that are computed at a time.

    Attributes:
        vectors: tensor name → new values, in the storage dtype; all touched tensors but matrices.
        matrices: weight name → updates, for every touched matrix.
    """

    def __init__(
        self,
        plan: Plan,
        tensors: TensorReader,
        known: Mapping[str, np.ndarray] | None = None,
        block_values: int = BLOCK_VALUES,
    ) -> None:
        self._tensors, self._block_values = tensors, block_values
        vectors = Vectors(tensors)
        edits = [edit for edit in plan.edits if edit.changes]
        # The order matters: biases are moved as they were, and weights are updated by the norms as they will be.
        folds = [FOLDS[edit.destination](edit, vectors) for edit in edits if edit.destination]
        for fold in folds:
            fold.shift_norm()
        for fold in folds:
            fold.move()
        for edit in edits:
            _replace_bias(edit, vectors)
        vectors.values |= {name: values.astype(np.float64) for name, values in (known or {}).items()}
        self.matrices: dict[str, list[RankOneUpdate]] = {}
        for fold in folds:
            if (update := fold.update()) is not None:
                assert fold.edit.slot.weight
                self.matrices.setdefault(fold.edit.slot.weight, []).append(update)
        self.vectors = {name: store(name, values, self._dtype(name)) for name, values in vectors.values.items()}

    def blocks(self, weight: str) -> Iterator[Block]:
        """The blocks of one matrix of `matrices`, in order.

        Raises:
            CheckpointError: the matrix holds NaN or infinite values.
            PlanError: a new value is beyond the range of the storage dtype.
        """
        for start, stop in blocks_of_rows(self._tensors.tensors[weight].shape, self._block_values):
            old = self._tensors.rows(weight, start, stop)
            new = old.copy()
            for update in self.matrices[weight]:
                index, change = update.part(start, stop)
                with np.errstate(invalid="ignore"):
                    values = check_finite(weight, old[index].astype(np.float64))
                new[index] = store(weight, values + change, self._dtype(weight))
            yield Block(start, stop, old, new)

    def _dtype(self, name: str) -> str:
        return self._tensors.tensors[name].dtype


def _replace_bias(edit: Edit, vectors: Vectors) -> None:
    """Put zeros, or the values of a fill, in the bias's place."""
    if edit.action != "fold" and edit.slot.view.is_whole:
        # Nothing is computed from the old values: where they are NaN, this repairs them.
        vectors.values[edit.bias] = np.zeros(edit.slot.view.axis)
    edit.slot.view.put(vectors.current(edit.bias), edit.replacement)
