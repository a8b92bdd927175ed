"""Decides what trains: sets `requires_grad` on chosen biases and the head, and says of every tensor why it trains."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hf_bias_patch.attention.find import find_sites
from hf_bias_patch.attention.sites import PROJECTIONS, Site, Slot
from hf_bias_patch.errors import RecipeError, TuneError
from hf_bias_patch.patching.memory import ModelTensors
from hf_bias_patch.tuning.head import head_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ADAPTERS", "WORDS", "Selection", "Trained", "is_bias", "projections_of", "select"]

ADAPTERS = ("lora", "beft")
"""What peft trains: parameters of its own, beside the model's."""

WORDS = (*PROJECTIONS, "biases", "all", "none", *ADAPTERS)
"""What `train` takes; projections may be joined: `query,value`."""

Wanted: TypeAlias = "bool | np.ndarray"
"""Whether a parameter trains; a mask of its elements where only a part does."""

_BIAS = re.compile(r"(.*[._])?bias(_\w+)?|.*\.(in_proj_bias|[qkvo]_bias)")


@dataclass(frozen=True)
class Trained:
    """A tensor that trains.

    Attributes:
        name: of the parameter as the stock model calls it; of an adapter the one that it changes.
        part: what of it trains, as `value`, or of an adapter which of its tensors, as `lora_A`; or `all`.
        role: `attention bias`, `bias`, `weight`, `head` or `adapter`.
        elements: numbers that train.
        whole: numbers that the parameter has.
        live: name of the parameter that the optimiser holds: another only where a part trains.
    """

    name: str
    part: str
    role: str
    elements: int
    whole: int
    live: str


@dataclass(frozen=True)
class Selection:
    """All that trains.

    Attributes:
        trained: the tensors, in the model's order.
        total: elements of all parameters of the model, the head's and adapters' among them.
        head: whether the task head trains.
    """

    trained: tuple[Trained, ...]
    total: int
    head: bool

    @property
    def elements(self) -> int:
        """Numbers that train, the head's among them."""
        return sum(tensor.elements for tensor in self.trained)

    @property
    def without_head(self) -> int:
        """Numbers that train, without the head's: what papers count."""
        return sum(tensor.elements for tensor in self.trained if tensor.role != "head")

    @property
    def changed(self) -> frozenset[str]:
        """Names of the saved model's tensors that training may have changed, some of them only in part.

        An adapter counts as merged: LoRA changes the weights of its maps, BEFT their biases.
        """
        return frozenset(tensor.name for tensor in self.trained)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        counts = {"trained": self.elements, "trained_without_head": self.without_head, "total": self.total}
        return {**counts, "tensors": [vars(tensor) for tensor in self.trained]}


def projections_of(train: str) -> tuple[str, ...]:
    """The projections that a `train` word names: none for `biases`, `all`, `none`, `lora`, `beft`.

    Raises:
        RecipeError: it is no such word, or joins words that exclude each other.
    """
    words = tuple(dict.fromkeys(part.strip() for part in train.replace("+", ",").split(",") if part.strip()))
    if wrong := [word for word in words if word not in WORDS]:
        raise RecipeError(f"train: {wrong[0]!r} is not known", remedy=f"Write one of {', '.join(WORDS)}")
    if not words or (len(words) > 1 and not set(words) <= set(PROJECTIONS)):
        raise RecipeError(f"train: {train!r} names no one thing", remedy="Only projections may be joined: query,value")
    return words if set(words) <= set(PROJECTIONS) else ()


def is_bias(name: str, parameter: Any) -> bool:
    """Whether a parameter is a bias vector: attention's, a feed-forward layer's or a norm's."""
    return parameter.ndim == 1 and _BIAS.fullmatch(name) is not None


def select(
    model: PreTrainedModel,
    train: str,
    *,
    head: bool,
    new: Collection[str] = (),
    freeze: Sequence[str] = (),
    redundant: bool = False,
    sites: Sequence[Site] | None = None,
) -> Selection:
    """Make exactly the named things train: everything else has `requires_grad` off.

    Of a fused bias only the named part trains; the rest stays bit-identical (see `slices`), until `join_slices`.

    Args:
        model: a transformers model, changed in place.
        train: `all`, `biases`, `none`, or projections such as `query,value`.
        head: whether the task head trains.
        new: names of the parameters that got random values when the model was loaded; they are the head's.
        freeze: projections whose bias does not train, whatever `train` says.
        redundant: let a bias train whose verdict says that it changes nothing.
        sites: the attention sites; by default the family's.

    Raises:
        RecipeError: `train` is no such word, or names a bias the model has not.
        TuneError: every named bias of a projection is redundant: its gradient is zero.
        FamilyError, CheckpointError: no family covers the model.
    """
    projections = projections_of(train)
    if train in ADAPTERS:
        raise RecipeError(f"train: {train} is no part of the model", remedy="`adapters.add` adds it")
    parameters = dict(model.named_parameters())
    heads = head_of(model, new)
    wanted: dict[str, Wanted] = {
        name: train == "all" or (train == "biases" and is_bias(name, parameter))
        for name, parameter in parameters.items()
    }
    if projections or freeze:
        found = find_sites(model.config.to_dict(), ModelTensors(model).tensors) if sites is None else sites
        _mark(wanted, _slots(found, projections, "train", redundant), True)
        _mark(wanted, _slots(found, freeze, "freeze", redundant=True), False)
    wanted |= dict.fromkeys(heads, head)
    return _apply(model, wanted, heads, projections)


def _slots(sites: Sequence[Site], projections: Iterable[str], field: str, redundant: bool) -> Iterator[Slot]:
    """The slots of projections that have a bias.

    Raises:
        RecipeError: there is none of one projection.
        TuneError: all of one projection are redundant, and may not be.
    """
    for projection in projections:
        slots = [site.slots[projection] for site in sites if projection in site.slots]
        present = [slot for slot in slots if slot.bias is not None]
        if not present:
            raise RecipeError(f"{field}: the model has no {projection} bias")
        if not redundant and all(slot.verdict.state == "redundant" for slot in present):
            reason = present[0].verdict.reason.capitalize()
            raise TuneError(
                f"train: the {projection} bias is redundant here",
                why=f"{reason}. Its gradient is zero; only rounding noise would move it",
                remedy="Train value or query; for an experiment add --train_redundant",
            )
        yield from present


def _mark(wanted: dict[str, Wanted], slots: Iterable[Slot], trains: bool) -> None:
    for slot in slots:
        name = slot.bias
        if name not in wanted:
            continue
        before = wanted[name]
        mask = before.copy() if isinstance(before, np.ndarray) else np.full(slot.view.axis, before)
        slot.view.put(mask, trains)
        wanted[name] = mask if mask.any() and not mask.all() else bool(mask.any())


def _apply(
    model: PreTrainedModel, wanted: dict[str, Wanted], heads: Collection[str], projections: Sequence[str]
) -> Selection:
    parameters = dict(model.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    trained = []
    for name, which in wanted.items():
        parameter = parameters[name]
        parameter.requires_grad_(which is not False)
        if which is False:
            continue
        role = "head" if name in heads else "attention bias" if projections else _role(name, parameter)
        if isinstance(which, np.ndarray):
            live = _slice(model, name, which)
            part = ",".join(projections) or "not frozen"
            trained.append(Trained(name, part, role, int(which.sum()), which.size, live))
        else:
            trained.append(Trained(name, "all", role, parameter.numel(), parameter.numel(), name))
    return Selection(tuple(trained), total, any(tensor.role == "head" for tensor in trained))


def _slice(model: PreTrainedModel, name: str, mask: np.ndarray) -> str:
    import torch

    from hf_bias_patch.tuning.slices import train_slice

    return train_slice(model, name, torch.from_numpy(np.flatnonzero(mask)).to(model.get_parameter(name).device))


def _role(name: str, parameter: Any) -> str:
    return "bias" if is_bias(name, parameter) else "weight"
