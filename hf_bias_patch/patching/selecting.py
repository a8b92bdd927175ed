"""Which attention sites a recipe is for; and whether sites that were given, by a probe or in a plan, are this model's.

A plan may come with a stranger's variant, so nothing in its sites is believed: not a name, a size, nor a verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hf_bias_patch.architecture.sites import PROJECTIONS, Projection, Site, Slot, Tensor
from hf_bias_patch.architecture.verdict import NO_BIAS
from hf_bias_patch.errors import PlanError, RecipeError
from hf_bias_patch.patching.recipe import Recipe

__all__ = ["refuse_strange", "select"]


def select(sites: Sequence[Site], recipe: Recipe, block: Mapping[str, Any]) -> tuple[Recipe, list[Site]]:
    """The sites a recipe is for, and what it asks for there.

    Args:
        sites: of the checkpoint.
        recipe: with `where_possible`, projections that have no bias anywhere are not folded, and what the patch before
            left out of the same folds stays out: its noise is in the checkpoint now, and would hide theirs.
        block: what the checkpoint says of that patch. Biases that it took away leave nothing to do.

    Raises:
        RecipeError: a selector, or a slot that is left out, is not there, or no site has a bias of a projection.
    """
    _refuse_unknown(sites, recipe)
    chosen = [site for site in sites if recipe.selects(site)]
    if recipe.layers is not None:
        any_layer = recipe.model_copy(update={"layers": None})
        known = {site.layer for site in sites if any_layer.selects(site)}
        if known and (unknown := sorted(set(recipe.layers) - known)):
            raise RecipeError(f"There is no layer {unknown[0]}", remedy=_exists(sites))
    if not chosen:
        raise RecipeError("The selectors match no attention site", remedy=_exists(sites))
    asked = dict.fromkeys([*recipe.fold, *recipe.drop, *recipe.fill, *recipe.freeze, *recipe.train])
    lacking = []
    for projection in asked:
        removed = block.get("absent", ()) if projection in recipe.fold or projection in recipe.drop else ()
        if all(_lacks(site.slots[projection], removed) for site in chosen):
            lacking.append(projection)
    folds = {name: into for name, into in recipe.fold.items() if name not in lacking}
    if lacking and not (recipe.where_possible and folds and set(lacking) <= set(recipe.fold)):
        raise _no_bias(chosen, lacking[0], sites)
    recipe = recipe.model_copy(update={"fold": folds})
    return recipe.without(_left_out_before(chosen, recipe, block)), chosen


def _left_out_before(chosen: Iterable[Site], recipe: Recipe, block: Mapping[str, Any]) -> dict[str, str]:
    """What the patch before left out of the folds that are asked for again."""
    before = block.get("recipe", {})
    folds, left_out = (part if isinstance(part, dict) else {} for part in (before.get("fold"), before.get("left_out")))
    if not recipe.where_possible:
        return {}
    same = [projection for projection, into in recipe.fold.items() if folds.get(projection) == into]
    slots = [f"{site.name}.{projection}" for site in chosen for projection in same]
    return {slot: str(left_out[slot]) for slot in slots if slot in left_out and slot not in recipe.left_out}


def _refuse_unknown(sites: Iterable[Site], recipe: Recipe) -> None:
    """What is left out must be there, or a slip of the pen would fold it."""
    known = {f"{site.name}.{projection}" for site in sites for projection in PROJECTIONS}
    if unknown := [slot for slot in recipe.left_out if slot not in known]:
        raise RecipeError(
            f"left_out names {unknown[0]!s}, and no slot is called so",
            remedy=f"Write SITE.PROJECTION, such as {min(known, default='encoder.0.self.query')}",
        )


def _no_bias(chosen: Sequence[Site], projection: Projection, sites: Iterable[Site]) -> RecipeError:
    reasons = [site.slots[projection].verdict.reason for site in chosen]
    unread = "; ".join(dict.fromkeys(reason for reason in reasons if reason != NO_BIAS))  # the files have it
    return RecipeError(
        f"None of the {len(chosen)} selected attention sites has a {projection} bias",
        why=unread[:1].upper() + unread[1:],
        remedy=_exists(sites) + (". If the model is meant to have it, correct config.json" if unread else ""),
    )


def _lacks(slot: Slot, removed: Collection[str]) -> bool:
    """Whether there is no bias, nor was one before an earlier patch removed it."""
    return slot.bias is None and (slot.weight is None or slot.weight.removesuffix("weight") + "bias" not in removed)


def _exists(sites: Iterable[Site]) -> str:
    kinds: dict[tuple[str, str], list[Site]] = {}
    for site in sites:
        kinds.setdefault((site.stack, site.kind), []).append(site)
    lines = []
    for (stack, kind), members in kinds.items():
        biases = [name for name in PROJECTIONS if any(site.slots[name].bias for site in members)]
        layers = f"layers 0-{max(site.layer for site in members)}"
        lines.append(f"{stack} {kind} ({layers}, biases: {', '.join(biases) or 'none'})")
    return "The checkpoint has: " + "; ".join(lines)


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
                why="They belong to another checkpoint, or to this one with other tensor names",
                remedy="Probe this checkpoint",
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
    if {"norm", "weight"} & set(slot.verdict.destinations):
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
