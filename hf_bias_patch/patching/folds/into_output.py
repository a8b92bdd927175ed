"""`output`: attention rows sum to 1, so a value bias passes through into the output bias (identity 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_bias_patch.architecture.sites import Site, Slot
from hf_bias_patch.patching.folds.fold import BaseFold, module_of
from hf_bias_patch.patching.plan import Edit
from hf_bias_patch.patching.preserved import Preserved

__all__ = ["IntoOutput"]


class IntoOutput(BaseFold):
    """b_o' = b_o + W_o b_v."""

    destination = "output"
    words = "output bias"

    @classmethod
    def involves(cls, site: Site, slot: Slot) -> Mapping[str, Any]:
        return {"output": site.slots["output"]}

    @classmethod
    def preserves(cls, slot: Slot) -> Preserved:
        return Preserved(with_dropout=False, lora=False, kv_cache=False)

    @classmethod
    def touches(cls, edit: Edit) -> tuple[str, ...]:
        assert edit.output and edit.output.bias
        return (edit.output.bias,)

    @classmethod
    def spoiled_by(cls, edit: Edit, adapted: set[str], adds: bool) -> set[str]:
        own = set() if adds else {module_of(edit.slot)}
        return adapted & {module_of(edit.output), *own}

    def move(self) -> None:
        assert self.edit.output and self.edit.output.bias
        output = self.vectors.current(self.edit.output.bias)
        output += self.vectors.through_output(self.edit, self.bias)
