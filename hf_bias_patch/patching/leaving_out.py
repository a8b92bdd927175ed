"""Folds that cannot be made: refused all at once, or, with `where_possible`, left out and listed.

A recipe that says `where_possible` is planned once. The plan's own recipe is a plain one that names what was left out:
planned again elsewhere (in float64, for other bytes of the same checkpoint), it must come to the same edits, and what
was measured on the way (a rounding loss, a certificate) need not come out the same there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from hf_bias_patch.architecture.sites import Projection
from hf_bias_patch.errors import PlanError
from hf_bias_patch.patching.plan import Edit
from hf_bias_patch.patching.recipe import Recipe
from hf_bias_patch.patching.summary import stays

__all__ = ["Refusal", "in_part", "nothing_folds", "settle"]


class Refusal(NamedTuple):
    """A fold that cannot be made at a site: `label` as a person would write it, and why not."""

    site: str
    projection: Projection
    label: str
    reason: str


def settle(recipe: Recipe, edits: tuple[Edit, ...], refusals: Sequence[Refusal]) -> tuple[Recipe, tuple[Edit, ...]]:
    """The recipe that a plan is for, and its edits.

    Args:
        recipe: as it was asked for.
        edits: those that can be made.
        refusals: the folds that cannot.

    Raises:
        PlanError: there are refusals, and the recipe is not one for what is possible; or none of its folds is.
    """
    if refusals and not recipe.where_possible:
        raise PlanError(
            f"{len(refusals)} of the {len(refusals) + len(edits)} edits asked for are refused:\n"
            + "\n".join(f"  {line}" for line in _grouped(refusals)),
            remedy="Fold the others with --where-possible, leave these out with --layers, --stack or --attention, "
            "choose another destination, or drop them",
        )
    left_out = {f"{site}.{projection}": reason for site, projection, _, reason in refusals}
    if recipe.where_possible and recipe.storage == "absent":
        left_out |= _shared_with_what_stays(edits)
    edits = tuple(edit for edit in edits if edit.action != "fold" or edit.name not in left_out)
    settled = recipe.without(left_out)
    in_order = dict(sorted(settled.left_out.items(), key=lambda item: _place(item[0])))
    settled = settled.model_copy(update={"where_possible": False, "left_out": in_order})
    if recipe.where_possible and settled.left_out and not any(edit.action == "fold" for edit in edits):
        raise nothing_folds(settled.left_out)
    return settled, edits


def _place(slot: str) -> tuple[str, int, str]:
    """What slots are sorted by: stack, layer, the rest."""
    stack, layer, rest = slot.split(".", 2)
    return stack, int(layer), rest


def nothing_folds(left_out: Mapping[str, str]) -> PlanError:
    """The error for a recipe of which no fold is left."""
    return PlanError(
        "None of the folds asked for can be made, so nothing is written:\n"
        + "\n".join(f"  {line}" for line in stays(left_out)),
        remedy="Choose another destination, or drop these biases, which changes what the model computes",
    )


def in_part(edits: Iterable[Edit]) -> list[str]:
    """Bias tensors that some edits change only in part."""
    left: dict[str, int] = {}
    for edit in edits:
        left[edit.bias] = left.get(edit.bias, edit.slot.view.axis) - edit.slot.view.size
    return [name for name, entries in left.items() if entries > 0]


def _shared_with_what_stays(edits: Sequence[Edit]) -> dict[str, str]:
    """The folds that storage `absent` has no room for, and why."""
    partly = in_part(edit for edit in edits if edit.removes)
    return {
        edit.name: f"storage absent cannot take a part out of {edit.bias}, and another part of it stays"
        for edit in edits
        if edit.action == "fold" and edit.bias in partly
    }


def _grouped(refusals: Sequence[Refusal]) -> list[str]:
    """Refusals as lines, those of one action for one reason joined."""
    groups: dict[tuple[str, str], list[str]] = {}
    for site, _, label, reason in refusals:
        groups.setdefault((label, reason), []).append(site)
    return [f"{label} at {_and_more(names)}: {reason}" for (label, reason), names in groups.items()]


def _and_more(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
