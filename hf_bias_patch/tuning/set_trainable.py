"""Decides what trains: sets `requires_grad` on chosen biases and the head, and lists every tensor that trains.

Redundant biases train only with `redundant` (`--train-redundant`), whichever word names them, because their gradient is
zero and only rounding noise would move them. `all` trains everything, as stock fine-tuning does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hf_bias_patch.architecture.find import find_sites, uncovered
from hf_bias_patch.architecture.sites import PROJECTIONS, Site, Slot
from hf_bias_patch.errors import CheckpointError, FamilyError, RecipeError, TuneError
from hf_bias_patch.patching.in_memory import ModelTensors
from hf_bias_patch.tuning.head import head_of
from hf_bias_patch.tuning.trainable import LeftOut, Trainable, TrainableTensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ADAPTERS", "WORDS", "is_bias", "projections_of", "refuse_kept", "set_trainable"]

ADAPTERS = ("lora", "beft")
"""What peft trains: parameters of its own, in addition to the model's."""

WORDS = (*PROJECTIONS, "biases", "all", "none", *ADAPTERS)
"""What `train` takes; projections may be joined: `query,value`."""

Wanted: TypeAlias = "bool | np.ndarray"
"""Whether a parameter trains; a mask of its elements where only a part does."""

_BIAS = re.compile(r"(.*[._])?bias(_\w+)?|.*\.(in_proj_bias|[qkvo]_bias)")


def projections_of(train: str) -> tuple[str, ...]:
    """The projections that a `train` word names: none for `biases`, `all`, `none`, `lora`, `beft`.

    Raises:
        RecipeError: a word is unknown, or words are joined that exclude each other.
    """
    words = tuple(dict.fromkeys(part.strip() for part in train.replace("+", ",").split(",") if part.strip()))
    if wrong := [word for word in words if word not in WORDS]:
        raise RecipeError(f"train: {wrong[0]!r} is not known", remedy=f"Write one of {', '.join(WORDS)}")
    if not words:
        raise RecipeError("train: no word is given", remedy=f"Write one of {', '.join(WORDS)}")
    if len(words) > 1 and not set(words) <= set(PROJECTIONS):
        raise RecipeError(
            f"train: {' and '.join(words)} cannot be joined", remedy="Only projections can, such as query,value"
        )
    return words if set(words) <= set(PROJECTIONS) else ()


def is_bias(name: str, parameter: Any) -> bool:
    """Whether a parameter is a bias vector: attention's, a feed-forward layer's or a norm's."""
    return parameter.ndim == 1 and _BIAS.fullmatch(name) is not None


def set_trainable(
    model: PreTrainedModel,
    train: str,
    *,
    head: bool,
    new: Collection[str] = (),
    freeze: Sequence[str] = (),
    kept: Mapping[str, str] | None = None,
    redundant: bool = False,
    sites: Sequence[Site] | None = None,
) -> Trainable:
    """Make exactly the named things train: everything else has `requires_grad` off.

    Of a fused bias only the named part trains, as a parameter of its own until `join_slices`.

    Args:
        model: a transformers model, changed in place.
        train: `all`, `biases`, `none`, or projections such as `query,value`.
        head: whether the task head trains.
        new: names of the parameters that got random values when the model was loaded; they are the head's.
        freeze: projections whose bias does not train, whatever `train` says.
        kept: slots that a patch removed or froze (`patching.record.untouchable`); none of them trains.
        redundant: let redundant biases train.
        sites: the attention sites; by default the family's.

    Raises:
        RecipeError: `train` is unknown, or names a bias that the model does not have.
        TuneError: every bias of a named projection is redundant, or was removed or frozen by a patch.
        FamilyError, CheckpointError: projections are named, and no family covers the model.
    """
    projections = projections_of(train)
    if train in ADAPTERS:
        raise RecipeError(f"train: {train} is an adapter", remedy="Add it with `tuning.adapters.add`")
    heads = head_of(model, new)
    wanted: dict[str, Wanted] = {
        name: train == "all" or (train == "biases" and is_bias(name, parameter))
        for name, parameter in model.named_parameters()
    }
    kept = kept or {}
    must, rules = bool(projections or freeze or kept), train != "all" and not redundant
    found, untold = _sites(model, sites, must) if must or rules else ((), "")
    for slot in _named(found, projections, "train"):
        _mark(wanted, slot, True)
    for slot in _named(found, freeze, "freeze"):
        _mark(wanted, slot, False)
    refuse_kept(found, projections, kept)
    for site in found:
        for projection, slot in site.slots.items():
            if f"{site.name}.{projection}" in kept:
                _mark(wanted, slot, False)
    wanted |= dict.fromkeys(heads, head)
    left_out: tuple[LeftOut, ...] = ()
    if rules:
        _refuse_redundant(found, projections)
        left_out = tuple(_leave_out(wanted, found))
    trained, total = _apply(model, wanted, _parts(wanted, found), heads, attention=bool(projections))
    has_head = any(tensor.role == "head" for tensor in trained)
    return Trainable(trained, total, has_head, left_out, untold if rules and train == "biases" else "")


def _sites(model: PreTrainedModel, sites: Sequence[Site] | None, must: bool) -> tuple[Sequence[Site], str]:
    """The attention sites, and why some or all of them are unknown.

    Raises:
        FamilyError, CheckpointError: no family covers the model, and it must.
    """
    if sites is not None:
        return sites, ""
    config = model.config.to_dict()
    try:
        found = find_sites(config, ModelTensors(model).tensors)
    except (FamilyError, CheckpointError) as error:
        if must:
            raise
        return (), f"{error.what}."
    towers = uncovered(config)
    unknown = [slot.verdict.reason for site in found for slot in site.slots.values() if slot.verdict.state == "unknown"]
    reason = f"No family covers {', '.join(towers)}." if towers else f"{unknown[0].capitalize()}." if unknown else ""
    return found, reason


def _named(sites: Sequence[Site], projections: Iterable[str], field: str) -> Iterator[Slot]:
    """The slots of projections that have a bias.

    Raises:
        RecipeError: the model has no bias of a projection.
    """
    for projection in projections:
        present = list(_present(sites, projection))
        if not present:
            raise RecipeError(f"{field}: the model has no {projection} bias")
        yield from present


def _present(sites: Sequence[Site], projection: str) -> Iterator[Slot]:
    for site in sites:
        slot = site.slots.get(projection)
        if slot is not None and slot.bias is not None:
            yield slot


def refuse_kept(sites: Sequence[Site], projections: Iterable[str], kept: Mapping[str, str]) -> None:
    """Refuse to train a projection's bias that a patch removed or froze at every site.

    Raises:
        TuneError: a patch did.
    """
    for projection in projections:
        present = [site.name for site in sites for slot in _present([site], projection)]
        marks = {kept.get(f"{name}.{projection}") for name in present}
        if marks and None not in marks:
            done = "removed" if "removed" in marks else "frozen"
            raise TuneError(
                f"train: the {projection} bias was {done} by the patch that made this checkpoint",
                why="Training would undo that",
                remedy="Train something else, or start from the checkpoint before the patch",
            )


def _refuse_redundant(sites: Sequence[Site], projections: Iterable[str]) -> None:
    """Refuse a named projection all of whose biases are redundant."""
    for projection in projections:
        present = list(_present(sites, projection))
        if all(slot.verdict.state == "redundant" for slot in present):
            reason = present[0].verdict.reason.capitalize()
            raise TuneError(
                f"train: the {projection} bias is redundant here",
                why=f"{reason}. Its gradient is zero; only rounding noise would move it",
                remedy="Train value or query; for an experiment add --train-redundant",
            )


def _leave_out(wanted: dict[str, Wanted], sites: Sequence[Site]) -> Iterator[LeftOut]:
    """Remove the redundant biases from what is wanted."""
    for site in sites:
        for projection, slot in site.slots.items():
            if slot.bias in wanted and slot.verdict.state == "redundant":
                trains = slot.view.take(_mask(wanted[slot.bias], slot))
                _mark(wanted, slot, False)
                if trains.any():
                    yield LeftOut(slot.bias, projection, int(trains.sum()))


def _mask(which: Wanted, slot: Slot) -> np.ndarray:
    return which.copy() if isinstance(which, np.ndarray) else np.full(slot.view.axis, which)


def _mark(wanted: dict[str, Wanted], slot: Slot, trains: bool) -> None:
    if slot.bias is None or slot.bias not in wanted:
        return
    mask = _mask(wanted[slot.bias], slot)
    slot.view.put(mask, trains)
    wanted[slot.bias] = mask if mask.any() and not mask.all() else bool(mask.any())


def _parts(wanted: Mapping[str, Wanted], sites: Sequence[Site]) -> dict[str, str]:
    """The projections that train, of parameters that train in part."""
    parts: dict[str, list[str]] = {}
    for site in sites:
        for projection, slot in site.slots.items():
            which = wanted.get(slot.bias or "")
            if isinstance(which, np.ndarray) and slot.view.take(which).all():
                parts.setdefault(str(slot.bias), []).append(projection)
    return {name: ",".join(projections) for name, projections in parts.items()}


def _apply(
    model: PreTrainedModel,
    wanted: Mapping[str, Wanted],
    parts: Mapping[str, str],
    heads: Collection[str],
    attention: bool,
) -> tuple[tuple[TrainableTensor, ...], int]:
    """Set `requires_grad`; what trains, and the count of all parameters."""
    import torch

    from hf_bias_patch.tuning.slices import train_slice

    parameters = dict(model.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    trained = []
    for name, which in wanted.items():
        parameter = parameters[name]
        parameter.requires_grad_(which is not False)
        if which is False:
            continue
        kind = "bias" if is_bias(name, parameter) else "weight"
        role = "head" if name in heads else "attention bias" if attention else kind
        if isinstance(which, np.ndarray):
            places = torch.from_numpy(np.flatnonzero(which)).to(parameter.device)
            live = train_slice(model, name, places)
            trained.append(
                TrainableTensor(
                    name, parts.get(name, "a part"), role, int(which.sum()), which.size, live, _ranges(which)
                )
            )
        else:
            trained.append(TrainableTensor(name, "all", role, parameter.numel(), parameter.numel(), name))
    return tuple(trained), total


def _ranges(mask: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Where a mask is true, as ranges (start, stop)."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))
