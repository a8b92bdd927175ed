"""What a trace knows of a tensor: codes of its entries, the norm it comes from, the scores or mixings in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["PRODUCT", "MapCall", "Mixing", "NormTag", "ScoreProduct", "Tag", "broadcast", "union"]

PRODUCT = 2**32
"""Larger than any position."""


@dataclass(frozen=True)
class NormTag:
    """A layer norm whose output a tensor is, and whether dropout came after it."""

    weight: str
    bias: str
    dropout: bool = False


@dataclass
class ScoreProduct:
    """Scores of one product of two activations.

    Attributes:
        left, right: codes behind the two factors.
        number: of the product; entries of others may stand beside its own in one row.
        swapped: whether softmax ran over the left factor's positions: then that is the key. None before softmax.
        apart: whether softmax met entries of its own, and not only a sum of it with another product.
        softmax: whether rows were normalised by softmax.
        ops: whatever else was done to the scores, by name, in order.
        spread: largest difference of scores within a row, before softmax: 0 means uniform attention.
    """

    left: Tensor
    right: Tensor
    number: int = 0
    swapped: bool | None = None
    apart: bool = False
    softmax: bool = False
    ops: list[str] = field(default_factory=list)
    spread: float = 0.0


@dataclass
class Mixing:
    """One attention call: scores times values.

    Attributes:
        scores: the products whose result weighs the values; several where scores are sums, or stand side by side.
        value: codes behind the values; None where they come from no map.
        output: number of the parameter of the map that reads the result; None if none does.
        read: for each input of that map, the code behind the value that reaches it, shape (inputs,).
        between: what happened between mixing and that map, by name.
    """

    scores: tuple[ScoreProduct, ...]
    value: Tensor | None
    output: int | None = None
    output_axis: int = 0
    read: Tensor | None = None
    between: list[str] = field(default_factory=list)


@dataclass
class MapCall:
    """One use of a map.

    Attributes:
        weight: number of its parameter.
        read: its input, shape (…, inputs).
        norm: the layer norm whose output that is.
    """

    weight: int
    read: Tensor
    norm: NormTag | None


@dataclass(frozen=True)
class Tag:
    """What is known of a tensor. `shadow` holds codes (parameters, activations) or, of scores, left positions
    plus PRODUCT times the number of the product."""

    tensor: Tensor
    kind: str  # "parameter", "activation", "score", "context"
    shadow: Tensor | None = None
    norm: NormTag | None = None
    scores: tuple[ScoreProduct, ...] = ()
    mixings: tuple[Mixing, ...] = ()


def union(tags: Iterable[Tag], name: str) -> Any:
    """All scores or mixings of some tags, each once."""
    return tuple({id(item): item for tag in tags for item in getattr(tag, name)}.values())


def broadcast(shadow: Tensor | None, out: Tensor) -> Tensor | None:
    """A shadow in the shape of a tensor; None where it does not fit."""
    if shadow is None:
        return None
    try:
        return shadow.expand(out.shape)
    except RuntimeError:
        return None
