"""Codes of pairs: where two entries are taken for one complex number, so are their codes (exact in float64)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["PAIRS", "paired"]

PAIRS = {"view_as_complex", "view_as_real"}
"""Ops that make one complex number of two entries, and back."""


def paired(name: str, codes: Tensor) -> Tensor:
    """The codes of a result of one of `PAIRS`: complex128 for `view_as_complex`, int64 for `view_as_real`."""
    if name == "view_as_complex":
        return torch.view_as_complex(codes.double().contiguous())
    return torch.view_as_real(codes.resolve_conj()).long()
