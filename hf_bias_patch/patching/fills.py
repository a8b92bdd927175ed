"""Fills: how a recipe writes the values to put in place of a bias, and what they are."""

from __future__ import annotations

import math
import zlib
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat, model_validator

from hf_bias_patch.checkpoint.shorten import brief

__all__ = ["Fill", "fields_of"]


class Fill(BaseModel):
    """Values to put in place of a bias: a constant, or random ones drawn from the recipe's seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["constant", "uniform", "normal"]
    first: FiniteFloat
    second: FiniteFloat = 0.0

    @model_validator(mode="after")
    def _drawable(self) -> Fill:
        if self.kind == "uniform" and self.first >= self.second:
            raise ValueError(f"uniform:{self.first:g}:{self.second:g}: LOW must be below HIGH")
        if self.kind == "uniform" and math.isinf(self.second - self.first):
            raise ValueError(f"uniform:{self.first:g}:{self.second:g}: HIGH is too far above LOW to draw between them")
        if self.kind == "normal" and self.second <= 0:
            raise ValueError(f"normal:{self.first:g}:{self.second:g}: STD must be positive")
        return self

    def values(self, seed: int, slot: str, size: int) -> np.ndarray:
        """The values, shape (size,), float64; of random ones, those that the seed and the slot's name stand for."""
        if self.kind == "constant":
            return np.full(size, self.first)
        random = np.random.default_rng([seed, zlib.crc32(slot.encode())])
        return (random.uniform if self.kind == "uniform" else random.normal)(self.first, self.second, size)


def fields_of(text: Any) -> dict[str, Any]:
    """The fields of a `Fill` as a recipe writes it: `3.5`, `uniform:LOW:HIGH` or `normal:MEAN:STD`."""
    kind, *numbers = str(text).split(":")
    try:
        if not numbers:
            return {"kind": "constant", "first": float(kind)}
        first, second = map(float, numbers)
    except ValueError:
        kind = ""
    if kind not in ("uniform", "normal"):
        raise ValueError(f"{brief(text)} is not NUMBER, uniform:LOW:HIGH or normal:MEAN:STD")
    return {"kind": kind, "first": first, "second": second}
