"""Resolves a recipe against one checkpoint: selects slots, picks destinations, measures each fold, refuses early."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from hf_bias_patch.attention.family import family_of
from hf_bias_patch.attention.find import find_sites
from hf_bias_patch.attention.model_type import with_model_type
from hf_bias_patch.attention.sites import PROJECTIONS, Projection, Site, Slot, Tensor
from hf_bias_patch.attention.verdict import DESTINATIONS, NO_BIAS
from hf_bias_patch.checkpoint.dtypes import BITS, FLOATS, unit_roundoff
from hf_bias_patch.errors import CheckpointError, FamilyError, PlanError, RecipeError
from hf_bias_patch.patching import algebra
from hf_bias_patch.patching.effects import Equal, equal_under
from hf_bias_patch.patching.fills import refuse_overflow
from hf_bias_patch.patching.plan import Edit, Plan
from hf_bias_patch.patching.recipe import Recipe
from hf_bias_patch.patching.record import block_of
from hf_bias_patch.version import __version__

__all__ = ["Tensors", "make_plan", "read_finite", "weight_matrix"]


class Tensors(Protocol):
    """Named tensors and their values: a checkpoint on disk, or a model in memory."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Name → dtype and shape."""
        ...

    def read(self, name: str) -> np.ndarray:
        """A tensor's values in the storage dtype."""
        ...

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows `start:stop` of a tensor, in the storage dtype."""
        ...


def make_plan(config: Mapping[str, Any], tensors: Tensors, recipe: Recipe, sites: Sequence[Site] | None = None) -> Plan:
    """Resolve `recipe`.

    Args:
        config: a parsed config.json.
        tensors: of the checkpoint or model.
        recipe: what is asked for.
        sites: the attention sites and their verdicts, from a probe; by default the family's.

    Raises:
        RecipeError: a selector or action matches nothing; the message lists what exists.
        PlanError: a fold is not exact, or would lose more than `recipe.max_loss`; all such folds are listed.
        CheckpointError: a bias or norm that is needed holds NaN or infinite values, or the tensors and what the
            config says do not fit together.
        FamilyError: no family covers the config.
    """
    config = with_model_type(config, recipe.model_type)
    found = find_sites(config, tensors.tensors) if sites is None else tuple(sites)
    chosen = _select(found, recipe, block_of(config).get("absent", ()))
    if sites is not None:
        _refuse_strange(found, tensors)
    planner = _Planner(tensors, recipe)
    edits = tuple(planner.edits(chosen))
    if planner.refusals:
        raise PlanError(
            f"{len(planner.refusals)} of the {len(planner.refusals) + len(edits)} edits asked for are refused:\n"
            + "\n".join(f"  {line}" for line in _grouped(planner.refusals)),
            remedy="Leave these out with --layers, --stack or --attention, choose another destination, or drop them",
        )
    touched = sorted({name for edit in edits for name in edit.touches})
    return Plan(
        package=__version__,
        recipe=recipe,
        family=_family(config) if sites is not None else family_of(config).name,
        edits=edits,
        touched={name: _nbytes(tensors.tensors[name]) for name in touched},
        absent=_absent(edits) if recipe.storage == "absent" else (),
        nbytes=sum(map(_nbytes, tensors.tensors.values())),
        equal=Equal.everything([edit.equal for edit in edits]),
        lossy=any(not edit.equal.logits for edit in edits),
        sites=() if sites is None else tuple(sites),
    )


def _refuse_strange(sites: Iterable[Site], tensors: Tensors) -> None:
    """Sites that were given must be of these tensors."""
    slots = [slot for site in sites for slot in site.slots.values()]
    names = [name for slot in slots for name in (slot.bias, slot.weight) if name is not None]
    if missing := next((name for name in names if name not in tensors.tensors), None):
        raise PlanError(
            f"The attention sites that were given name a tensor that is not there: {missing}",
            why="They are of another checkpoint, or of the same under the names that it has elsewhere",
            remedy="Probe this one",
        )


def _family(config: Mapping[str, Any]) -> str:
    """The family's name; empty where there is none."""
    try:
        return family_of(config).name
    except FamilyError:
        return ""


def read_finite(tensors: Tensors, name: str) -> np.ndarray:
    """A tensor in float64.

    Raises:
        CheckpointError: it is not floating point, or holds NaN or infinite values.
    """
    return check_finite(name, _read(tensors, name))


def _read(tensors: Tensors, name: str) -> np.ndarray:
    dtype = tensors.tensors[name].dtype
    if dtype not in FLOATS:
        raise CheckpointError(f"Tensor {name} is stored as {dtype}", why=f"Only {', '.join(FLOATS)} can be edited")
    return tensors.read(name).astype(np.float64)


def check_finite(name: str, values: np.ndarray) -> np.ndarray:
    """`values`, unless some are NaN or infinite."""
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"Tensor {name} holds {np.count_nonzero(~np.isfinite(values))} NaN or infinite values",
            why="Whatever is computed from them would be NaN too",
            remedy="Start from an undamaged checkpoint, or leave this layer out with --layers. A drop or fill of all "
            "of a bias repairs it",
        )
    return values


def weight_matrix(tensors: Tensors, slot: Slot) -> np.ndarray:
    """The slot's part of its weight as (out, in), float64."""
    assert slot.weight is not None
    stored = read_finite(tensors, slot.weight)
    return slot.rows.take(stored.T if slot.conv1d else stored)


def _select(sites: tuple[Site, ...], recipe: Recipe, gone: Collection[str]) -> list[Site]:
    """The sites a recipe is for; `gone` are the biases that an earlier patch took away, with nothing left to do."""
    chosen = [site for site in sites if recipe.selects(site)]
    if recipe.layers is not None:
        any_layer = recipe.model_copy(update={"layers": None})
        known = {site.layer for site in sites if any_layer.selects(site)}
        if known and (unknown := sorted(set(recipe.layers) - known)):
            raise RecipeError(f"There is no layer {unknown[0]}", remedy=_exists(sites))
    if not chosen:
        raise RecipeError("The selectors match no attention site", remedy=_exists(sites))
    asked = dict.fromkeys([*recipe.fold, *recipe.drop, *recipe.fill, *recipe.freeze, *recipe.train])
    for projection in asked:
        removed = gone if projection in recipe.fold or projection in recipe.drop else ()
        if all(_lacks(site.slots[projection], removed) for site in chosen):
            why = "; ".join(dict.fromkeys(filter(None, (_unread(site.slots[projection]) for site in chosen))))
            raise RecipeError(
                f"None of the {len(chosen)} selected attention sites has a {projection} bias",
                why=why,
                remedy=f"{_exists(sites)}. If the model is meant to have it, correct config.json"
                if why
                else _exists(sites),
            )
    return chosen


def _lacks(slot: Slot, removed: Collection[str]) -> bool:
    """Whether there is no bias, nor was one before an earlier patch removed it."""
    return slot.bias is None and (slot.weight is None or slot.weight.removesuffix("weight") + "bias" not in removed)


def _unread(slot: Slot) -> str:
    """Why stock transformers does not read a bias that the file has; empty if the file has none either."""
    return "" if slot.verdict.reason == NO_BIAS else slot.verdict.reason


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


def _grouped(refusals: list[tuple[str, str, str]]) -> list[str]:
    """Refusals as lines, those of one action for one reason joined."""
    groups: dict[tuple[str, str], list[str]] = {}
    for site, label, reason in refusals:
        groups.setdefault((label, reason), []).append(site)
    return [f"{label} at {_and_more(names)}: {reason}" for (label, reason), names in groups.items()]


def _and_more(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _spills(site: Site, slot: Slot) -> bool:
    """Whether a shift of the slot's norm reaches the site's output: through the value, or a post-norm residual."""
    value = site.slots["value"].norm
    return slot.norm is not None and (slot.norm.residual or (value is not None and value.bias == slot.norm.bias))


def _nbytes(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * BITS[tensor.dtype] // 8


def _absent(edits: tuple[Edit, ...]) -> tuple[str, ...]:
    """Bias tensors that leave the file: those of which every part is removed."""
    removed: dict[str, int] = {}
    size: dict[str, int] = {}
    for edit in edits:
        if edit.removes:
            removed[edit.bias] = removed.get(edit.bias, 0) + edit.slot.view.size
            size[edit.bias] = edit.slot.view.axis
    partly = sorted(name for name in removed if removed[name] < size[name])
    if partly:
        raise PlanError(
            f"Storage `absent` cannot take a part out of {partly[0]}"
            + (f" (nor of {len(partly) - 1} more)" if len(partly) > 1 else ""),
            why="query, key and value share this one tensor, and a part of it stays",
            remedy="Remove all that share it (--fold query,key,value), or keep --storage zeros",
        )
    return tuple(sorted(removed))


class _Planner:
    """Makes edits slot by slot, collecting refusals as (site, action, reason)."""

    def __init__(self, tensors: Tensors, recipe: Recipe) -> None:
        self.tensors, self.recipe = tensors, recipe
        self.refusals: list[tuple[str, str, str]] = []
        self._witnesses: dict[str, algebra.Witness | None] = {}

    def edits(self, sites: Iterable[Site]) -> Iterable[Edit]:
        recipe = self.recipe
        actions: list[tuple[Literal["fold", "drop", "fill", "freeze", "train"], Iterable[Projection]]] = [
            ("fold", recipe.fold),
            ("drop", recipe.drop),
            ("fill", recipe.fill),
            ("freeze", recipe.freeze),
            ("train", recipe.train),
        ]
        for site in sites:
            for action, projections in actions:
                for projection in projections:
                    slot = site.slots[projection]
                    if slot.bias is None:
                        continue
                    edit = self._fold(site, slot) if action == "fold" else self._plain(site, slot, action)
                    if edit is not None:
                        yield edit

    def _plain(self, site: Site, slot: Slot, action: Literal["fold", "drop", "fill", "freeze", "train"]) -> Edit:
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
            equal=self._equal(slot, action, None, sound=bool(np.isfinite(values).all())),
            zero=not values.any(),
        )
        if fill is not None:
            refuse_overflow(edit, self.tensors.tensors[edit.bias].dtype)
        return edit

    def _fold(self, site: Site, slot: Slot) -> Edit | None:
        into = self._destination(site, slot)
        if into is None:
            return None
        spills = into == "norm" and _spills(site, slot)
        edit = Edit(
            site=site.name,
            heads=site.heads,
            action="fold",
            slot=slot,
            into=into,
            value=site.slots["value"] if spills else None,
            output=site.slots["output"] if spills or into == "output" else None,
            norm=slot.norm if into in ("weight", "norm") else None,
            equal=self._equal(slot, "fold", into),
            zero=not self._bias(slot).any(),
        )
        if edit.zero:
            return edit
        measure: dict[str, Callable[[Edit], Edit | None]] = {
            "weight": self._measure_weight,
            "norm": self._measure_norm,
        }
        return measure[into](edit) if into in measure else edit

    def _destination(self, site: Site, slot: Slot) -> str | None:
        wanted = self.recipe.fold[slot.projection]
        folds = slot.verdict.folds
        if wanted == "default":
            if slot.verdict.destinations:
                return slot.verdict.destinations[0]
            reasons = "; ".join(dict.fromkeys(folds.values())) or slot.verdict.reason
            self._refuse(site.name, f"fold {slot.projection}", reasons)
            return None
        if folds.get(wanted):
            self._refuse(site.name, f"fold {slot.projection}:{wanted}", folds[wanted])
            return None
        if wanted == "norm" and _spills(site, slot) and site.slots["output"].bias is None:
            self._refuse(site.name, "fold query:norm", "the output projection has no bias to make up for it")
            return None
        return wanted

    def _refuse(self, site: str, label: str, reason: str) -> None:
        self.refusals.append((site, label, reason))

    def _bias(self, slot: Slot) -> np.ndarray:
        assert slot.bias is not None
        return slot.view.take(read_finite(self.tensors, slot.bias))

    def _plain_bias(self, slot: Slot) -> np.ndarray:
        """The bias for an action that computes nothing from it: of one that has its tensor alone, anything goes."""
        assert slot.bias is not None
        return slot.view.take(_read(self.tensors, slot.bias)) if slot.view.is_whole else self._bias(slot)

    def _equal(self, slot: Slot, action: Any, into: str | None, sound: bool = True) -> Equal:
        return equal_under(
            action,
            into,
            redundant=slot.verdict.state == "redundant" and sound,  # NaN does not cancel in softmax
            dropout=bool(slot.norm and slot.norm.dropout),
            residual=bool(slot.norm and slot.norm.residual),
        )

    def _measure_weight(self, edit: Edit) -> Edit | None:
        assert edit.norm is not None and edit.slot.weight is not None
        if edit.norm.bias not in self._witnesses:
            gamma, beta = (
                read_finite(self.tensors, edit.norm.weight),
                read_finite(self.tensors, edit.norm.bias),
            )
            self._witnesses[edit.norm.bias] = algebra.witness(gamma, beta)
        witness = self._witnesses[edit.norm.bias]
        if witness is None:
            self._refuse(edit.site, edit.label, f"{edit.norm.bias} makes no constant (1/γ · β is zero)")
            return None
        return self._within(edit, witness.amplification, edit.slot.weight, {})

    def _measure_norm(self, edit: Edit) -> Edit | None:
        assert edit.norm is not None
        shift = algebra.solve_shift(weight_matrix(self.tensors, edit.slot), self._bias(edit.slot))
        if shift is None:
            self._refuse(edit.site, edit.label, f"{edit.slot.weight} has no inverse")
            return None
        return self._within(edit, shift.amplification, edit.norm.bias, {"conditioning": shift.conditioning})

    def _within(self, edit: Edit, amplification: float, tensor: str, more: dict[str, float]) -> Edit | None:
        """The edit with its measures, unless it loses more than the recipe allows."""
        loss = amplification * unit_roundoff(self.tensors.tensors[tensor].dtype)
        if loss > self.recipe.max_loss:
            reason = (
                f"rounding {tensor} to {self.tensors.tensors[tensor].dtype} would cost {loss:.2g} of the bias "
                f"(amplification {amplification:.3g}), above max_loss {self.recipe.max_loss:g}"
            )
            self._refuse(edit.site, edit.label, reason)
            return None
        return edit.model_copy(update={"amplification": amplification, "loss": loss, **more})


assert set(DESTINATIONS) == set(PROJECTIONS)
