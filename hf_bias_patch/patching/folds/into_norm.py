"""`norm`: a shift of the layer norm's bias makes the query bias, and others make up for the shift (identity 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hf_bias_patch.architecture.sites import Site, Slot
from hf_bias_patch.patching import algebra
from hf_bias_patch.patching.folds.fold import BaseFold, RoundingCost, module_of
from hf_bias_patch.patching.plan import Edit
from hf_bias_patch.patching.preserved import Preserved
from hf_bias_patch.patching.tensors import TensorReader, multiply, read_finite, store, weight_matrix

__all__ = ["IntoNorm"]


class IntoNorm(BaseFold):
    """β' = β + δ with W_q δ = b_q.

    The shift reaches the site's output through the value, if that reads the same norm, and through a post-norm
    residual; the output bias takes both back.
    """

    destination = "norm"
    words = "norm bias"

    _delta = np.zeros(0)

    @classmethod
    def involves(cls, site: Site, slot: Slot) -> Mapping[str, Any]:
        spilled = {"value": site.slots["value"], "output": site.slots["output"]} if _spills(site, slot) else {}
        return {"norm": slot.norm, **spilled}

    @classmethod
    def refusal(cls, site: Site, slot: Slot) -> str:
        lacks = _spills(site, slot) and site.slots["output"].bias is None
        return "the output projection has no bias to make up for it" if lacks else ""

    @classmethod
    def measure(cls, edit: Edit, tensors: TensorReader) -> RoundingCost | str | None:
        assert edit.norm is not None
        weight, bias = weight_matrix(tensors, edit.slot), edit.slot.view.take(read_finite(tensors, edit.bias))
        shift = algebra.solve_shift(weight, bias)
        if shift is None:
            return f"{edit.slot.weight} has no inverse"
        return RoundingCost(shift.amplification, edit.norm.bias, shift.conditioning)

    @classmethod
    def preserves(cls, slot: Slot) -> Preserved:
        # Of a post-norm layer, the norm's output is a hidden state too.
        between = not (slot.norm and slot.norm.residual)
        return Preserved(hidden_states=between, with_dropout=False, lora=False, kv_cache=False)

    @classmethod
    def touches(cls, edit: Edit) -> tuple[str, ...]:
        assert edit.norm
        output = (edit.output.bias,) if edit.output and edit.output.bias else ()
        return (*output, edit.norm.bias)

    @classmethod
    def spoiled_by(cls, edit: Edit, adapted: set[str], adds: bool) -> set[str]:
        # Whatever reads the norm reads another input now: it is in the same layer.
        layer = _layer(module_of(edit.slot))
        return {module for module in adapted if _layer(module) == layer}

    def shift_norm(self) -> None:
        edit, tensors = self.edit, self.vectors.tensors
        assert edit.norm is not None
        bias = edit.slot.view.take(self.vectors.current(edit.bias))
        shift = algebra.solve_shift(weight_matrix(tensors, edit.slot), bias)
        assert shift is not None, "the planner measured this fold"
        beta = self.vectors.current(edit.norm.bias)
        stored = store(edit.norm.bias, beta + shift.delta, tensors.tensors[edit.norm.bias].dtype).astype(np.float64)
        self._delta = stored - beta  # what rounding left of it is what others make up for
        beta[...] = stored

    def move(self) -> None:
        norm, value, output = self.edit.norm, self.edit.value, self.edit.output
        if output is None:
            return
        assert norm and value and output.bias
        gain = np.zeros(output.view.size)
        if value.norm is not None and value.norm.bias == norm.bias:
            gain += self.vectors.through_output(self.edit, multiply(self.vectors.tensors, value, self._delta))
        if norm.residual:
            gain += self._delta
        bias = self.vectors.current(output.bias)
        bias -= gain


def _spills(site: Site, slot: Slot) -> bool:
    """Whether a shift of the slot's norm reaches the site's output: through the value, or a post-norm residual."""
    value = site.slots["value"].norm
    return slot.norm is not None and (slot.norm.residual or (value is not None and value.bias == slot.norm.bias))


def _layer(module: str) -> str:
    """A module's path up to the last number in it."""
    parts = module.split(".")
    last = max((place for place, part in enumerate(parts) if part.isdecimal()), default=-1)
    return ".".join(parts[: last + 1])
