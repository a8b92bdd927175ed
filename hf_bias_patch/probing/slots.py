"""From findings to sites and slots that edits can be planned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from hf_bias_patch.architecture.layout import View
from hf_bias_patch.architecture.sites import PROJECTIONS, Norm, Projection, Site, Slot, Tensor
from hf_bias_patch.architecture.verdict import DESTINATIONS, Verdict
from hf_bias_patch.patching.algebra import repeat_groups
from hf_bias_patch.probing.findings import Finding, Probe
from hf_bias_patch.probing.origin import Elements

__all__ = ["sites_of", "view_of"]


def sites_of(probe: Probe, tensors: Mapping[str, Tensor], table: Sequence[Site] = ()) -> tuple[Site, ...]:
    """The family's sites, with the probe's verdict for each `unknown`; then the sites that only the probe found.

    Args:
        probe: of the model.
        tensors: of its checkpoint: what they do not hold cannot be edited and is left out.
        table: the family's sites. Their slots stay, but for those it calls `unknown`.
    """
    there = [finding for finding in probe.findings if _stored(finding, tensors)]
    known = tuple(_decided(site, there, tensors) for site in table)
    covered = {slot.bias for site in table for slot in site.slots.values()}
    others = [finding for finding in there if finding.parameter not in covered]
    paths = dict.fromkeys(finding.site for finding in others)
    own = (_site(path, [f for f in others if f.site == path], there, tensors) for path in paths)
    return (*known, *own)


def view_of(indices: Sequence[int], axis: int) -> View | None:
    """The view that holds exactly these indices of an axis, in ascending order; None if no view does."""
    runs = [
        [index for _, index in group] for _, group in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0])
    ]
    if len(runs) == 1:
        return View(1, axis, indices[0], indices[-1] + 1)
    if axis % len(runs):
        return None
    length = axis // len(runs)
    start, stop = runs[0][0], runs[0][-1] + 1
    regular = all(
        run[0] == number * length + start and run[-1] + 1 == number * length + stop for number, run in enumerate(runs)
    )
    return View(len(runs), length, start, stop) if regular and stop <= length else None


def _stored(finding: Finding, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the checkpoint has the bias under the name it has in memory."""
    return finding.parameter in tensors and max(finding.indices) < tensors[finding.parameter].shape[0]


def _decided(site: Site, findings: Sequence[Finding], tensors: Mapping[str, Tensor]) -> Site:
    """A site of the table, its unknown slots decided by numbers."""
    slots = dict(site.slots)
    for projection, slot in site.slots.items():
        if slot.verdict.state != "unknown":
            continue
        own = [f for f in findings if f.parameter == slot.bias and f.projection == projection]
        if len(own) == 1:
            slots[projection] = _slot(own[0], findings, tensors, site.heads) or slot
            if own[0].output is not None and slots["output"].verdict.state == "unknown":
                slots["output"] = _output(own[0].output.bias, own[0].output.weight, tensors) or slots["output"]
    return replace(site, slots=slots)


def _site(path: str, own: Sequence[Finding], others: Sequence[Finding], tensors: Mapping[str, Tensor]) -> Site:
    """A site that only the probe found. Its module path gives stack, layer number and kind."""
    parts = path.split(".") if path else []
    at = max((number for number, part in enumerate(parts) if part.isdigit()), default=len(parts))
    before, layer, behind = parts[:at], int(parts[at]) if at < len(parts) else 0, parts[at + 1 :]
    heads = next((found for finding in own if (found := _heads(finding, 0))), 1)
    slots: dict[str, Slot] = {projection: _none(projection) for projection in PROJECTIONS}
    for finding in own:
        same = [f for f in own if f.projection == finding.projection]
        slot = _slot(finding, others, tensors, heads) if len(same) == 1 else None
        if slot is not None:
            slots[slot.projection] = slot
        if slot is not None and finding.output is not None:
            slots["output"] = _output(finding.output.bias, finding.output.weight, tensors) or slots["output"]
    return Site("-".join(before) or "model", layer, "-".join(behind) or "attention", heads, slots)


def _slot(finding: Finding, others: Sequence[Finding], tensors: Mapping[str, Tensor], heads: int) -> Slot | None:
    """A slot with the numbers' verdict; None where its elements are no regular part of the parameter."""
    view = _view(finding.parameter, finding.indices, 0, tensors)
    if view is None:
        return None
    weight, rows = _weight(finding.weight, tensors)
    folds = _folds(finding, others, weight is not None, tensors, heads)
    exact = [destination for destination, refusal in folds.items() if not refusal]
    state = "unknown" if finding.state in ("undecided", "not reached") else "needed"
    if exact:
        state = "redundant" if exact[0] == "nothing" else "foldable"
    norm = finding.norm
    return Slot(
        projection=_projection(finding),
        bias=finding.parameter,
        weight=weight,
        view=view,
        conv1d=finding.weight is not None and finding.weight.axis == 1,
        norm=None if norm is None else Norm(norm.weight, norm.bias, residual=False, dropout=norm.dropout),
        verdict=Verdict(state, f"probed: {finding.reason}", folds),
        rows=rows or view,
    )


def _folds(
    finding: Finding, others: Sequence[Finding], has_weight: bool, tensors: Mapping[str, Tensor], heads: int
) -> dict[str, str]:
    """Destination → empty where the probe tried the fold and it is exact, and an edit can be written; else why not."""
    closed = ""
    if finding.state not in ("redundant", "needed"):
        closed = f"the probe says {finding.state}: {finding.reason}"
    shared = [f for f in others if f.parameter == finding.parameter and set(f.indices) & set(finding.indices)]
    if len({f.projection for f in shared}) > 1:
        closed = "one bias serves several projections"
    elif any(f.indices != finding.indices for f in shared):
        closed = "another site uses a part of this bias"
    found = {"nothing": "" if finding.state == "redundant" else finding.reason, **finding.folds}
    found["norm"] = "it is planned from a family only"
    if not has_weight:
        found["weight"] = found.get("weight") or "its weight is no matrix of the checkpoint"
    if finding.norm is None or not {finding.norm.weight, finding.norm.bias} <= tensors.keys():
        found["weight"] = found.get("weight") or "the checkpoint does not hold the norm before it"
    if finding.projection == "value":
        found["output"] = found.get("output") or _no_output(finding, tensors, heads)
    if any(f is not finding and f.output != finding.output for f in shared):
        found["output"] = "several sites mix this value"
    return {
        destination: closed or found.get(destination, "not tried") for destination in DESTINATIONS[finding.projection]
    }


def _no_output(finding: Finding, tensors: Mapping[str, Tensor], heads: int) -> str:
    output = finding.output
    if output is None or _output(output.bias, output.weight, tensors) is None:
        return "the output projection is no map of the checkpoint with a bias of its own"
    if not _heads(finding, heads):
        return "its heads reach the output projection in no regular order"
    return ""


def _heads(finding: Finding, wanted: int) -> int:
    """Query heads (`wanted`, or the fewest) with which a value is repeated as was seen; 0 if there is no number."""
    if finding.projection != "value" or not finding.read or -1 in finding.read:
        return 0
    place = {index: number for number, index in enumerate(finding.indices)}
    read = [place[index] for index in finding.read]
    size, width = len(place), len(read)
    for heads in [wanted] if wanted else range(1, width + 1):
        if width % heads or size % (width // heads) or heads % (size // (width // heads)):
            continue
        if repeat_groups(np.arange(size, dtype=np.float64), width, heads).astype(int).tolist() == read:
            return heads
    return 0


def _output(bias: Elements, weight: Elements | None, tensors: Mapping[str, Tensor]) -> Slot | None:
    view = _view(bias.parameter, bias.indices, 0, tensors)
    name, rows = _weight(weight, tensors)
    if view is None or not view.is_whole or name is None or rows is None or weight is None:
        return None
    verdict = Verdict("needed", "it is added after attention, and value biases fold into it")
    return Slot("output", bias.parameter, name, view, weight.axis == 1, None, verdict, rows)


def _weight(weight: Elements | None, tensors: Mapping[str, Tensor]) -> tuple[str | None, View | None]:
    """The weight's name and the projection's part of it; None where it is no matrix of the checkpoint."""
    if weight is None or weight.parameter not in tensors or len(tensors[weight.parameter].shape) != 2:
        return None, None
    rows = _view(weight.parameter, weight.indices, weight.axis, tensors)
    return (weight.parameter, rows) if rows is not None else (None, None)


def _view(name: str, indices: Sequence[int], axis: int, tensors: Mapping[str, Tensor]) -> View | None:
    if name not in tensors or len(tensors[name].shape) <= axis:
        return None
    return view_of(indices, tensors[name].shape[axis])


def _projection(finding: Finding) -> Projection:
    return next(name for name in PROJECTIONS if name == finding.projection)


def _none(projection: Projection) -> Slot:
    """The slot of a projection without a bias."""
    verdict = Verdict("absent", "the checkpoint has no such bias, or none that an edit can reach")
    return Slot(projection, None, None, View.whole(1), False, None, verdict, View.whole(1))
