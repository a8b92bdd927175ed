"""From what a trace recorded to attention sites: which parameter elements are a site's query, key, value and output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from hf_bias_patch.probing.origin import Elements
from hf_bias_patch.probing.tags import Mixing, NormTag
from hf_bias_patch.probing.trace import Trace

__all__ = ["ProbedSite", "ProbedSlot", "assemble"]


@dataclass(frozen=True)
class ProbedSlot:
    """One bias behind one projection of one site.

    Attributes:
        projection: `query`, `key`, `value` or `output`.
        bias: the bias elements, in ascending order.
        weight: the rows (axis 0) or columns (axis 1) of the weight they are added to the outputs of; None if unknown.
        norms: the layer norms whose outputs the weight's inputs are; None among them where an input is no norm's.
    """

    projection: str
    bias: Elements
    weight: Elements | None
    norms: tuple[NormTag | None, ...]


@dataclass
class ProbedSite:
    """One attention site, as the numbers showed it.

    Attributes:
        name: the module that its projections have in common.
        roles: projection and parameter elements behind it: its biases, or the weight's rows where there is none.
        slots: every bias found behind its projections; a projection without one is not among them.
        mixings: positions of its attention calls in the trace.
        softmax: whether all its scores went through softmax, and nothing else was done to the weights.
        spread: largest difference of scores within a row: 0 means that keys and queries could not show.
        ops: what else was done to scores, or to the mixed values before the output map.
    """

    name: str
    roles: tuple[tuple[str, Elements], ...]
    slots: list[ProbedSlot]
    mixings: list[int]
    softmax: bool
    spread: float
    ops: tuple[str, ...] = field(default=())

    @property
    def output(self) -> ProbedSlot | None:
        """The one output bias; None if there is none, or several."""
        outputs = [slot for slot in self.slots if slot.projection == "output"]
        return outputs[0] if len(outputs) == 1 else None


def assemble(trace: Trace) -> list[ProbedSite]:
    """All sites of a trace, in the order of the forward pass; calls that use the same parameters are one site."""
    found: dict[tuple[object, ...], ProbedSite] = {}
    norms = _norms(trace)
    for number, mixing in enumerate(trace.mixings):
        roles = _roles(trace, mixing)
        identity = tuple((role, elements) for role, elements in roles)
        if identity in found:
            site = found[identity]
            site.mixings.append(number)
            site.spread = max(site.spread, _spread(mixing))
            continue
        slots = [
            ProbedSlot(role, bias, _weight_of(trace, bias), norms.get(_owner(trace, bias), ()))
            for role, bias in roles
            if not _is_weight(trace, bias)
        ]
        ops = (*(op for score in mixing.scores for op in score.ops), *mixing.between)
        softmax = all(score.softmax for score in mixing.scores)
        found[identity] = ProbedSite(_name(roles), tuple(roles), slots, [number], softmax, _spread(mixing), ops)
    return _joined(list(found.values()))


def _joined(sites: Sequence[ProbedSite]) -> list[ProbedSite]:
    """Sites, each that is a part of another counted with it: some inputs make more maps run in the same attention."""
    left = []
    for site in sites:
        whole = next((o for o in sites if o.name == site.name and set(site.roles) < set(o.roles)), None)
        if whole is None:
            left.append(site)
            continue
        whole.mixings += site.mixings
        whole.ops += site.ops
        whole.softmax = whole.softmax and site.softmax
        whole.spread = max(whole.spread, site.spread)
    return left


def _spread(mixing: Mixing) -> float:
    return max((score.spread for score in mixing.scores), default=0.0)


def _roles(trace: Trace, mixing: Mixing) -> list[tuple[str, Elements]]:
    """Projection and elements, biases or (without one) weights."""
    first = mixing.scores[0]
    scores = [first, *(score for score in mixing.scores if score.apart and score.number != first.number)]
    queries, keys = [], []
    for score in scores:
        query, key = (score.right, score.left) if score.swapped else (score.left, score.right)
        queries.append(query.flatten())
        keys.append(key.flatten())
    found = [("query", torch.cat(queries)), ("key", torch.cat(keys)), ("value", mixing.value)]
    roles = [(role, e) for role, codes in found if codes is not None for e in trace.codes.elements(codes)]
    if mixing.output is not None:
        roles += [("output", e) for e in _output(trace, mixing)]
    return roles


def _output(trace: Trace, mixing: Mixing) -> list[Elements]:
    """The output map's bias, or its weight where it has none."""
    assert mixing.output is not None
    start = trace.codes.start(mixing.output)
    size = trace.codes.shapes[mixing.output][mixing.output_axis]
    rows = {trace.codes.count * (1 + mixing.output_axis) + start + index for index in range(size)}
    # A table that is added to an output, such as that of latent queries, is no bias of the map.
    biases = [bias for bias, row in trace.rows.items() if row in rows and len(_shape(trace, bias)) == 1]
    return list(trace.codes.elements(torch.tensor(biases or sorted(rows))))


def _shape(trace: Trace, code: int) -> tuple[int, ...]:
    """Of the parameter that an element belongs to."""
    return trace.codes.shapes[trace.codes.number_of(code)]


def _is_weight(trace: Trace, elements: Elements) -> bool:
    """Whether these are rows of a weight: an output without a bias."""
    return len(trace.codes.shapes[trace.codes.names.index(elements.parameter)]) > 1 and not _biased(trace, elements)


def _biased(trace: Trace, elements: Elements) -> bool:
    start = trace.codes.start(trace.codes.names.index(elements.parameter))
    return elements.axis == 0 and any(start + index in trace.rows for index in elements.indices)


def _weight_of(trace: Trace, bias: Elements) -> Elements | None:
    start = trace.codes.start(trace.codes.names.index(bias.parameter))
    rows = [trace.rows.get(start + index) for index in bias.indices]
    if None in rows:
        return None

    found = trace.codes.elements(torch.tensor([row for row in rows if row is not None]))
    return found[0] if len(found) == 1 else None


def _owner(trace: Trace, bias: Elements) -> str:
    weight = _weight_of(trace, bias)
    return weight.parameter if weight else ""


def _norms(trace: Trace) -> dict[str, tuple[NormTag | None, ...]]:
    found: dict[str, list[NormTag | None]] = {}
    for call in trace.calls:
        found.setdefault(trace.codes.names[call.weight], []).append(call.norm)
    return {name: tuple(dict.fromkeys(norms)) for name, norms in found.items()}


def _name(roles: Sequence[tuple[str, Elements]]) -> str:
    """The longest module path that query, key and value share."""
    paths = [e.parameter.split(".")[:-1] for role, e in roles if role != "output"]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
