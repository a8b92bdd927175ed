"""Names what closes the roads of a site. That a road is closed the numbers say; the name is read off the trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hf_bias_patch.family_check.draft.watch import Watch
from hf_bias_patch.probing.probe import Finding
from hf_bias_patch.probing.sites import ProbedSite

__all__ = ["name_traps"]

_NO_BIAS = "the output projection has no bias"


def name_traps(
    watch: Watch, site: ProbedSite, findings: Sequence[Finding], shared: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The traps of a site, in a fixed order, and what could not be told.

    Args:
        watch: of the run.
        site: which.
        findings: of its biases.
        shared: the projection whose map is the key's own, too; empty if none is.
    """
    keys = [finding for finding in findings if finding.projection == "key"]
    values = [finding for finding in findings if finding.projection == "value"]
    beside = {watch.beside[score] for score in _numbers(watch, site) if score in watch.beside}
    named: list[str] = []
    doubts: list[str] = []
    if shared:
        named.append("key_used")
    elif any(finding.state != "redundant" for finding in keys):
        named += _key_traps(watch, site, keys, beside, doubts)
    refusals = {finding.folds.get("output", finding.reason) for finding in values} - {"", _NO_BIAS}
    if refusals and shared != "value":
        named += _value_traps(watch, site, values, beside, doubts)
    doubts += [
        f"the probe says {finding.state} of its {finding.projection}: {finding.reason}"
        for finding in findings
        if finding.state in ("not reached", "undecided")
    ]
    return tuple(dict.fromkeys(named)), tuple(dict.fromkeys(doubts))


def _numbers(watch: Watch, site: ProbedSite) -> set[int]:
    return {score.number for number in site.mixings for score in watch.mixings[number].scores}


def _ops(watch: Watch, site: ProbedSite) -> set[str]:
    return {op for number in site.mixings for score in watch.mixings[number].scores for op in score.ops}


def _key_traps(
    watch: Watch, site: ProbedSite, keys: Iterable[Finding], beside: set[str], doubts: list[str]
) -> list[str]:
    done = {what for finding in keys if finding.state != "redundant" for what in watch.done_to(_codes(watch, finding))}
    ops = _ops(watch, site)
    named = [trap for what, trap in (("rotary", "rotary"), ("norm", "qk_norm"), ("clip", "clip")) if what in done]
    named += ["softcap"] if "tanh" in ops else []
    named += ["selection"] if {"topk", "argsort", "sort"} & ops else []
    named += sorted(beside, reverse=True)
    several = any(len(watch.mixings[number].scores) > 1 for number in site.mixings)
    if not named and several:
        named.append("key_positions")
    if not named:
        named.append("key_mixed")
        doubts.append("its key bias matters, and why could not be told (`key_mixed` stands for that)")
    return named


def _value_traps(
    watch: Watch, site: ProbedSite, values: Iterable[Finding], beside: set[str], doubts: list[str]
) -> list[str]:
    between = {op for number in site.mixings for op in watch.mixings[number].between}
    done = {what for finding in values for what in watch.done_to(_codes(watch, finding))}
    if "norm" in between:
        named = ["norm_after"]
    elif {"mul", "mul_"} & between:
        named = ["gate"]
    elif between:
        named = ["between"]
    else:
        named = []
    named += ["value_rotary"] if "rotary" in done else ["clip"] if "clip" in done else ["value_mixed"] if done else []
    named = named or sorted(beside, reverse=True)
    if not named:
        named = ["output_used"] if all(finding.output is None for finding in values) else ["value_mixed"]
        doubts.append(f"its value bias does not fold, and why could not be told (`{named[0]}` stands for that)")
    return named


def _codes(watch: Watch, finding: Finding) -> list[int]:
    """Codes of a bias and of the rows it is added to."""
    start = watch.codes.start(watch.codes.names.index(finding.parameter))
    biases = [start + index for index in finding.indices]
    return biases + [watch.rows[bias] for bias in biases if bias in watch.rows]
