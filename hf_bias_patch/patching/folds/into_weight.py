"""`weight`: the layer norm before a map makes a constant, which carries the bias in the map's weight (identity 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_bias_patch.architecture.sites import Site, Slot
from hf_bias_patch.patching import algebra
from hf_bias_patch.patching.folds.fold import BaseFold, RankOneUpdate, RoundingCost, module_of
from hf_bias_patch.patching.plan import Edit
from hf_bias_patch.patching.preserved import Preserved
from hf_bias_patch.patching.tensors import TensorReader, read_finite

__all__ = ["IntoWeight"]


class IntoWeight(BaseFold):
    """W' = W + b dᵀ, where d·x = 1 for every output x of the norm."""

    destination = "weight"
    words = "own weight"

    @classmethod
    def involves(cls, site: Site, slot: Slot) -> Mapping[str, Any]:
        return {"norm": slot.norm}

    @classmethod
    def measure(cls, edit: Edit, tensors: TensorReader) -> RoundingCost | str | None:
        assert edit.norm is not None and edit.slot.weight is not None
        found = algebra.witness(read_finite(tensors, edit.norm.weight), read_finite(tensors, edit.norm.bias))
        if found is None:
            return f"{edit.norm.bias} makes no constant (1/γ · β is zero)"
        return RoundingCost(found.amplification, edit.slot.weight)

    @classmethod
    def preserves(cls, slot: Slot) -> Preserved:
        return Preserved(with_dropout=not (slot.norm and slot.norm.dropout))

    @classmethod
    def touches(cls, edit: Edit) -> tuple[str, ...]:
        assert edit.slot.weight
        return (edit.slot.weight,)

    @classmethod
    def spoiled_by(cls, edit: Edit, adapted: set[str], adds: bool) -> set[str]:
        return set() if adds else adapted & {module_of(edit.slot)}

    def update(self) -> RankOneUpdate | None:
        norm, slot, vectors = self.edit.norm, self.edit.slot, self.vectors
        assert norm is not None
        found = algebra.witness(read_finite(vectors.tensors, norm.weight), vectors.as_stored(norm.bias))
        assert found is not None, "the planner measured this fold"
        return RankOneUpdate(slot.rows, slot.conv1d, self.bias, found.direction)
