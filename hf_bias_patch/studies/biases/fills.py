"""The values put in place of a bias: the paper's constants and random vectors, and two changes of the bias itself."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

__all__ = ["FILLS", "filled"]

Values = Float[np.ndarray, " size"]
FillFunction = Callable[[Values, int, np.random.Generator], Values]


def _constant(value: float) -> FillFunction:
    return lambda old, heads, random: np.full_like(old, value)


def _uniform(reach: float) -> FillFunction:
    return lambda old, heads, random: random.uniform(-reach, reach, old.shape)


def _shuffled(old: Values, heads: int, random: np.random.Generator) -> Values:
    """Each head gets another head's part: a cyclic shift in a random order, which leaves none where it was."""
    parts = old.reshape(heads, -1)
    order = random.permutation(heads)
    new = np.empty_like(parts)
    new[order] = parts[np.roll(order, 1)]
    return new.reshape(-1)


FILLS: Mapping[str, FillFunction] = {
    "zeros": _constant(0.0),
    "ones": _constant(1.0),
    "minus ones": _constant(-1.0),
    "tens": _constant(10.0),
    "uniform in ±1": _uniform(1.0),
    "uniform in ±5": _uniform(5.0),
    "shuffled across heads": _shuffled,
    "doubled": lambda old, heads, random: 2 * old,
}
"""The most informative first."""


def filled(fill: str, old: Values, heads: int, seed: int, where: str) -> Values:
    """New values of a bias, float64; random ones depend only on the seed and the name of the bias.

    Args:
        fill: a key of `FILLS`.
        old: the bias, heads one behind the other.
        heads: how many.
        seed: of random values.
        where: name of the place.
    """
    return FILLS[fill](old, heads, np.random.default_rng([seed, zlib.crc32(f"{where} {fill}".encode())]))
