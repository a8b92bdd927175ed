"""Checks attention sites that were given, by a probe or in a plan, against the tensors that they are meant for.

A plan may come with a stranger's variant, so nothing in its sites is believed: not a name, a size, nor a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hf_bias_patch.attention.sites import PROJECTIONS, Site, Slot, Tensor
from hf_bias_patch.errors import PlanError

__all__ = ["refuse_strange"]


def refuse_strange(sites: Iterable[Site], tensors: Mapping[str, Tensor]) -> None:
    """Refuse sites that are of other tensors than these.

    Args:
        sites: given.
        tensors: parameter name → dtype and shape.

    Raises:
        PlanError: a name is not there, or a size is another; the first of them is named.
    """
    for site in sites:
        if wrong := next(_wrong(site, tensors), ""):
            raise PlanError(
                f"The attention sites that were given do not fit: {wrong}",
                why="They are of another checkpoint, or of the same under the names that it has elsewhere",
                remedy="Probe this one",
            )


def _wrong(site: Site, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    if set(site.slots) != set(PROJECTIONS) or site.heads < 1:
        yield f"{site.name} has not one slot for each projection, or no heads"
        return
    for name, slot in site.slots.items():
        if slot.projection != name:
            yield f"the {name} slot of {site.name} is called {slot.projection}"
        yield from _wrong_slot(slot, tensors)
    yield from _wrong_output(site, tensors)


def _wrong_slot(slot: Slot, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    norm = (slot.norm.weight, slot.norm.bias) if slot.norm else ()
    if missing := [name for name in (slot.bias, slot.weight, *norm) if name is not None and name not in tensors]:
        yield f"there is no tensor {missing[0]}"
        return
    if slot.bias is not None and tensors[slot.bias].shape != (slot.view.axis,):
        yield f"{slot.bias} has shape {list(tensors[slot.bias].shape)}, and they speak of {slot.view.axis} entries"
    weight = tensors[slot.weight].shape if slot.weight is not None else ()
    if slot.weight is not None and (len(weight) < 2 or weight[1 if slot.conv1d else 0] != slot.rows.axis):
        yield f"{slot.weight} has shape {list(weight)}, and they speak of {slot.rows.axis} outputs"
    if slot.bias is not None and slot.weight is not None and slot.view.size != slot.rows.size:
        yield f"{slot.bias} and {slot.weight} have parts of different sizes"
    roads = slot.verdict.destinations
    if "norm" in roads or "weight" in roads:
        inputs = weight[0 if slot.conv1d else 1] if len(weight) == 2 else -1
        if not norm or any(tensors[name].shape != (inputs,) for name in norm):
            yield f"no norm makes what {slot.weight} reads"


def _wrong_output(site: Site, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Where a bias passes through the output projection, that must be there, and read what the heads make."""
    value, output = site.slots["value"], site.slots["output"]
    through = "output" in value.verdict.destinations or "norm" in site.slots["query"].verdict.destinations
    if not through:
        return
    shape = tensors[output.weight].shape if output.weight else ()
    if output.bias is None or len(shape) < 2:
        yield f"{site.name} has no output projection with a bias"
        return
    inputs = shape[0 if output.conv1d else 1]
    head = inputs // site.heads
    if inputs % site.heads or not head or value.view.size % head or site.heads % max(1, value.view.size // head):
        yield f"{output.weight} reads {inputs} values, and {site.heads} heads do not make them of {value.view.size}"
