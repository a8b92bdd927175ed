"""What every destination of a fold defines, for planning and for carrying out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hf_bias_patch.architecture.layout import View
from hf_bias_patch.architecture.sites import Site, Slot
from hf_bias_patch.architecture.verdict import Destination
from hf_bias_patch.patching import algebra
from hf_bias_patch.patching.plan import Edit
from hf_bias_patch.patching.preserved import Preserved
from hf_bias_patch.patching.tensors import TensorReader, multiply, read_finite

__all__ = ["BaseFold", "RankOneUpdate", "RoundingCost", "Vectors", "module_of"]

Index = tuple[slice | np.ndarray, ...]


@dataclass(frozen=True)
class RoundingCost:
    """What rounding costs a fold.

    Attributes:
        amplification: how many times its own rounding error the bias suffers.
        tensor: the one that is rounded.
        conditioning: of the equations solved on the way; None where none are.
    """

    amplification: float
    tensor: str
    conditioning: float | None = None


@dataclass(frozen=True)
class RankOneUpdate:
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
        moved = slice(rows.start - start, rows.stop - start) if isinstance(rows, slice) else rows - start
        return (moved, slice(None)), np.outer(bias[rows], self.direction)


class Vectors:
    """The vectors (biases and norms) of some tensors in float64, as they become; in the order they were first changed.

    Attributes:
        tensors: the source.
        values: name → values, of those that were asked for by `current`.
    """

    def __init__(self, tensors: TensorReader) -> None:
        self.tensors = tensors
        self.values: dict[str, np.ndarray] = {}

    def current(self, name: str) -> np.ndarray:
        """The values of a vector that a plan touches, to be changed in place."""
        if name not in self.values:
            self.values[name] = read_finite(self.tensors, name)
        return self.values[name]

    def as_stored(self, name: str) -> np.ndarray:
        """The values of a vector that need not be touched."""
        return self.values[name] if name in self.values else read_finite(self.tensors, name)

    def through_output(self, edit: Edit, value: np.ndarray) -> np.ndarray:
        """What a constant in the mixed values adds to the output of the site: W_o · value, heads repeated."""
        assert edit.output and edit.output.weight
        shape = self.tensors.tensors[edit.output.weight].shape
        width = shape[0] if edit.output.conv1d else shape[1]
        return multiply(self.tensors, edit.output, algebra.repeat_groups(value, width, edit.heads))


class BaseFold:
    """A fold that is carried out. Each destination is a subclass, which leaves out what it has no part in.

    Made before any value changes. Then come, for all folds of a plan, `shift_norm`, `move` and `updates`, with the
    biases themselves removed before the last.

    Args:
        edit: planned for this destination.
        vectors: as they are.

    Attributes:
        bias: of the slot, before it is removed; float64.
    """

    destination: ClassVar[Destination]
    words: ClassVar[str]
    """Where the bias goes, for tables and cards."""

    def __init__(self, edit: Edit, vectors: Vectors) -> None:
        self.edit, self.vectors = edit, vectors
        self.bias = edit.slot.view.take(vectors.current(edit.bias))

    # ------------------------------------------------------------------------------------------- when it is planned

    @classmethod
    def involves(cls, site: Site, slot: Slot) -> Mapping[str, Any]:
        """Fields of `Edit`: the norm, value and output slot that the fold goes by."""
        return {}

    @classmethod
    def refusal(cls, site: Site, slot: Slot) -> str:
        """Why the fold cannot be made at this site although its verdict allows it; empty if it can."""
        return ""

    @classmethod
    def measure(cls, edit: Edit, tensors: TensorReader) -> RoundingCost | str | None:
        """What rounding costs the bias, or why the fold cannot be made; None where only vectors are added."""
        return None

    @classmethod
    def preserves(cls, slot: Slot) -> Preserved:
        """What stays equal."""
        raise NotImplementedError

    @classmethod
    def touches(cls, edit: Edit) -> tuple[str, ...]:
        """Tensors whose values change, besides the bias itself."""
        return ()

    @classmethod
    def spoiled_by(cls, edit: Edit, adapted: set[str], adds: bool) -> set[str]:
        """Of the maps that an adapter is put on, those by which the fold would no longer be exact.

        Args:
            edit: planned for this destination.
            adapted: paths of modules.
            adds: whether the adapter only adds to what they give out.
        """
        return set()

    # --------------------------------------------------------------------------------------- when it is carried out

    def shift_norm(self) -> None:
        """Change the bias of the norm."""

    def move(self) -> None:
        """Change the other biases."""

    def update(self) -> RankOneUpdate | None:
        """The change of the slot's own weight, by the norm as it will be stored; None if it has none."""
        return None


def module_of(slot: Slot | None) -> str:
    """The path of the map that a slot belongs to; empty where there is none."""
    return (slot.weight or "").rpartition(".")[0] if slot else ""
