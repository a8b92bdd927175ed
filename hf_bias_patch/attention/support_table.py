"""What the families say of every model type, told from their facts alone: no config, no tensors, no torch.

What depends on a checkpoint (whether it has a bias at all, whether a norm has one) is left open here; `inspect` tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from hf_bias_patch.attention.condition import Condition
from hf_bias_patch.attention.family import Attention, Blocker, Family, families, model_types
from hf_bias_patch.attention.verdict import BLOCKERS
from hf_bias_patch.errors import FamilyError

__all__ = ["Cell", "Entry", "TowerEntry", "matrix", "without_attention"]


@dataclass(frozen=True)
class Cell:
    """What becomes of one projection's bias.

    Attributes:
        verdict: `redundant`, `foldable` or `needed`.
        reason: why not better than that; empty for `redundant`.
        folds: destination → empty if the fold is exact, else why it is refused.
        closed: names of the traps that always close a road.
        unless: trap → the config values for which it closes one.
    """

    verdict: str
    reason: str
    folds: dict[str, str]
    closed: tuple[str, ...] = ()
    unless: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One kind of attention site of the model types that share a family.

    Attributes:
        family: its name.
        model_types: who shares it.
        stack, kind: of the sites, such as `encoder` and `self`.
        cells: projection → what becomes of its bias; those without a map are not there.
        handled: config key → the values for which this holds.
    """

    family: str
    model_types: tuple[str, ...]
    stack: str
    kind: str
    cells: dict[str, Cell]
    handled: dict[str, list[Any]]


@dataclass(frozen=True)
class TowerEntry:
    """A model inside the models of some types.

    Attributes:
        family: name of the outer family.
        model_types: who shares it.
        name: the tower's.
        config: the config key of its own config.
        model_type: the type that a config without one means; empty where each names its own.
    """

    family: str
    model_types: tuple[str, ...]
    name: str
    config: str
    model_type: str


def matrix(names: Collection[str] = ()) -> tuple[tuple[Entry, ...], tuple[TowerEntry, ...]]:
    """All sites and towers of some model types (of all, if none is named), by family.

    Raises:
        FamilyError: no family covers one of them.
    """
    known = model_types()
    if unknown := [name for name in names if name not in known]:
        near = [close for name in unknown for close in get_close_matches(name.lower(), known, n=3)]
        raise FamilyError(
            f"No family covers the model type {' or '.join(map(repr, unknown))}",
            remedy=f"Close to it: {', '.join(near)}" if near else "`hf-bias-patch families` lists what is known",
        )
    chosen = [(family, _of(family, names)) for family in families()]
    entries = [entry for family, types in chosen if types for entry in _entries(family, types)]
    towers = [
        TowerEntry(family.name, types, name, tower.config, tower.model_type)
        for family, types in chosen
        if types
        for name, tower in family.towers.items()
    ]
    return tuple(entries), tuple(towers)


def without_attention(names: Collection[str] = ()) -> tuple[str, ...]:
    """Those of some model types (of all, if none is named) that have no attention, sorted."""
    return tuple(sorted(name for family in families() if family.is_empty for name in _of(family, names)))


def _of(family: Family, names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in family.model_types if not names or name in names))


def _entries(family: Family, types: tuple[str, ...]) -> Iterable[Entry]:
    seen: list[Entry] = []
    for attention in family.attention:
        maps = dict.fromkeys(projection for projections in attention.maps.values() for projection in projections)
        cells: dict[str, Cell] = {
            name: _cell(family, attention, name) for name in ("query", "key", "value") if name in maps
        }
        entry = Entry(family.name, types, attention.stack, attention.kind, cells, family.handled)
        if entry not in seen:  # the same site under other names, or with another norm
            seen.append(entry)
            yield entry


def _cell(family: Family, attention: Attention, projection: str) -> Cell:
    always: dict[str, str] = {}
    closed: list[str] = []
    unless: dict[str, str] = {}
    roads = {"query": {"weight"}, "key": {"key", "weight"}, "value": {"value", "weight"}}[projection]
    for trap in attention.traps:
        reason, closes = BLOCKERS[trap.trap]
        if not closes & roads:
            continue
        if trap.when or trap.layers or trap.but or trap.only:
            unless[trap.trap] = _where(trap)
            continue
        closed.append(trap.trap)
        for road in closes:
            always.setdefault(road, reason)
    has_output = any("output" in projections for projections in attention.maps.values())
    no_output = always.get("value", "") or ("" if has_output else "there is no output projection")
    no_norm = always.get("weight", "") or _no_norm(family, attention, projection)
    folds = {
        "query": {"weight": no_norm},
        "key": {"nothing": always.get("key", ""), "weight": no_norm},
        "value": {"output": no_output, "weight": no_norm},
    }[projection]
    exact = [into for into, refusal in folds.items() if not refusal]
    refusals = "; ".join(dict.fromkeys(refusal for refusal in folds.values() if refusal))
    verdict = "needed" if not exact else "redundant" if exact[0] == "nothing" else "foldable"
    return Cell(verdict, "" if verdict == "redundant" else refusals, folds, tuple(closed), unless)


def _no_norm(family: Family, attention: Attention, projection: str) -> str:
    """Why identity 3 has no layer norm to use; empty if there is one (that a checkpoint may keep without a bias)."""
    reads = attention.reads.get(projection, "") if isinstance(attention.reads, Mapping) else attention.reads  # type: ignore[call-overload]
    if attention.kind == "cross" and projection != "query" and not isinstance(attention.reads, Mapping):
        encoder = family.stacks.get("encoder")
        inner = encoder.final_norm if encoder and attention.stack != "encoder" else ""
        return "" if attention.memory or inner else "it reads hidden states that the caller passes in"
    return "" if reads not in ("", "none") else "it reads no layer norm directly and alone"


def _where(trap: Blocker) -> str:
    """The config values for which a trap is there, as text."""
    parts = list(_conditions(trap.when))
    if trap.layers:
        parts.append(f"{trap.layers} of the layer is {_values(trap.values)}")
    if trap.but:
        parts.append(f"the layer is not in {trap.but}")
    if trap.only:
        parts.append(f"the layer is in {trap.only}")
    return " and ".join(parts)


def _conditions(when: Condition) -> Iterable[str]:
    for key, wanted in when.items():
        if isinstance(wanted, Mapping):
            yield f"{key} is {_all_but(wanted['not'])}"
        else:
            yield f"{key} is {_values(wanted)}"


def _all_but(values: Sequence[Any]) -> str:
    unset = [value for value in values if value in ("null", "missing")]
    named = [value for value in values if value not in unset]
    if not unset:
        return f"not {_values(named)}"
    return f"set, and not {_values(named)}" if named else "set"


def _values(values: Iterable[Any]) -> str:
    return " or ".join(value if isinstance(value, str) else repr(value).lower() for value in values)
