"""Which attention sites a recipe is for; and, where it matches none, what there is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from hf_bias_patch.attention.sites import PROJECTIONS, Projection, Site, Slot
from hf_bias_patch.attention.verdict import NO_BIAS
from hf_bias_patch.errors import RecipeError
from hf_bias_patch.patching.recipe import Recipe

__all__ = ["select"]


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
            f"left_out names {unknown[0]}, and there is no such slot",
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
