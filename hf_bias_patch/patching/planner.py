"""Resolves a recipe against one checkpoint: selects slots, picks destinations, measures each fold, refuses early."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from hf_bias_patch.architecture.family import family_of
from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.model_type import with_model_type
from hf_bias_patch.architecture.sites import Site, Slot, Tensor
from hf_bias_patch.architecture.uncovered import uncovered_biases
from hf_bias_patch.checkpoint.dtypes import BITS, numpy_dtype, unit_roundoff
from hf_bias_patch.errors import FamilyError, PlanError, ValuesError
from hf_bias_patch.patching.algebra import round_once
from hf_bias_patch.patching.folds import FOLDS, RoundingCost, touched
from hf_bias_patch.patching.folds.into_nothing import IntoNothing
from hf_bias_patch.patching.leaving_out import Refusal, in_part, settle
from hf_bias_patch.patching.plan import Action, Edit, Plan
from hf_bias_patch.patching.preserved import Preserved
from hf_bias_patch.patching.recipe import Recipe
from hf_bias_patch.patching.record import block_of
from hf_bias_patch.patching.selecting import refuse_strange, select
from hf_bias_patch.patching.tensors import TensorReader, read_finite, read_floats
from hf_bias_patch.patching.wording import told_apart
from hf_bias_patch.version import __version__

__all__ = ["make_plan"]


def make_plan(
    config: Mapping[str, Any], tensors: TensorReader, recipe: Recipe, sites: Sequence[Site] | None = None
) -> Plan:
    """Resolve `recipe`.

    Args:
        config: a parsed config.json.
        tensors: of the checkpoint or model.
        recipe: what is asked for.
        sites: the attention sites and their verdicts, from a probe; by default the family's.

    Raises:
        RecipeError: a selector or action matches nothing; the message lists what exists.
        PlanError: a fold is not exact, or would lose more than `recipe.max_loss`; all such folds are listed. With
            `recipe.where_possible` these are left out, and it is raised only if no fold is left.
        CheckpointError: a bias or norm that is needed holds NaN or infinite values, or the tensors and what the
            config says do not fit together.
        FamilyError: no family covers the config.
    """
    config = with_model_type(config, recipe.model_type)
    found = find_sites(config, tensors.tensors) if sites is None else tuple(sites)
    if sites is not None:
        refuse_strange(found, tensors.tensors)
    recipe, chosen = select(found, recipe, block_of(config))
    planner = _Planner(tensors, recipe)
    recipe, edits = settle(recipe, tuple(planner.edits(chosen)), planner.refusals)
    changed = sorted({name for edit in edits for name in touched(edit)})
    return Plan(
        package=__version__,
        recipe=recipe,
        family=_family(config) if sites is not None else family_of(config).name,
        edits=edits,
        touched={name: _nbytes(tensors.tensors[name]) for name in changed},
        absent=_absent(edits) if recipe.storage == "absent" else (),
        nbytes=sum(map(_nbytes, tensors.tensors.values())),
        equal=Preserved.by_all(edit.equal for edit in edits),
        lossy=any(not edit.equal.logits for edit in edits),
        sites=() if sites is None else tuple(sites),
        uncovered=uncovered_biases(found, tensors.tensors),
    )


def _family(config: Mapping[str, Any]) -> str:
    """The family's name; empty where there is none."""
    try:
        return family_of(config).name
    except FamilyError:
        return ""


def _nbytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * BITS[tensor.dtype] // 8


def _absent(edits: Sequence[Edit]) -> tuple[str, ...]:
    """Bias tensors that leave the file: those of which every part is removed."""
    if partly := sorted(in_part(edit for edit in edits if edit.removes)):
        raise PlanError(
            f"Storage `absent` cannot take a part out of {partly[0]}"
            + (f" (nor of {len(partly) - 1} more)" if len(partly) > 1 else ""),
            why="query, key and value share this one tensor, and a part of it stays",
            remedy="Remove all that share it (--fold query,key,value), or keep --storage zeros",
        )
    return tuple(sorted({edit.bias for edit in edits if edit.removes}))


class _Planner:
    """Makes edits slot by slot, and collects what it refuses."""

    def __init__(self, tensors: TensorReader, recipe: Recipe) -> None:
        self.tensors, self.recipe = tensors, recipe
        self.refusals: list[Refusal] = []

    def edits(self, sites: Iterable[Site]) -> Iterable[Edit]:
        for site in sites:
            for action in get_args(Action):
                for projection in getattr(self.recipe, action):
                    slot = site.slots[projection]
                    removes = action in ("fold", "drop")
                    if slot.bias is None or (removes and f"{site.name}.{projection}" in self.recipe.left_out):
                        continue
                    edit = self._fold(site, slot) if action == "fold" else self._plain(site, slot, action)
                    if edit is not None:
                        yield edit

    def _plain(self, site: Site, slot: Slot, action: Action) -> Edit:
        """A drop or fill, or what an optimiser may touch."""
        # A random fill differs from site to site, but not with the selectors that happen to be around it.
        fill = self.recipe.fill.get(slot.projection) if action == "fill" else None
        values = self._plain_bias(slot)
        edit = Edit(
            site=site.name,
            heads=site.heads,
            action=action,
            slot=slot,
            fill=fill,
            seed=self.recipe.seed if fill else 0,
            equal=_preserved(slot, action, bool(np.isfinite(values).all())),
            zero=not values.any(),
        )
        if fill is not None:
            _refuse_overflow(edit, self.tensors.tensors[edit.bias].dtype)
        return edit

    def _fold(self, site: Site, slot: Slot) -> Edit | None:
        try:
            return self._exact_fold(site, slot)
        except ValuesError as error:
            if not self.recipe.where_possible:
                raise
            return self._refuse(site, slot, None, error.what)

    def _exact_fold(self, site: Site, slot: Slot) -> Edit | None:
        wanted: str = self.recipe.fold[slot.projection]
        folds = slot.verdict.folds
        if wanted == "default":
            if not slot.verdict.destinations:
                return self._refuse(site, slot, None, "; ".join(dict.fromkeys(folds.values())) or slot.verdict.reason)
            wanted = slot.verdict.destinations[0]
        fold = FOLDS[wanted]
        if refusal := folds.get(wanted) or fold.refusal(site, slot):
            return self._refuse(site, slot, wanted, refusal)
        edit = Edit(
            site=site.name,
            heads=site.heads,
            action="fold",
            slot=slot,
            destination=fold.destination,
            equal=fold.preserves(slot),
            zero=not self._bias(slot).any(),
            **fold.involves(site, slot),
        )
        measure = None if edit.zero else fold.measure(edit, self.tensors)
        if isinstance(measure, str):
            return self._refuse(site, slot, wanted, measure)
        return edit if measure is None else self._within(site, edit, measure)

    def _refuse(self, site: Site, slot: Slot, destination: str | None, reason: str) -> Edit | None:
        """Record why a fold is refused. Returns None in place of the edit."""
        label = f"fold {slot.projection}" + (f":{destination}" if destination else "")
        self.refusals.append(Refusal(site.name, slot.projection, label, reason))
        return None

    def _bias(self, slot: Slot) -> np.ndarray:
        assert slot.bias is not None
        return slot.view.take(read_finite(self.tensors, slot.bias))

    def _plain_bias(self, slot: Slot) -> np.ndarray:
        """The bias for an action that computes nothing from it: of one that has its tensor alone, anything goes."""
        assert slot.bias is not None
        return slot.view.take(read_floats(self.tensors, slot.bias)) if slot.view.is_whole else self._bias(slot)

    def _within(self, site: Site, edit: Edit, measure: RoundingCost) -> Edit | None:
        """The edit with its measures, unless it loses more than the recipe allows."""
        dtype = self.tensors.tensors[measure.tensor].dtype
        loss = measure.amplification * unit_roundoff(dtype)
        if loss > self.recipe.max_loss:
            cost, allowed = told_apart(loss, self.recipe.max_loss)
            reason = (
                f"rounding {measure.tensor} to {dtype} would cost {cost} of the bias "
                f"(amplification {measure.amplification:.3g}), above max_loss {allowed}"
            )
            return self._refuse(site, edit.slot, edit.destination, reason)
        figures = {"amplification": measure.amplification, "loss": loss, "conditioning": measure.conditioning}
        return edit.model_copy(update={name: value for name, value in figures.items() if value is not None})


def _preserved(slot: Slot, action: Action, finite: bool) -> Preserved:
    """What stays equal under a drop, fill, freeze or train."""
    if action in ("freeze", "train"):
        return Preserved()
    redundant = slot.verdict.state == "redundant" and finite  # NaN does not cancel in softmax
    return IntoNothing.preserves(slot) if redundant else Preserved.nothing()


def _refuse_overflow(edit: Edit, dtype: str) -> None:
    """Refuse a fill that the bias's storage dtype cannot hold."""
    if not np.isfinite(round_once(edit.replacement, numpy_dtype(dtype))).all():
        raise PlanError(
            f"Tensor {edit.bias} would overflow: {np.abs(edit.replacement).max():.4g} is beyond the range of {dtype}",
            why=f"The fill asked for at {edit.site} holds this value",
            remedy=f"Fill the {edit.projection} bias with smaller values, or store the checkpoint as float32 first",
        )
