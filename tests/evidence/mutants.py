"""Wrong variants: what a mistaken fold of one site would have written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.evidence.helpers import Parts, put_bias, put_weight, sites_of

__all__ = ["MUTANTS", "change_of"]


def _output(parts: Parts, value: np.ndarray) -> np.ndarray:
    return parts.bias("output") + parts.weight("output") @ value


def _heads(parts: Parts) -> np.ndarray:
    return parts.bias("value").reshape(parts.site.heads, -1)


def _one_head_missed(parts: Parts) -> np.ndarray:
    heads = _heads(parts)
    heads[1] = 0
    return _output(parts, heads.reshape(-1))


def _query(parts: Parts, sign: float) -> np.ndarray:
    return parts.weight("query") + sign * np.outer(parts.bias("query"), parts.direction("query"))


MUTANTS: dict[str, tuple[str, str, Callable[[Parts], np.ndarray]]] = {
    "value dropped": ("output", "bias", lambda p: p.bias("output")),
    "value with the wrong sign": ("output", "bias", lambda p: _output(p, -p.bias("value"))),
    "value folded twice": ("output", "bias", lambda p: _output(p, 2 * p.bias("value"))),
    "value heads in the wrong order": ("output", "bias", lambda p: _output(p, _heads(p)[::-1].reshape(-1))),
    "one value head missed": ("output", "bias", _one_head_missed),
    "query dropped": ("query", "weight", lambda p: p.weight("query")),
    "query with the wrong sign": ("query", "weight", lambda p: _query(p, -1)),
    "query folded twice": ("query", "weight", lambda p: _query(p, 2)),
}
"""Name → projection, what of it, and what the mistake writes there instead."""


def change_of(mutant: str, source: Path, site: str) -> Callable[[dict[str, torch.Tensor]], None]:
    """The edit of a right variant (value:output, query:weight) that makes it the mutant at one site."""
    parts = Parts(source, sites_of(source)[site])
    projection, kind, write = MUTANTS[mutant]

    def change(values: dict[str, torch.Tensor]) -> None:
        put = put_bias if kind == "bias" else put_weight
        put(values, parts.slot(projection), write(parts))

    return change
