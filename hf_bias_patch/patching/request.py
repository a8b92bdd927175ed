"""What a caller asks for: a recipe, its fields, or a plan made before.

A plan is never executed on trust. It is made again from its recipe for the checkpoint at hand, and must come out the
same; so one that was made for other tensors, or edited since, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_bias_patch.attention.sites import Site
from hf_bias_patch.errors import FamilyError, PlanError, RecipeError
from hf_bias_patch.patching.plan import Edit, Plan
from hf_bias_patch.patching.planner import make_plan
from hf_bias_patch.patching.recipe import Recipe, recipe_or_fields
from hf_bias_patch.patching.tensors import TensorReader

__all__ = ["plan_asked", "recipe_asked"]


def recipe_asked(asked: Recipe | Plan | None, fields: Mapping[str, Any]) -> Recipe:
    """The recipe that a caller gave, as such, as keywords, or inside a plan.

    Raises:
        RecipeError: several are given, or the fields make no recipe.
        ArgumentError: `asked` is something else.
    """
    if not isinstance(asked, Plan):
        return recipe_or_fields(asked, fields)
    if fields:
        raise RecipeError(f"A plan was given, and {', '.join(fields)} too", remedy="Give the plan alone, or a recipe")
    return asked.recipe


def plan_asked(
    config: Mapping[str, Any],
    tensors: TensorReader,
    asked: Recipe | Plan,
    recipe: Recipe,
    sites: Sequence[Site] | None = None,
) -> Plan:
    """The plan for one checkpoint, and the same as `asked` if that is a plan.

    Args:
        config, tensors: the checkpoint, or the model.
        asked: what the caller gave.
        recipe: of it (see `recipe_asked`).
        sites: the attention sites and their verdicts, from a probe; by default those of a plan, or the family's.

    Raises:
        PlanError: also if the plan given was made for another checkpoint.
        RecipeError, FamilyError, CheckpointError: as for `make_plan`.
    """
    if not isinstance(asked, Plan):
        return make_plan(config, tensors, recipe, sites)
    try:
        made = make_plan(config, tensors, recipe, sites or asked.sites or None)
    except (RecipeError, PlanError, FamilyError) as error:
        raise _another(str(error)) from None
    if difference := difference_of(asked, made, tensors):
        raise _another(difference)
    return made


def _another(why: str) -> PlanError:
    return PlanError(
        "The plan was made for another checkpoint",
        why=why,
        remedy="Make a plan of this one, or give the recipe (`plan.recipe`) instead",
    )


def difference_of(given: Plan, made: Plan, tensors: TensorReader) -> str:
    """The first thing that the two plans do not say the same of, measured figures aside; empty if there is none.

    Args:
        given: a plan.
        made: what its recipe gives for a checkpoint.
        tensors: of that checkpoint.
    """
    for name, size in given.touched.items():
        if name not in tensors.tensors:
            return f"There is no tensor {name} here"
        if made.touched.get(name, size) != size:
            return f"Tensor {name} has {made.touched[name]} bytes here, and the plan is for one of {size}"
    for theirs, ours in zip(map(_decided, given.edits), map(_decided, made.edits), strict=False):
        if theirs != ours:
            return f"It says {theirs.label} at {theirs.site}, where its recipe now gives another edit"
    same = (given.touched, given.absent, given.equal, given.lossy) == (
        made.touched,
        made.absent,
        made.equal,
        made.lossy,
    )
    return "" if same and len(given.edits) == len(made.edits) else "Its recipe now gives other edits"


def _decided(edit: Edit) -> Edit:
    """An edit without what was measured: last bits of that depend on the machine."""
    return edit.model_copy(update={"amplification": None, "conditioning": None, "loss": None})
