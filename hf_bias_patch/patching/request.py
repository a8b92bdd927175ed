"""What a caller asks for (a recipe, its fields, or an earlier plan), and the plan made from it.

A plan is made once, here. Only one that was handed in is made again: from its recipe, for the checkpoint at hand, and
it must come out the same. So a plan made for other tensors, or edited since, is refused and never executed on trust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.errors import FamilyError, PlanError, RecipeError
from hf_bias_patch.patching.folds import touched
from hf_bias_patch.patching.plan import Edit, Plan
from hf_bias_patch.patching.planner import make_plan
from hf_bias_patch.patching.recipe import Recipe, recipe_or_fields
from hf_bias_patch.patching.tensors import TensorReader

__all__ = ["Request", "difference_of"]


@dataclass(frozen=True)
class Request:
    """What a caller asks for.

    Attributes:
        recipe: as such, made of keywords, or the plan's.
        sites: the attention sites and their verdicts, from a probe; by default those of the plan, or the family's.
        plan: made before; None where a recipe is given.
    """

    recipe: Recipe
    sites: Sequence[Site] | None = None
    plan: Plan | None = None

    @classmethod
    def of(cls, asked: Recipe | Plan | None, fields: Mapping[str, Any], sites: Sequence[Site] | None) -> Request:
        """The request of a call with these arguments.

        Raises:
            RecipeError: several are given, or the fields make no recipe.
            ArgumentError: `asked` is something else.
        """
        if not isinstance(asked, Plan):
            return cls(recipe_or_fields(asked, fields), sites)
        if fields:
            raise RecipeError(
                f"A plan was given, and {', '.join(fields)} too", remedy="Give the plan alone, or a recipe"
            )
        return cls(asked.recipe, sites or asked.sites or None, asked)

    def resolve(self, config: Mapping[str, Any], tensors: TensorReader, shared: Sequence[tuple[str, ...]] = ()) -> Plan:
        """The plan for one checkpoint, or for a model.

        Args:
            config, tensors: of it.
            shared: groups of tensor names that share their memory: none of these is edited.

        Raises:
            PlanError: also if the plan given was made for another checkpoint; or if a tensor to edit shares its memory,
                and the recipe is not one for what is possible.
            RecipeError, FamilyError, CheckpointError: as for `make_plan`.
        """
        try:
            made = make_plan(config, tensors, self.recipe, self.sites)
        except (RecipeError, PlanError, FamilyError) as error:
            raise error if self.plan is None else _another(str(error)) from None
        if self.plan is not None and (difference := difference_of(self.plan, made, tensors)):
            raise _another(difference)
        tied = {
            name: next(other for other in names if other != name)
            for names in shared
            for name in names
            if name in made.touched
        }
        return self._without(tied, made).resolve(config, tensors, shared) if tied else made

    def _without(self, tied: Mapping[str, str], made: Plan) -> Request:
        """The request without the folds that change a tied tensor: name → another that it shares its memory with."""
        if not self.recipe.where_possible:
            name = min(tied)
            raise PlanError(
                f"Tensor {name} shares its memory with {tied[name]}",
                why="Loaders tie them to one another, so editing one would edit the other",
                remedy="Untie them first, leave these sites out with --layers, --stack or --attention, or fold the "
                "others with --where-possible",
            )
        left_out = {
            edit.name: f"tensor {name} shares its memory with {tied[name]}"
            for edit in made.edits
            for name in touched(edit)
            if name in tied and edit.action == "fold"
        }
        plain = self.recipe.model_copy(update={"where_possible": bool(left_out)})
        return replace(self, recipe=plain.without(left_out))


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
