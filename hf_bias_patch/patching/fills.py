"""What takes a removed bias's place: zeros, or the values of a fill."""

from __future__ import annotations

import zlib

import numpy as np

from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.errors import PlanError
from hf_bias_patch.patching.algebra import round_once
from hf_bias_patch.patching.plan import Edit

__all__ = ["refuse_overflow", "removal"]


def removal(edit: Edit) -> np.ndarray | float:
    """0, or the values of a fill, which depend on the seed and the site's name alone.

    Returns:
        A number for all of the slot, or an array of shape (slot.view.size,), float64.
    """
    if edit.fill is None:
        return 0.0
    if edit.fill.kind == "constant":
        return edit.fill.first
    random = np.random.default_rng([edit.seed, zlib.crc32(edit.name.encode())])
    draw = random.uniform if edit.fill.kind == "uniform" else random.normal
    return draw(edit.fill.first, edit.fill.second, edit.slot.view.size)


def refuse_overflow(edit: Edit, dtype: str) -> None:
    """Refuse a fill that the bias's storage dtype cannot hold.

    Raises:
        PlanError: a value is beyond the dtype's range.
    """
    values = np.asarray(removal(edit), np.float64)
    if not np.isfinite(round_once(values, numpy_dtype(dtype))).all():
        raise PlanError(
            f"Tensor {edit.bias} would overflow: {np.abs(values).max():.4g} is beyond the range of {dtype}",
            why=f"It is what {edit.site} is to be filled with",
            remedy=f"Fill the {edit.projection} bias with smaller values, or store the checkpoint as float32 first",
        )
