"""What rows of scores show: which product's entries are in them, and whether attention differs from key to key."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_bias_patch.probing.tags import PRODUCT

__all__ = ["spread", "stands", "varies"]


def varies(left: Tensor | None, product: int) -> bool | None:
    """Whether positions of a product differ along the last axis; entries of no product, such as a sink's, do not count.

    Of a product that was added to another, only that one has entries.
    """
    if left is None:
        return None
    numbers = left.div(PRODUCT, rounding_mode="floor")
    own = numbers == product if (numbers == product).any() else numbers == numbers.max()
    high, low = left.masked_fill(~own, -1).amax(-1), left.masked_fill(~own, torch.iinfo(left.dtype).max).amin(-1)
    return bool((high > low).any())


def stands(left: Tensor | None, product: int) -> bool:
    """Whether a product has entries of its own."""
    return left is not None and bool((left.div(PRODUCT, rounding_mode="floor") == product).any())


def spread(visible: Tensor) -> float:
    """Largest difference within a row, of what is not masked."""
    if visible.shape[-1] < 2:
        return 0.0
    high = torch.nan_to_num(visible, nan=-float("inf")).amax(-1)
    low = torch.nan_to_num(visible, nan=float("inf")).amin(-1)
    return float((high - low).nan_to_num(0.0, 0.0, 0.0).max())
