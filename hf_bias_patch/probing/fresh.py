"""Tensors that are made empty and filled piece by piece, as multi-head latent attention makes its keys."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_bias_patch.probing.origin import NOTHING

__all__ = ["FRESH", "Fresh"]

FRESH = {
    "empty", "empty_like", "empty_strided", "full", "full_like", "new_empty", "new_empty_strided", "new_full",
    "new_ones", "new_zeros", "ones_like", "zeros", "zeros_like",
}  # fmt: skip
"""Ops whose results hold no entry of their arguments."""


class Fresh:
    """Remembers such tensors, and what was copied into them."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def made(self, tensor: Tensor) -> None:
        """A tensor was made."""
        if tensor.is_floating_point() and tensor.is_contiguous() and not tensor.storage_offset():
            self._made[tensor.untyped_storage().data_ptr()] = (tensor, torch.full(tensor.shape, NOTHING))

    def filled(self, part: Tensor, codes: Tensor) -> tuple[Tensor, Tensor] | None:
        """A part of one was filled: the whole tensor, and the codes of all its entries; None if it is none of these.

        Args:
            part: the view that was copied into.
            codes: of what was copied, in a shape that expands to the view's.
        """
        whole, shadow = self._made.get(part.untyped_storage().data_ptr(), (None, None))
        if whole is None or shadow is None or part.untyped_storage().size() != whole.untyped_storage().size():
            return None
        shadow.as_strided(part.shape, part.stride(), part.storage_offset()).copy_(codes)
        return whole, shadow.clone()
