"""The matrix of families as Markdown: docs/families.md and the README's table are made of this."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from hf_bias_patch.attention.support_table import Cell, Entry, TowerEntry
from hf_bias_patch.attention.verdict import BLOCKERS

__all__ = ["cell_text", "columns", "markdown", "overview"]

_SHORT = {"output": "output bias", "weight": "own weight"}
PROJECTIONS = ("query", "key", "value")


def cell_text(cell: Cell | None) -> str:
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
    unless = "; ".join(f"{trap} if {where}" for trap, where in cell.unless.items())
    return text + closed + (f"; {unless}" if unless else "")


def markdown(entries: Sequence[Entry], towers: Sequence[TowerEntry], none: Sequence[str] = ()) -> str:
    """Tables of sites and towers, what the names of the traps mean, and the model types without attention."""
    without = ["", f"Without attention, so that there is no bias of one: {', '.join(none)}.", ""] if none else []
    return "\n".join([*_sites(entries), *_towers(towers), *_traps(entries), *without])


def overview(entries: Iterable[Entry], model_types: Sequence[str]) -> str:
    """A short table: some model types in the order given, those with the same cells in one row."""
    sites: dict[str, dict[tuple[str, ...], list[str]]] = {name: {} for name in model_types}
    for entry in entries:
        cells = tuple(_short(entry.cells.get(name), name) for name in PROJECTIONS)
        for name in entry.model_types:
            if name in sites:
                what = entry.stack if entry.kind == "self" else entry.kind
                sites[name].setdefault(cells, []).append(what)
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, found in sites.items():
        for number, (cells, kinds) in enumerate(found.items()):
            rows.setdefault(cells, []).append(f"{name} ({', '.join(dict.fromkeys(kinds))})" if number else name)
    body = [_row(", ".join(names), *cells) for cells, names in rows.items()]
    return "\n".join(["| model types | query | key | value |", "|---|---|---|---|", *body, ""])


def _short(cell: Cell | None, projection: str) -> str:
    """A cell's text, without the traps that leave the first road of this projection open."""
    if cell is None:
        return "–"
    road = {"query": "weight", "key": "key", "value": "value"}[projection]
    closed = tuple(trap for trap in cell.closed if road in BLOCKERS[trap][1])
    unless = {trap: where for trap, where in cell.unless.items() if road in BLOCKERS[trap][1] and not closed}
    return cell_text(replace(cell, closed=closed, unless=unless))


def _sites(entries: Sequence[Entry]) -> Iterator[str]:
    yield "| family | model types | site | query | key | value |"
    yield "|---|---|---|---|---|---|"
    for entry in entries:
        cells = (cell_text(entry.cells.get(name)) for name in PROJECTIONS)
        yield _row(entry.family, ", ".join(entry.model_types), f"{entry.stack} {entry.kind}", *cells)
    yield ""


def _towers(towers: Sequence[TowerEntry]) -> Iterator[str]:
    if not towers:
        return
    yield "Models inside models: each tower's own model type decides."
    yield ""
    yield "| family | model types | tower | config | if that names no type |"
    yield "|---|---|---|---|---|"
    for tower in towers:
        yield _row(tower.family, ", ".join(tower.model_types), tower.name, tower.config, tower.model_type or "–")
    yield ""


def _traps(entries: Sequence[Entry]) -> Iterator[str]:
    cells = [cell for entry in entries for cell in entry.cells.values()]
    used = {trap for cell in cells for trap in (*cell.closed, *cell.unless)}
    if not used:
        return
    yield "| trap | what it is |"
    yield "|---|---|"
    for name, (reason, _) in BLOCKERS.items():
        if name in used:
            yield _row(name, reason)
    yield ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def columns(entries: Iterable[Entry]) -> Iterator[tuple[str, ...]]:
    """Rows of a table with one model type each: type, site, query, key, value."""
    for entry in entries:
        for model_type in entry.model_types:
            cells = (cell_text(entry.cells.get(name)) for name in PROJECTIONS)
            yield (model_type, f"{entry.stack} {entry.kind}", *cells)
