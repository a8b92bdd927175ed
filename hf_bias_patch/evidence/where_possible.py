"""Which folds of a recipe can be made and proven: found in memory, before anything is written.

A plan refuses what it can tell from biases and norms. What rounding does to a whole model it cannot tell: each fold
may be within its bound, and all of them together not. So all are tried first; if they do not pass, each is measured at
its own site, those that fail there are left out, and then the worst of the others, as few as it takes. What is left
out goes into the recipe by name, with what was measured, so that every later plan of it is the same.

Which fold is the worst is told site by site; whether the rest passes is told by the whole model, and measured for the
very recipe that is returned. The search halves what is left, so a model of a hundred folds takes eight runs at most.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.architecture.wrapped import refuse_wrapped
from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.checkpoint.source import place_name, resolve
from hf_bias_patch.errors import BiasPatchError, PlanError, RecipeError
from hf_bias_patch.evidence.layerwise import planned_values, run_site
from hf_bias_patch.evidence.pair import Pair, Step, before_patch
from hf_bias_patch.evidence.run import refuse_texts
from hf_bias_patch.evidence.trial import Trial, share_of
from hf_bias_patch.evidence.working_source import place_beside, typed_as
from hf_bias_patch.models.memory import require_to_verify
from hf_bias_patch.models.source_files import folder_of
from hf_bias_patch.patching.on_disk import readable
from hf_bias_patch.patching.plan import Edit
from hf_bias_patch.patching.recipe import Recipe, recipe_or_fields
from hf_bias_patch.patching.request import Request

__all__ = ["where_possible"]

RESERVE = 0.5
"""Share of its bound that a figure may take once something must be left out: where rounding is amplified, the largest
error hangs on the inputs (docs/theory.md, "One site by itself")."""

Shares = dict[str, float]
"""Slot, as `SITE.PROJECTION` → what a fold of it alone takes of the bound of its site."""


def where_possible(
    model: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    sites: Sequence[Site] | None = None,
    texts: Sequence[str] | None = None,
    layerwise: bool = False,
    attention: Sequence[str] = ("eager", "sdpa"),
    seed: int = 0,
    progress: Step | None = None,
    **fields: Any,
) -> Recipe:
    """The part of a recipe whose folds a plan takes and a certificate passes; writes nothing.

    Drops, fills and what is frozen stay as they are asked for: they are no folds, and nothing is measured of them.

    Args:
        model: a folder, a safetensors file, `embedded:NAME` or a Hub id.
        recipe: what is asked for; or give its fields as keywords, such as `fold="key,value,query"`.
        sites: the attention sites and their verdicts, such as `probe(model).sites`; by default the family's.
        texts, layerwise, attention, seed: as for `verify`, and to be the same there.
        progress: told what is being done, as each step begins.

    Returns:
        A recipe for `patch`, `patch_in_place` and `apply` that names in `left_out` what it does not fold, and why.

    Raises:
        RecipeError: nothing is folded, or the recipe is wrong.
        PlanError: no fold is left.
        SourceError, CheckpointError, FamilyError: as for `plan`.
        VerifyError: evidence cannot be collected, as for `verify`.
    """
    place_name(model)
    refuse_texts(texts, layerwise)
    step = progress or (lambda what: None)
    wanted = recipe_or_fields(recipe, fields).model_copy(update={"where_possible": True})
    if not wanted.fold:
        raise RecipeError(
            "Nothing is folded, so there is no fold to try", remedy="Say what to fold, such as --fold key,value"
        )
    given = resolve(model)
    place = place_beside(folder_of(given))
    with readable(given, place / "source") as (files, shared), typed_as(files, wanted.model_type, place) as source:
        checkpoint = open_model(source.path)
        refuse_wrapped(checkpoint.config, checkpoint.tensors)
        plan = Request(wanted, sites).resolve(checkpoint.config, checkpoint, shared)
        if not any(edit.action == "fold" and edit.changes for edit in plan.edits):
            return plan.recipe
        pair = before_patch(source, plan)
        if layerwise:
            convicted = _by_site(pair, seed, step)
        else:
            require_to_verify(pair.source_files, pair.plan, len(texts or ()), pair.source.name)
            convicted = _by_whole(pair, Trial(pair, attention, texts, seed, step), seed, step)
        request = Request(wanted.without(convicted), sites)
        return request.resolve(checkpoint.config, checkpoint, shared).recipe


def _by_whole(pair: Pair, trial: Trial, seed: int, step: Step) -> dict[str, str]:
    """What to leave out so that the whole model passes, and why."""
    assert pair.plan is not None
    plain = {"drop": (), "fill": {}, "freeze": (), "train": (), "storage": "zeros"}
    folds = pair.plan.recipe.model_copy(update=plain)

    def share(left_out: Sequence[str]) -> float:
        step(f"in memory, {len(left_out)} folds left out")
        return trial.share(folds.without(dict.fromkeys(left_out, "")))

    if share([]) <= 1:
        return {}
    alone, least = _alone_or_amplified(pair, seed, step)
    return _told(pair, alone, _fewest(alone, lambda left_out: share(left_out) <= RESERVE, least))


def _alone_or_amplified(pair: Pair, seed: int, step: Step) -> tuple[Shares, int]:
    """What to rank folds by, and how many of the worst fail by themselves."""
    assert pair.plan is not None
    try:
        alone = _alone(pair, seed, step)
    except (BiasPatchError, RuntimeError, ValueError, IndexError):
        # The site is computed otherwise than others are, or its weights are no plain tensors. The plan's own measure
        # ranks as well, and the whole model decides.
        sizes = {edit.name: edit.amplification or 1.0 for site in pair.sites for edit in _folds(pair, site)}
        return {name: size / max(sizes.values()) for name, size in sizes.items()}, 0
    return alone, sum(share > 1 for share in alone.values())


def _by_site(pair: Pair, seed: int, step: Step) -> dict[str, str]:
    """What to leave out so that each site passes, and why."""
    left_out: list[str] = []
    alone = _alone(pair, seed, step)
    for index, site in enumerate(pair.sites):
        left_out += _of_site(pair, site, [seed, index], alone)
    return _told(pair, alone, left_out)


def _of_site(pair: Pair, site: Site, seed: list[int], alone: Shares) -> list[str]:
    folds = _folds(pair, site)

    def share(left_out: Sequence[str]) -> float:
        return _share(pair, site, [edit for edit in folds if edit.name not in left_out], seed)

    if not folds or share([]) <= 1:
        return []
    return _fewest({edit.name: alone[edit.name] for edit in folds}, lambda left_out: share(left_out) <= RESERVE, 1)


def _fewest(shares: Shares, passes: Callable[[Sequence[str]], bool], least: int) -> list[str]:
    """The fewest of the worst that must be left out, at least some of them: found by halves, and so measured."""
    worst = sorted(shares, key=lambda slot: -shares[slot])
    found = bisect_left(range(least, len(worst)), True, key=lambda count: passes(worst[:count]))
    return worst[: least + found]


def _alone(pair: Pair, seed: int, step: Step) -> Shares:
    """What each fold alone does to its site."""
    step("each fold by itself, site by site")
    return {
        edit.name: _share(pair, site, [edit], [seed, index])
        for index, site in enumerate(pair.sites)
        for edit in _folds(pair, site)
    }


def _folds(pair: Pair, site: Site) -> list[Edit]:
    assert pair.plan is not None
    return [edit for edit in pair.plan.edits if edit.site == site.name and edit.action == "fold" and edit.changes]


def _share(pair: Pair, site: Site, edits: Sequence[Edit], seed: list[int]) -> float:
    """What some edits together take of the bound of their site, patched in memory; infinite if a value overflows."""
    assert pair.plan is not None
    files, plan = pair.source_files, pair.plan.model_copy(update={"edits": tuple(edits)})
    try:
        return share_of(run_site(files, site, plan, planned_values(plan, files), pair.dtype, seed))
    except PlanError:
        return math.inf


def _told(pair: Pair, shares: Shares, left_out: Sequence[str]) -> dict[str, str]:
    """Slot → why its bias stays, in the order of the plan."""
    assert pair.plan is not None
    return {edit.name: _why(edit, shares[edit.name]) for edit in pair.plan.edits if edit.name in left_out}


def _why(edit: Edit, share: float) -> str:
    if share > 1:
        what = f"{edit.label} is measured to exceed the error that a certificate allows at this site alone"
    else:
        what = f"with {edit.label} the model as a whole exceeds the error that a certificate allows, or comes near it"
    return f"{what}{f' (amplification {edit.amplification:.3g})' if edit.amplification else ''}"
