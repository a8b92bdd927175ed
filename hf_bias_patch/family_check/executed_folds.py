"""Executes every fold that a family's verdicts offer, as a patch would, and measures how far the outputs move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedModel

from hf_bias_patch.architecture.find import find_sites
from hf_bias_patch.architecture.sites import Site
from hf_bias_patch.architecture.verdict import DESTINATIONS
from hf_bias_patch.errors import BiasPatchError
from hf_bias_patch.patching.in_memory import ModelTensors, apply
from hf_bias_patch.patching.recipe import make_recipe
from hf_bias_patch.probing.moves import ReferenceRunner
from hf_bias_patch.probing.probe import STILL

__all__ = ["TriedFold", "all_offered", "offers", "trials"]

TriedFold = tuple[str, str]
"""A fold, such as `value:output`, and what went wrong with it; empty if nothing did."""


def offers(sites: tuple[Site, ...]) -> Iterator[tuple[str, str, tuple[Site, ...]]]:
    """Projection, destination, and the sites whose verdicts offer that fold, where any does."""
    for projection, destinations in DESTINATIONS.items():
        for destination in destinations:
            chosen = tuple(site for site in sites if destination in site.slots[projection].verdict.destinations)
            if chosen:
                yield projection, destination, chosen


def trials(model: PreTrainedModel, run: Callable[[], Mapping[str, Tensor]]) -> list[TriedFold]:
    """Try each fold on all sites that offer it, and then each site's default folds all together.

    Args:
        model: in float64 and evaluation mode; as it was at the end.
        run: runs it on some inputs, always the same.

    Raises:
        FamilyError, CheckpointError: as for `find_sites`.
    """
    runner = ReferenceRunner(model, run)
    sites = find_sites(model.config.to_dict(), ModelTensors(model).tensors)
    found = [
        (f"{projection}:{destination}", _try(runner, model, {projection: destination}, chosen))
        for projection, destination, chosen in offers(sites)
    ]
    folds, chosen = all_offered(sites)
    if folds:
        found.append(("all together", _try(runner, model, folds, chosen)))
    return found


def all_offered(sites: Sequence[Site]) -> tuple[dict[str, str], tuple[Site, ...]]:
    """The default folds of all that any site offers, and the sites without the biases for which none is offered."""
    chosen = tuple(site for site in sites if any(slot.verdict.destinations for slot in site.slots.values()))
    names = [name for name in ("query", "key", "value") if any(_open(site, name) for site in chosen)]
    return dict.fromkeys(names, "default"), tuple(map(_only_open, chosen))


def _open(site: Site, projection: str) -> bool:
    return bool(site.slots[projection].verdict.destinations)


def _only_open(site: Site) -> Site:
    """A site without the biases that no fold is offered for: a recipe for all would be refused because of them."""
    slots = {
        name: slot if slot.verdict.destinations or name == "output" else replace(slot, bias=None)
        for name, slot in site.slots.items()
    }
    return replace(site, slots=slots)


def _try(runner: ReferenceRunner, model: PreTrainedModel, folds: dict[str, str], sites: tuple[Site, ...]) -> str:
    try:
        with apply(model, make_recipe(fold=folds, max_loss=1.0), sites=sites):
            effect = runner.effect()
    except BiasPatchError as error:
        return str(error)
    return "" if effect <= max(STILL, 1e3 * runner.floor) else f"it moves the output by {effect:.1e}"
