"""A probe of a model in memory, in the names that its files have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hf_bias_patch.probing.origin import Elements
from hf_bias_patch.probing.probe import Finding, Probe
from hf_bias_patch.probing.sites import ProbedSlot
from hf_bias_patch.probing.tags import NormTag

__all__ = ["renamed"]


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
