"""What a probe found of each bias: one run's findings, those of several runs joined, and in the names of the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hf_bias_patch.probing.origin import Elements
from hf_bias_patch.probing.sites import ProbedSlot
from hf_bias_patch.probing.tags import NormTag

__all__ = ["Finding", "Probe", "combine", "renamed"]

_ORDER = ("needed", "undecided", "not reached", "redundant")
"""States, what outweighs the others first: a single run in which a bias moves the output decides."""


@dataclass(frozen=True)
class Finding:
    """What the numbers say of one bias.

    Attributes:
        site, projection: whose bias it is.
        parameter: its name.
        indices: its elements.
        effect: largest relative change of an output when it was moved.
        state: `redundant`, `needed`, `not reached` or `undecided`.
        reason: one sentence.
        folds: destination (`output`, `weight`) → empty if the fold was exact, else why not.
        norm: the layer norm that the weight reads, directly and alone; None if there is none.
        weight: the rows or columns of the weight it belongs to; None if that is not known.
        output: the bias of the site's output projection; None if there is none, or several.
        read: for each input of the output projection, the value bias element (an index of the parameter) that
            reaches it, -1 where none does; empty for other projections and where something stands between.
    """

    site: str
    projection: str
    parameter: str
    indices: tuple[int, ...]
    effect: float
    state: str
    reason: str
    folds: dict[str, str] = field(default_factory=dict)
    norm: NormTag | None = None
    weight: Elements | None = None
    output: ProbedSlot | None = None
    read: tuple[int, ...] = ()


@dataclass(frozen=True)
class Probe:
    """All that a probe found.

    Attributes:
        findings: a bias each.
        floor: relative change of the outputs by the last bits of all parameters.
        untouched: parameters that no op of the runs read; nothing is known of them.
    """

    findings: tuple[Finding, ...]
    floor: float
    untouched: tuple[str, ...]


def combine(probes: Sequence[Probe]) -> Probe:
    """Join probes of one model on several inputs.

    A bias is redundant only where every run says so, and a fold exact only where every run that tried it did no harm.
    """
    if len(probes) == 1:
        return probes[0]
    found: dict[tuple[str, str, str, tuple[int, ...]], list[Finding]] = {}
    for probe in probes:
        for finding in probe.findings:
            key = (finding.site, finding.projection, finding.parameter, finding.indices)
            found.setdefault(key, []).append(finding)
    untouched = tuple(name for name in probes[0].untouched if all(name in other.untouched for other in probes))
    findings = tuple(_joined(same, len(probes)) for same in found.values())
    return Probe(findings, max(probe.floor for probe in probes), untouched)


def _joined(same: Sequence[Finding], runs: int) -> Finding:
    first = min(same, key=lambda finding: _ORDER.index(finding.state))
    effect = max(finding.effect for finding in same)
    if first.state == "redundant" and len(same) < runs:
        reason = f"on {runs - len(same)} of {runs} inputs no attention used it"
        return replace(first, effect=effect, state="not reached", reason=reason, folds={})
    tried = [finding.folds for finding in same if finding.folds]
    names = dict.fromkeys(name for folds in tried for name in folds)
    folds = {
        name: next((folds.get(name, "not tried") for folds in tried if folds.get(name, "not tried")), "")
        for name in names
    }
    if any(finding.read != first.read or finding.norm != first.norm for finding in same):
        folds = dict.fromkeys(folds, "what reads it, or what it reads, differs from input to input")
    return replace(first, effect=effect, folds=folds)


def renamed(probe: Probe, names: Mapping[str, str], starts: Mapping[str, int] | None = None) -> Probe:
    """A probe in the names of the files; what has none there keeps its own.

    Args:
        probe: in the names that the model has in memory.
        names: in-memory name → name in a file.
        starts: in-memory name → its first row there, where that is not 0.
    """
    findings = (_shifted(finding, (starts or {}).get(finding.parameter, 0)) for finding in probe.findings)
    return replace(probe, findings=tuple(_renamed(finding, names) for finding in findings))


def _shifted(finding: Finding, start: int) -> Finding:
    return replace(finding, indices=tuple(index + start for index in finding.indices)) if start else finding


def _renamed(finding: Finding, names: Mapping[str, str]) -> Finding:
    norm = finding.norm
    return replace(
        finding,
        parameter=names.get(finding.parameter, finding.parameter),
        norm=norm and _norm(norm, names),
        weight=finding.weight and _elements(finding.weight, names),
        output=finding.output and _slot(finding.output, names),
    )


def _elements(elements: Elements, names: Mapping[str, str]) -> Elements:
    return replace(elements, parameter=names.get(elements.parameter, elements.parameter))


def _norm(norm: NormTag, names: Mapping[str, str]) -> NormTag:
    return replace(norm, weight=names.get(norm.weight, norm.weight), bias=names.get(norm.bias, norm.bias))


def _slot(slot: ProbedSlot, names: Mapping[str, str]) -> ProbedSlot:
    weight = slot.weight and _elements(slot.weight, names)
    return replace(slot, bias=_elements(slot.bias, names), weight=weight)
