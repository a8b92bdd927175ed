"""One probe of several: what they say of a bias holds only if all of them say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hf_bias_patch.probing.probe import Finding, Probe

__all__ = ["combine"]

_ORDER = ("needed", "undecided", "not reached", "redundant")
"""States, what outweighs the others first: a single run in which a bias moves the output decides."""


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
