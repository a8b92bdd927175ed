"""The four identities of docs/theory.md as pure float64 functions. No names, no files, no models.

A map sends x to W x + b. `weight` arguments are (out, in) whatever the file's storage; a LayerNorm's output is
x = γ∘z + β with Σz = 0 and, on average, ‖z‖² = width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from jaxtyping import Float

__all__ = ["Shift", "Witness", "repeat_groups", "round_once", "solve_shift", "witness"]

Vector = Float[np.ndarray, " width"]


@dataclass(frozen=True)
class Witness:
    """A direction d with d·x = 1 for every output x of one layer norm (identity 3).

    Attributes:
        direction: d, shape (width,), float64.
        amplification: root mean square of ‖d∘x‖, at least 1: how many times its own rounding error a bias b suffers
            when it is carried as the matrix b dᵀ.
    """

    direction: Vector
    amplification: float


@np.errstate(over="ignore", invalid="ignore")
def witness(gamma: Vector, beta: Vector) -> Witness | None:
    """The best direction that a layer norm's output cannot escape, or None where there is none.

    With a = 1/γ, a·x = Σz + a·β = a·β =: c, so d = a/c. Where γ_i = 0, x_i = β_i is itself constant, d = e_i/β_i.
    """
    dead = gamma == 0
    if dead.any():
        index = int(np.argmax(np.where(dead, np.abs(beta), -1.0)))
        direction = np.zeros_like(gamma)
        if beta[index] == 0:
            return None
        direction[index] = 1.0 / beta[index]
    else:
        inverse = 1.0 / gamma
        constant = _sum(inverse * beta)
        if constant == 0 or not np.isfinite(constant):
            return None
        direction = inverse / constant
    amplification = float(np.sqrt(np.sum(direction**2 * (gamma**2 + beta**2))))
    return Witness(direction, amplification) if np.isfinite(amplification) else None


def _sum(terms: Vector) -> float:
    """Rounded once, and so the same on every machine: others can recompute a weight to the bit."""
    try:
        return math.fsum(terms)
    except (OverflowError, ValueError):  # beyond float64, or infinities of both signs
        return math.nan


@dataclass(frozen=True)
class Shift:
    """A shift δ of the map's input with W δ = b (identity 4).

    Attributes:
        delta: δ, shape (in,), float64.
        amplification: ‖W∘δ‖ / ‖b‖: how many times its own rounding error the bias suffers.
        conditioning: condition number of W in the 1-norm.
    """

    delta: Vector
    amplification: float
    conditioning: float


def solve_shift(weight: Float[np.ndarray, "out in"], bias: Float[np.ndarray, " out"]) -> Shift | None:
    """Solve W δ = b, or None where W is not square or is singular."""
    if weight.shape[0] != weight.shape[1]:
        return None
    try:
        conditioning = float(np.linalg.cond(weight, 1))
        delta = np.linalg.solve(weight, bias)
    except np.linalg.LinAlgError:
        return None
    if not np.isfinite(conditioning) or not np.isfinite(delta).all():
        return None
    amplification = float(np.linalg.norm(weight * delta) / (np.linalg.norm(bias) or 1.0))
    return Shift(delta, amplification, conditioning)


def repeat_groups(value: Float[np.ndarray, " kv_width"], width: int, heads: int) -> Float[np.ndarray, " width"]:
    """A value bias as the output projection sees it: each key-value head repeated for the query heads of its group.

    Args:
        value: bias of all key-value heads, head-major.
        width: inputs of the output projection, heads · head_dim.
        heads: query heads.
    """
    head_dim = width // heads
    grouped = value.reshape(-1, head_dim)
    return np.repeat(grouped, heads // len(grouped), axis=0).reshape(-1)


def round_once(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`values` (float64) in a storage dtype, to nearest, ties to even, rounded a single time.

    A cast to bfloat16 goes through float32 and so rounds twice; rounding to odd on the way there makes the second
    rounding right (Boldo and Melquiond, "When double rounding is odd", 2005).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype != np.dtype(ml_dtypes.bfloat16):
            return values.astype(dtype)
        single = values.astype(np.float32)
        back = single.astype(np.float64)
        toward_zero = np.where(np.abs(back) > np.abs(values), np.nextafter(single, np.float32(0)), single)
        odd = toward_zero.view(np.uint32) | ((back != values) & np.isfinite(values)).astype(np.uint32)
        finite = np.isfinite(single)
        return np.where(finite, odd.view(np.float32), single).astype(dtype)
