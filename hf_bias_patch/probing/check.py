"""Holds the family table against the numbers of a probe, slot by slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site, Slot, Tensor
from hf_bias_patch.errors import BiasPatchError, CheckpointError
from hf_bias_patch.probing.findings import Finding, Probe
from hf_bias_patch.probing.probe import NO_CONSTANT

__all__ = ["UNSEEN", "Checked", "Difference", "check"]

WRONG, MISSED, UNSEEN = "wrong", "missed", "unseen"


@dataclass(frozen=True)
class Difference:
    """Where table and numbers do not say the same of one bias.

    Attributes:
        kind: `wrong` (the table promises what the numbers refute, or takes a bias for another's), `missed` (the
            numbers show what the table does not promise), or `unseen` (the run did not reach what the table names, or
            shows nothing of it).
        slot: the bias, as `parameter (projection)`.
        table, numbers: what each says.
    """

    kind: str
    slot: str
    table: str
    numbers: str


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        agreed: slots of which table and numbers say the same.
        differences: the others.
        closable: those agreed of which both say that the bias is redundant or folds.
        slots: all biases of queries, keys and values, the table's and those it does not know.
        unknown: those of them that the table says nothing of.
        untouched: parameters that no run read, `family_check.reasons.untouched.Untouched` each.
        explained: unseen biases that have a reason (`family_check.reasons`) → the reason; these are no differences.
    """

    agreed: int
    differences: tuple[Difference, ...]
    closable: int = 0
    slots: int = 0
    unknown: int = 0
    untouched: tuple[Any, ...] = ()
    explained: dict[str, str] = field(default_factory=dict)

    @property
    def wrong(self) -> tuple[Difference, ...]:
        """The differences that would ruin a checkpoint."""
        return tuple(difference for difference in self.differences if difference.kind == WRONG)


@dataclass(frozen=True)
class _Entry:
    """A slot of the table with the bias elements it claims."""

    site: Site
    slot: Slot
    indices: frozenset[int]


def check(config: Mapping[str, Any], tensors: Mapping[str, Tensor], probe: Probe) -> Checked:
    """Compare the verdicts of a config's family with what a probe of that very model found.

    Args:
        config, tensors: as for `find_sites`.
        probe: of the model.
    """
    entries = _entries(config, tensors)
    if isinstance(entries, str):
        lost = [Difference(_missed(finding), _name(finding), entries, _says(finding)) for finding in probe.findings]
        return Checked(0, tuple(lost), slots=len(lost), unknown=len(lost))
    if isinstance(entries, Difference):
        return Checked(0, (entries,) if probe.findings else ())  # without attention, no sites are no fault
    agreed, closable, strange, differences, seen = 0, 0, 0, [], set()
    for finding in probe.findings:
        number = _match(entries, finding)
        found = _compare(None if number is None else entries[number], finding, _twins(probe, finding))
        if number is not None:
            seen.add(number)
        differences += found
        agreed += not found
        closable += not found and _missed(finding) == MISSED
        strange += number is None
    for number, entry in enumerate(entries):
        if number not in seen and entry.slot.projection != "output":
            name = f"{entry.slot.bias} ({entry.slot.projection})"
            differences.append(Difference(UNSEEN, name, entry.slot.verdict.state, "the run did not come there"))
    known = [entry.slot.verdict.state for entry in entries if entry.slot.projection != "output"]
    unknown = strange + known.count("unknown")
    return Checked(agreed, tuple(differences), closable, slots=strange + len(known), unknown=unknown)


def _entries(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[_Entry] | str | Difference:
    """The table's slots; or a text, why it has none; or a difference, where it takes a working model for damaged."""
    try:
        sites = find_sites(config, tensors)
    except CheckpointError as error:
        return Difference(WRONG, str(config.get("model_type")), str(BiasPatchError(error.what, error.why)), "it runs")
    except BiasPatchError as error:
        return str(BiasPatchError(error.what, error.why))
    return [
        _Entry(site, slot, frozenset(slot.view.take(np.arange(slot.view.axis)).tolist()))
        for site in sites
        for slot in site.slots.values()
        if slot.bias is not None
    ]


def _match(entries: list[_Entry], finding: Finding) -> int | None:
    """The entry of the table that shares most elements with a finding."""
    wanted = set(finding.indices)
    shared = [len(wanted & entry.indices) if entry.slot.bias == finding.parameter else 0 for entry in entries]
    best = max(range(len(entries)), key=lambda number: shared[number], default=None)
    return best if best is not None and shared[best] else None


def _twins(probe: Probe, finding: Finding) -> set[str]:
    """All projections that one and the same bias is of: a map may make the queries of one site, the keys of another."""
    same = (other for other in probe.findings if other.parameter == finding.parameter)
    return {other.projection for other in same if other.indices == finding.indices}


def _compare(entry: _Entry | None, finding: Finding, twins: set[str]) -> list[Difference]:
    name, says = _name(finding), _says(finding)
    unproved = finding.state in ("not reached", "undecided")
    if entry is None:
        return [Difference(UNSEEN if unproved else _missed(finding), name, "no such slot", says)]
    slot = entry.slot
    if norms := _other_norm(slot, finding):
        return [Difference(WRONG, name, *norms)]
    if unproved:
        return [Difference(UNSEEN, name, slot.verdict.state, says)]
    table = f"{slot.projection}: {slot.verdict.state}"
    if slot.projection not in twins or entry.indices != set(finding.indices):
        kind = WRONG if slot.verdict.destinations else _missed(finding)
        return [Difference(kind, name, f"{table} of {len(entry.indices)} elements", says)]
    found = []
    proved = {
        "nothing": finding.state == "redundant",
        **{destination: not why for destination, why in finding.folds.items()},
    }
    for destination, refusal in slot.verdict.folds.items():
        if (
            destination == "norm"
            or destination not in proved
            or finding.folds.get(destination, "").endswith(NO_CONSTANT)
        ):
            continue
        if not refusal and not proved[destination]:
            found.append(Difference(WRONG, name, f"{destination}: exact", says))
        elif refusal and proved[destination]:
            found.append(Difference(MISSED, name, f"{destination}: {refusal}", says))
    return found


def _other_norm(slot: Slot, finding: Finding) -> tuple[str, str] | None:
    """The norms that table and graph say a map reads, if the table folds through one and they are not the same.

    The graph shows it where the numbers cannot: attention to a single key is the same whatever query and key are.
    """
    if slot.norm is None or finding.norm is None or slot.verdict.folds.get("weight", "closed"):
        return None
    if slot.norm.weight == finding.norm.weight:
        return None
    return f"it reads {slot.norm.weight}", f"it reads {finding.norm.weight}"


def _missed(finding: Finding) -> str:
    """The kind of a difference for a bias that the table lacks: `missed` if the numbers show a fold for it."""
    return MISSED if finding.state == "redundant" or "" in finding.folds.values() else UNSEEN


def _name(finding: Finding) -> str:
    return f"{finding.parameter} ({finding.projection})"


def _says(finding: Finding) -> str:
    folds = "; ".join(f"{destination}: {why or 'exact'}" for destination, why in finding.folds.items())
    return f"{finding.state} ({finding.reason})" + (f"; {folds}" if folds else "")
