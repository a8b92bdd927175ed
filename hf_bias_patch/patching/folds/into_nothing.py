"""`nothing`: a key bias adds one number to all scores of a query, which softmax cancels (identity 1)."""

from __future__ import annotations

from hf_bias_patch.architecture.sites import Slot
from hf_bias_patch.patching.folds.fold import BaseFold
from hf_bias_patch.patching.preserved import Preserved

__all__ = ["IntoNothing"]


class IntoNothing(BaseFold):
    """Takes the bias away; nothing else changes."""

    destination = "nothing"
    words = "cancels in softmax"

    @classmethod
    def preserves(cls, slot: Slot) -> Preserved:
        return Preserved(kv_cache=False)
