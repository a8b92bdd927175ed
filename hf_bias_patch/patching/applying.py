"""`apply` as users call it: refuses what cannot be done to a model in memory, then hands over to `memory`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_bias_patch.attention.sites import Site
from hf_bias_patch.errors import ArgumentError, PlanError
from hf_bias_patch.patching.memory import Applied, ModelTensors
from hf_bias_patch.patching.plan import Plan
from hf_bias_patch.patching.recipe import Recipe
from hf_bias_patch.patching.request import plan_asked, recipe_asked

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_bias_patch.attention.sites import Site

__all__ = ["apply"]


def apply(
    model: PreTrainedModel,
    recipe: Recipe | Plan | None = None,
    *,
    sites: Sequence[Site] | None = None,
    **fields: Any,
) -> Applied:
    """Patch a model in memory. The values it gets are those a patched checkpoint of the same dtype would hold.

    Args:
        model: any supported transformers model, on any device. `freeze` and `train` set `requires_grad` of the
            biases they name, and of nothing else.
        recipe: a Recipe, or a Plan made for this model; or give a recipe's fields as keywords.
        sites: the attention sites and their verdicts, from a probe; by default the family's.

    Returns:
        The handle: `.plan` says what was done, `.restore()` undoes it, and so does leaving a `with` block. Where
        something else changed the same parameters in between (a later `apply`, training), that is refused.

    Raises:
        RecipeError, PlanError, FamilyError, CheckpointError: as for `plan`; the model is unchanged then. PlanError
            also for storage `absent`, and for a plan of another model or checkpoint.
        ArgumentError: `model` is no model, or `recipe` no recipe.

    Example:
        >>> with apply(model, fold="key,value"):  # doctest: +SKIP
        ...     evaluate(model)
    """
    if not (hasattr(model, "named_parameters") and hasattr(getattr(model, "config", None), "to_dict")):
        raise ArgumentError(
            f"`apply` takes a transformers model, and was given a {type(model).__name__}",
            remedy="Load the checkpoint first, or write a patched copy of it with `patch`",
        )
    wanted = recipe_asked(recipe, fields)
    if wanted.storage == "absent":
        raise PlanError(
            "Storage `absent` is not offered for a model in memory",
            why="The parameters could not be put back as they were",
            remedy="Write a variant with `patch` and load it with `load`, or keep storage `zeros`",
        )
    tensors = ModelTensors(model)
    return Applied(model, plan_asked(model.config.to_dict(), tensors, recipe or wanted, wanted, sites))
