"""Finds a family's modules among tensor names: the prefix before them, and the layer numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

from hf_bias_patch.checkpoint.quantised import PACKED_NAMES

__all__ = ["KINDS", "LayerIndex", "ModelPart", "Scope", "first_there", "parameter", "places"]

KINDS = ("weight", "bias", *PACKED_NAMES)
"""What the name of a map's parameter may end with."""

_NUMBER = "0|[1-9][0-9]{0,8}"
"""Of a layer: as a model writes it, and never so long that reading it takes work."""


@dataclass(frozen=True, order=True)
class LayerIndex:
    """One layer: its stage (0 in models without stages) and its number within it."""

    stage: int
    layer: int


@dataclass(frozen=True)
class Scope:
    """Which part of a model's parameter names is meant.

    Attributes:
        under: parts of names, one of which the prefix must have, or the module begin with; anything goes if empty.
        apart: parts that the prefix must not have: those of other towers.
    """

    under: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()

    def holds(self, prefix: str, module: str) -> bool:
        """Whether a module under a prefix is inside."""
        dotted, own = f".{prefix}", [part for part in self.under if part]
        inside, outside = _deepest(own, dotted), _deepest(self.apart, dotted)
        if max(inside, outside) >= 0:
            return inside >= outside  # of towers inside towers, the innermost
        return not self.under or "" in self.under or any(module.startswith(f"{part}.") for part in own)


def _deepest(parts: Iterable[str], dotted: str) -> int:
    """Where the last of some parts ends in a name; -1 if none is there."""
    return max((dotted.rfind(f".{part}.") + len(part) for part in parts if f".{part}." in dotted), default=-1)


@dataclass(frozen=True)
class ModelPart:
    """The part of a checkpoint whose names are searched: all of it, or one tower.

    Attributes:
        root: the model type of the whole.
        name: the tower's; empty for the whole.
        path: the keys that lead to its config, each with a dot behind it.
        scope: which parameter names are its own.
    """

    root: str
    name: str = ""
    path: str = ""
    scope: Scope = Scope()


def places(module: str, names: Iterable[str], scope: Scope) -> dict[str, set[LayerIndex]]:
    """Prefix → the layers in which a module is there under it.

    Args:
        module: a pattern of a family, such as `encoder.layer.{layer}.attention.self.query`.
        names: of a model's parameters.
        scope: which part of the model is meant.
    """
    pattern, tail = _compiled(module), module.rpartition("}")[2]
    found: dict[str, set[LayerIndex]] = {}
    for name in names:
        if tail not in name:
            continue
        match = pattern.fullmatch(name)
        if match and scope.holds(match["prefix"], module):
            numbers = match.groupdict()
            place = LayerIndex(int(numbers.get("stage") or 0), int(numbers.get("layer") or 0))
            found.setdefault(match["prefix"], set()).add(place)
    return found


@cache
def _compiled(module: str) -> re.Pattern[str]:
    escaped = re.escape(module).replace(r"\{stage\}", f"(?P<stage>{_NUMBER})")
    escaped = escaped.replace(r"\{layer\}", f"(?P<layer>{_NUMBER})")
    ending = "" if module.endswith("_") else r"\."
    return re.compile(rf"(?P<prefix>(?:.+\.)?){escaped}{ending}(?:{'|'.join(map(re.escape, KINDS))})")


def first_there(modules: str, names: Iterable[str], scope: Scope) -> str:
    """Of several module patterns with `|` between them, the first that some layer has; else the last."""
    several = modules.split("|")
    there = (module for module in several[:-1] if places(module, names, scope))
    return next(there, several[-1])


def parameter(module: str, kinds: Iterable[str], names: Collection[str]) -> str | None:
    """The first parameter of a module that is there, of some kinds; a module that ends in `_` is joined as it is."""
    joint = "" if module.endswith("_") else "."
    return next((name for name in (f"{module}{joint}{kind}" for kind in kinds) if name in names), None)
