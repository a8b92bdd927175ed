"""Codes behind pooling: the largest of several entries that owe their bias to one element owes it to that, too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["POOLS", "pooled"]

POOLS = {"amax", "max", "max_pool2d_with_indices"}
"""Ops that take the largest of several entries."""


def pooled(name: str, args: Any, codes: Tensor, values: Tensor) -> Tensor | None:
    """Codes of the largest entries (int64, in the shape of `values`); None where entries of several origins compete.

    Args:
        name: one of `POOLS`.
        args: of the op.
        codes: of the tensor that is pooled, in its shape.
        values: the largest entries.
    """
    if name == "max_pool2d_with_indices":
        first = codes[..., :1, :1]
        return first.expand(values.shape).clone() if bool((codes == first).all()) else None
    if len(args) < 2 or isinstance(args[1], Tensor):
        return None
    largest, smallest = codes.amax(*args[1:]), codes.amin(*args[1:])
    return largest if torch.equal(largest, smallest) else None
