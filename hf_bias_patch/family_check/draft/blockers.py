"""Why a fold is impossible: the numbers say that it is, the reason is read off what a trace saw done to the values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_bias_patch.probing.findings import Finding
from hf_bias_patch.probing.sites import ProbedSite
from hf_bias_patch.probing.tags import Tag
from hf_bias_patch.probing.trace import Trace

__all__ = ["Operation", "Watch", "name_blockers"]

_NORMS = {
    "_fused_rms_norm", "linalg_vector_norm", "mean", "native_batch_norm", "native_group_norm", "native_layer_norm",
    "norm", "rms_norm", "var", "var_mean",
}  # fmt: skip
_CLIPS = {"clamp", "clamp_", "clamp_max", "clamp_min", "hardtanh"}
_CURVES = {"elu", "exp", "gelu", "pow", "relu", "sigmoid", "silu", "softplus", "tanh"}


@dataclass(frozen=True)
class Operation:
    """Something done to outputs of a map.

    Attributes:
        what: `norm`, `rotary` (a sum of its own entries, moved), `clip`, `product` (with another map's) or `curve`.
        codes: of the entries, as in `Codes`.
    """

    what: str
    codes: frozenset[int]


class Watch(Trace):
    """A trace with notes.

    Attributes:
        steps: done to the outputs of maps, in order.
        beside: number of a product → what stands beside its scores in one row: `sink` (a parameter) or `extra_key`.
        widths: number of a product → entries of a key that it compares: the size of a head.
    """

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__(parameters)
        self.steps: list[Operation] = []
        self.beside: dict[int, str] = {}
        self.widths: dict[int, int] = {}

    def done_to(self, codes: Iterable[int]) -> set[str]:
        """What was done to any of these entries."""
        wanted = set(codes)
        return {step.what for step in self.steps if step.codes & wanted}

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, tagged: list[Tag]) -> None:
        active = [tag for tag in tagged if tag.kind == "activation" and tag.shadow is not None]
        what = _what(name, len(active))
        if what and (what != "rotary" or self._same_origin(active)):
            codes = frozenset(code for code in active[0].shadow.unique().tolist() if code >= 0)  # type: ignore[union-attr]
            self.steps.append(Operation(what, codes))
        if name in ("cat", "constant_pad_nd"):
            self._note_beside(tagged)
        super()._follow(func, name, args, kwargs, out, tagged)

    def _note_beside(self, tagged: list[Tag]) -> None:
        scores = [score for tag in tagged if tag.kind == "score" for score in tag.scores]
        beside = "sink" if any(tag.kind == "parameter" for tag in tagged) else "extra_key"
        for score in scores:
            self.beside.setdefault(score.number, beside)

    def _attention(self, a: Tag | None, b: Tag | None, left: Tensor, right: Tensor, out: Tensor) -> None:
        before = self.products
        super()._attention(a, b, left, right, out)
        if self.products > before:
            self.widths[self.products] = left.shape[-1]


def _what(name: str, active: int) -> str:
    if not active:
        return ""
    if name in _NORMS:
        return "norm"
    if name in ("add", "add_", "sub") and active > 1:
        return "rotary"
    if name in ("mul", "mul_") and active > 1:
        return "product"
    if name in _CLIPS:
        return "clip"
    return "curve" if name in _CURVES else ""


_NO_BIAS = "the output projection has no bias"


def name_blockers(
    watch: Watch, site: ProbedSite, findings: Sequence[Finding], shared: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The blockers of a site, in a fixed order, and what could not be told.

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
        named += _key_blockers(watch, site, keys, beside, doubts)
    refusals = {finding.folds.get("output", finding.reason) for finding in values} - {"", _NO_BIAS}
    if refusals and shared != "value":
        named += _value_blockers(watch, site, values, beside, doubts)
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


def _key_blockers(
    watch: Watch, site: ProbedSite, keys: Iterable[Finding], beside: set[str], doubts: list[str]
) -> list[str]:
    done = {what for finding in keys if finding.state != "redundant" for what in watch.done_to(_codes(watch, finding))}
    ops = _ops(watch, site)
    named = [blocker for what, blocker in (("rotary", "rotary"), ("norm", "qk_norm"), ("clip", "clip")) if what in done]
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


def _value_blockers(
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
