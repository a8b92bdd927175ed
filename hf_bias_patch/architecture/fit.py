"""Whether the sizes of one attention site fit together: its heads, its maps, and the norm that feeds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NoReturn

from hf_bias_patch.architecture.causes import MisfitError
from hf_bias_patch.architecture.sites import Norm, Site, Slot, Tensor

__all__ = ["check_fit"]


def check_fit(site: Site, tensors: Mapping[str, Tensor], heads_key: str, apart: Collection[str] = ()) -> None:
    """Refuse a site that no model can have. What the family does not cover is not judged.

    Args:
        site: with its heads as config.json says, and its slots as the tensors are.
        tensors: parameter name → dtype and shape.
        heads_key: the config field that says how many heads there are; empty if none does.
        apart: projections that may read something else than the others.

    Raises:
        MisfitError: heads do not divide a map, or a map does not fit what it reads; both are named.
    """
    if any(slot.verdict.state == "unknown" for slot in site.slots.values()):
        return
    _check_heads(site, heads_key)
    inputs = {name: _inputs(slot, tensors) for name, slot in site.slots.items()}
    for name, slot in site.slots.items():
        if slot.norm is not None and inputs[name] is not None:
            _check_norm(slot, slot.norm, inputs[name], tensors)
    if site.kind == "self" and not site.kv_heads_said:  # latent attention makes keys and values of something smaller
        _check_one_input(site, {name: size for name, size in inputs.items() if name not in apart})
    _check_output(site, inputs["output"], tensors)


def _check_heads(site: Site, key: str) -> None:
    query, value = site.slots["query"], site.slots["value"]
    if not (_there(query) and _there(site.slots["key"])):
        return
    if query.view.size % site.heads:
        _refuse(f"config.json: `{key}` is {site.heads}, which does not divide the {query.view.size} of {_name(query)}")
    if "output" not in value.verdict.destinations:
        return  # nothing hangs on the heads; the query's map may make a gate too, and its size tells nothing of theirs
    for slot in (site.slots["key"], value):
        # Several query heads may share one of key and value: then there are fewer, of the same size.
        heads = site.kv_heads
        if _there(slot) and (not heads or site.heads % heads or slot.view.size % heads):
            _refuse(
                f"config.json: `{key}` is {site.heads}, which does not fit the {query.view.size} of "
                f"{_name(query)} and the {slot.view.size} of {_name(slot)}"
            )


def _inputs(slot: Slot, tensors: Mapping[str, Tensor]) -> int | None:
    """Entries of what a map reads; None where there is no plain matrix."""
    shape = tensors[slot.weight].shape if slot.weight else (0, 0, 0)
    if len(shape) < 2:
        _refuse(f"Tensor {slot.weight} has shape {list(shape)}, and is not a matrix")
    return None if len(shape) > 2 else shape[0] if slot.conv1d else shape[1]


def _check_norm(slot: Slot, norm: Norm, inputs: int | None, tensors: Mapping[str, Tensor]) -> None:
    for name in (norm.weight, norm.bias):
        if tensors[name].shape != (inputs,):
            made = " × ".join(map(str, tensors[name].shape))
            _refuse(f"Tensor {slot.weight} reads {inputs} values, and {name}, which makes them, has {made}")


def _check_one_input(site: Site, inputs: Mapping[str, int | None]) -> None:
    """Query, key and value of self-attention read one and the same thing."""
    slots = [site.slots[name] for name in ("query", "key", "value") if inputs.get(name) is not None]
    for slot in slots[1:]:
        if inputs[slot.projection] != inputs[slots[0].projection]:
            _refuse(
                f"Tensor {slots[0].weight} reads {inputs[slots[0].projection]} values, and {slot.weight}, which reads "
                f"the same, {inputs[slot.projection]}"
            )


def _check_output(site: Site, inputs: int | None, tensors: Mapping[str, Tensor]) -> None:
    """Where value biases pass through the output map, it reads what the query heads make."""
    query, value, output = (site.slots[name] for name in ("query", "value", "output"))
    if inputs is not None and "output" in value.verdict.destinations and site.kv_heads:
        mixed = site.heads * (value.view.size // site.kv_heads)
        if inputs != mixed:
            _refuse(f"Tensor {output.weight} reads {inputs} values, and the {site.heads} heads make {mixed} of them")
    if "norm" in query.verdict.destinations and query.norm is not None and query.norm.residual and _there(output):
        (width,) = tensors[query.norm.bias].shape
        if output.view.size != width:
            _refuse(
                f"Tensor {output.bias or output.weight} makes {output.view.size} values, and they are added to the "
                f"{width} of {query.norm.bias}"
            )


def _there(slot: Slot) -> bool:
    return slot.bias is not None or slot.weight is not None


def _name(slot: Slot) -> str:
    return slot.weight or slot.bias or slot.projection


def _refuse(what: str) -> NoReturn:
    of_config = what.startswith("config.json")
    raise MisfitError(
        what,
        why="These sizes contradict each other, so no model can have them",
        remedy="Use the config.json that was saved with these weights"
        if of_config
        else "Download the checkpoint again, or save the model again with transformers",
    )
