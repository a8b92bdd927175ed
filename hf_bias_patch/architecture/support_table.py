"""What the families say of every model type, told from their facts alone: no config, no tensors, no torch.

What depends on a checkpoint (whether it has a bias at all, whether a norm has one) is left open here; `inspect` tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_bias_patch.architecture.condition import Condition
from hf_bias_patch.architecture.family import Attention, Blocker, Family, families, model_types
from hf_bias_patch.architecture.suggest import close_to
from hf_bias_patch.architecture.verdict import BLOCKERS, SlotFacts, decide
from hf_bias_patch.errors import FamilyError

__all__ = [
    "PROJECTIONS", "SupportCell", "SupportRow", "SupportTower", "cell_text", "columns", "markdown", "row",
    "support_table", "without_attention",
]  # fmt: skip


@dataclass(frozen=True)
class SupportCell:
    """What the family says about one projection's bias.

    Attributes:
        verdict: `redundant`, `foldable` or `needed`.
        reason: why not better than that; empty for `redundant`.
        folds: destination → empty if the fold is exact, else why it is refused.
        closed: names of the blockers that always close an identity.
        unless: blocker → the config values for which it closes one.
    """

    verdict: str
    reason: str
    folds: dict[str, str]
    closed: tuple[str, ...] = ()
    unless: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SupportRow:
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
    cells: dict[str, SupportCell]
    handled: dict[str, list[Any]]


@dataclass(frozen=True)
class SupportTower:
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


def support_table(names: Collection[str] = ()) -> tuple[tuple[SupportRow, ...], tuple[SupportTower, ...]]:
    """All sites and towers of some model types (of all, if none is named), by family.

    Raises:
        FamilyError: no family covers one of them.
    """
    known = model_types()
    if unknown := [name for name in names if name not in known]:
        raise FamilyError(
            f"No family covers the model type {' or '.join(map(repr, unknown))}",
            remedy=close_to(unknown, known) or "`hf-bias-patch families` lists what is known",
        )
    chosen = [(family, _of(family, names)) for family in families()]
    entries = [entry for family, types in chosen if types for entry in _entries(family, types)]
    towers = [
        SupportTower(family.name, types, name, tower.config, tower.model_type)
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


def _entries(family: Family, types: tuple[str, ...]) -> Iterable[SupportRow]:
    seen: list[SupportRow] = []
    for attention in family.attention:
        maps = dict.fromkeys(projection for projections in attention.maps.values() for projection in projections)
        cells: dict[str, SupportCell] = {
            name: _cell(family, attention, name) for name in ("query", "key", "value") if name in maps
        }
        entry = SupportRow(family.name, types, attention.stack, attention.kind, cells, family.handled)
        if entry not in seen:  # the same site under other names, or with another norm
            seen.append(entry)
            yield entry


def _cell(family: Family, attention: Attention, projection: str) -> SupportCell:
    always: dict[str, str] = {}
    closed: list[str] = []
    unless: dict[str, str] = {}
    identities = {"query": {"weight"}, "key": {"key", "weight"}, "value": {"value", "weight"}}[projection]
    for blocker in attention.blockers:
        reason, closes = BLOCKERS[blocker.name]
        if not closes & identities:
            continue
        if blocker.when or blocker.layers or blocker.but or blocker.only:
            unless[blocker.name] = _where(blocker)
            continue
        closed.append(blocker.name)
        for identity in closes:
            always.setdefault(identity, reason)
    has_output = any("output" in projections for projections in attention.maps.values())
    no_output = always.get("value", "") or ("" if has_output else "there is no output projection")
    no_norm = always.get("weight", "") or _no_norm(family, attention, projection)
    facts = SlotFacts(True, no_cancel=always.get("key", ""), no_norm=no_norm, no_output=no_output, no_shift="open here")
    verdict = decide(projection, facts)
    folds = {destination: refusal for destination, refusal in verdict.folds.items() if destination != "norm"}
    refusals = "; ".join(dict.fromkeys(filter(None, folds.values())))
    return SupportCell(verdict.state, "" if verdict.state == "redundant" else refusals, folds, tuple(closed), unless)


def _no_norm(family: Family, attention: Attention, projection: str) -> str:
    """Why no layer norm is read directly and alone, as a fold into the weight needs; empty if one is."""
    reads = attention.reads.get(projection, "") if isinstance(attention.reads, Mapping) else attention.reads  # type: ignore[call-overload]
    if attention.kind == "cross" and projection != "query" and not isinstance(attention.reads, Mapping):
        encoder = family.stacks.get("encoder")
        inner = encoder.final_norm if encoder and attention.stack != "encoder" else ""
        return "" if attention.memory or inner else "it reads hidden states that the caller passes in"
    return "" if reads not in ("", "none") else "it reads no layer norm directly and alone"


def _where(blocker: Blocker) -> str:
    """The config values for which a blocker is there, as text."""
    parts = list(_conditions(blocker.when))
    if blocker.layers:
        parts.append(f"{blocker.layers} of the layer is {_values(blocker.values)}")
    if blocker.but:
        parts.append(f"the layer is not in {blocker.but}")
    if blocker.only:
        parts.append(f"the layer is in {blocker.only}")
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


# ------------------------------------------------------------------------------------------------- as Markdown

_SHORT = {"output": "output bias", "weight": "own weight"}
PROJECTIONS = ("query", "key", "value")


def cell_text(cell: SupportCell | None) -> str:
    """A cell in a few words, such as `redundant`, `own weight (rotary)` or `needed (gate)`."""
    if cell is None:
        return "–"
    exact = [_SHORT[into] for into, refusal in cell.folds.items() if not refusal and into != "nothing"]
    if cell.verdict == "redundant":
        text = "redundant"
    elif exact:
        text = "→ " + " or ".join(exact)
    else:
        text = "needed"
    closed = f" ({', '.join(cell.closed)})" if cell.closed else ""
    unless = "; ".join(f"{blocker} if {where}" for blocker, where in cell.unless.items())
    return text + closed + (f"; {unless}" if unless else "")


def markdown(entries: Sequence[SupportRow], towers: Sequence[SupportTower], none: Sequence[str] = ()) -> str:
    """Tables of sites and towers, what the names of the blockers mean, and the model types without attention."""
    without = ["", f"Without attention, so that there is no bias of one: {', '.join(none)}.", ""] if none else []
    return "\n".join([*_sites(entries), *_towers(towers), *_blockers(entries), *without])


def _sites(entries: Sequence[SupportRow]) -> Iterator[str]:
    yield "| family | model types | site | query | key | value |"
    yield "|---|---|---|---|---|---|"
    for entry in entries:
        cells = (cell_text(entry.cells.get(name)) for name in PROJECTIONS)
        yield row(entry.family, ", ".join(entry.model_types), f"{entry.stack} {entry.kind}", *cells)
    yield ""


def _towers(towers: Sequence[SupportTower]) -> Iterator[str]:
    if not towers:
        return
    yield "Models inside models: each tower's own model type decides."
    yield ""
    yield "| family | model types | tower | config | if that names no type |"
    yield "|---|---|---|---|---|"
    for tower in towers:
        yield row(tower.family, ", ".join(tower.model_types), tower.name, tower.config, tower.model_type or "–")
    yield ""


def _blockers(entries: Sequence[SupportRow]) -> Iterator[str]:
    cells = [cell for entry in entries for cell in entry.cells.values()]
    used = {blocker for cell in cells for blocker in (*cell.closed, *cell.unless)}
    if not used:
        return
    yield "| blocker | what it is |"
    yield "|---|---|"
    for name, (reason, _) in BLOCKERS.items():
        if name in used:
            yield row(name, reason)
    yield ""


def row(*cells: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def columns(entries: Iterable[SupportRow]) -> Iterator[tuple[str, ...]]:
    """Rows of a table with one model type each: type, site, query, key, value."""
    for entry in entries:
        for model_type in entry.model_types:
            cells = (cell_text(entry.cells.get(name)) for name in PROJECTIONS)
            yield (model_type, f"{entry.stack} {entry.kind}", *cells)
