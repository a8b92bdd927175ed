"""Finds the attention sites of a model from its config and its tensors' names and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hf_bias_patch.attention.causes import (
    BY_PROBE,
    MisfitError,
    NoAttentionError,
    explained,
    own_code,
)
from hf_bias_patch.attention.family import Family, Tower, family_of, is_known
from hf_bias_patch.attention.likeness import hint
from hf_bias_patch.attention.model_type import no_model_type
from hf_bias_patch.attention.placeholders import refuse_placeholders
from hf_bias_patch.attention.places import KINDS, Scope, parameter
from hf_bias_patch.attention.resolve import Finder
from hf_bias_patch.attention.site_maker import Memory
from hf_bias_patch.attention.sites import Site, Tensor
from hf_bias_patch.checkpoint.showing import brief, listed
from hf_bias_patch.errors import FamilyError

__all__ = ["find_sites", "uncovered"]


def find_sites(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Site, ...]:
    """All attention sites, in the order of towers, stacks, layers and kinds.

    Args:
        config: a parsed config.json.
        tensors: parameter name → dtype and shape.

    Raises:
        FamilyError: no family covers the config.
        CheckpointError: the tensors are not those the config describes.
    """
    refuse_placeholders(tensors)
    if not config.get("model_type"):
        raise no_model_type(config, tensors)
    if not is_known(config["model_type"]):
        _refuse_unknown(config, tensors)
    try:
        found = tuple(_sites(config, tensors, Scope(), "", Memory()))
        if not found:
            if family_of(config).is_empty:
                raise FamilyError(
                    f"A {config['model_type']} model has no attention by a softmax",
                    why="Its layers mix positions by other means, so there is no query, key or value bias",
                )
            if towers := uncovered(config):
                _refuse_towers(config["model_type"], towers)
            raise NoAttentionError(
                f"The checkpoint has no attention tensors of a {config['model_type']} model",
                why=f"Its tensors are called {listed(list(tensors))}",
                remedy="Use the config.json that was saved with these weights",
            )
    except MisfitError as error:
        raise explained(error, config, tensors) from None
    return found


def _refuse_unknown(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    place = own_code(config)
    raise FamilyError(
        f"No family covers the model type {brief(config['model_type'])}",
        why=f"The model is made by code of its own (config.json: `auto_map` names {place})"
        if place
        else hint(tensors) or "Whether its biases are redundant is not known, and is never guessed",
        remedy=BY_PROBE
        if place
        else "`hf-bias-patch inspect MODEL --probe` decides by numbers; `hf-bias-patch families` lists what is known",
    )


def _refuse_towers(model_type: object, towers: tuple[str, ...]) -> None:
    raise FamilyError(
        f"No family covers what is inside this {model_type} model: {', '.join(towers)}",
        why="Whether its biases are redundant is not known, and is never guessed",
        remedy="`hf-bias-patch inspect MODEL --probe` decides by numbers; `hf-bias-patch families` lists what is known",
    )


def uncovered(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The towers of a config that no family covers, as `key (model type)`: their sites are not among those found."""
    family = family_of(config)
    found = []
    for tower in family.towers.values():
        part = _part(config, tower)
        try:
            inner = uncovered(part) if part else ()
        except FamilyError:
            inner = (str((part or {}).get("model_type")),)
        found += [f"{tower.config} ({name})" for name in inner]
    return tuple(found)


def _sites(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], scope: Scope, tower: str, memory: Memory
) -> Iterator[Site]:
    family = family_of(config)
    yield from _towers(config, tensors, family, scope, tower)
    if family.attention:
        apart = tuple(part for inner in family.towers.values() for part in inner.under if part)
        own = Scope(scope.under, (*scope.apart, *apart))
        yield from Finder(config, tensors, family, own, tower).sites(memory)


def _towers(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, scope: Scope, outer: str
) -> Iterator[Site]:
    covered = 0
    for name, tower in family.towers.items():
        part = _part(config, tower)
        if part is None and not family.memory:
            continue
        memory = _memory(config, tensors, family, name)
        inner = _scope(family, name, scope.apart)
        try:
            yield from _sites(part or {}, tensors, inner, f"{outer}-{name}" if outer else name, memory)
            covered += 1
        except FamilyError:
            if family.memory:
                raise
    if family.towers and not covered and not family.attention:
        first = next(iter(family.towers.values()))
        family_of(_part(config, first) or {})  # raises, and names the type


def _scope(family: Family, name: str, apart: tuple[str, ...] = ()) -> Scope:
    """Which parameter names are a tower's."""
    others = (tower for key, tower in family.towers.items() if key != name)
    return Scope(family.towers[name].under, (*apart, *(part for other in others for part in other.under if part)))


def _part(config: Mapping[str, Any], tower: Tower) -> Mapping[str, Any] | None:
    """A tower's own config, its model type filled in."""
    part = config.get(tower.config)
    if not isinstance(part, Mapping):
        return None
    return part if part.get("model_type") or not tower.model_type else {**part, "model_type": tower.model_type}


def _memory(config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, name: str) -> Memory:
    """What a tower's cross-attention reads, where that is another tower."""
    if own := family.towers[name].memory:
        sources = (_last_norm(config, tensors, family, source) for source in own.split("|"))
        return next((memory for memory in sources if memory.norm), Memory())
    if not family.memory or name == family.memory:
        return Memory()
    tower = family.towers[family.memory]
    part = _part(config, tower)
    encoder = family_of(part or {})
    has_decoder = len(encoder.stacks) != 1 and any(name.endswith("decoder") for name in encoder.stacks)
    if encoder.towers or has_decoder:
        what = (
            f"itself a {encoder.name} model"
            if encoder.towers
            else f"a {encoder.name} model, which has a decoder of its own"
        )
        raise FamilyError(f"config.json: `{tower.config}` is {what}", remedy="No family covers this")
    if any(tensor.startswith(f"{family.bridge}.") for tensor in tensors):
        return Memory(none=f"{family.bridge} stands between the encoder's last norm and it")
    finder = Finder(part or {}, tensors, encoder, _scope(family, family.memory), "")
    return Memory(norm=finder.final_norm(), skipped=finder.may_skip())


def _last_norm(config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, name: str) -> Memory:
    """The norm whose output is a tower's output; none if the checkpoint has none, or it is not known."""
    part = _part(config, family.towers[name])
    try:
        encoder = family_of(part or {})
    except FamilyError:
        return Memory()
    if encoder.towers or len(encoder.stacks) != 1:
        return Memory()
    finder = Finder(part or {}, tensors, encoder, _scope(family, name), "")
    there = (module for module in finder.final_norm().split("|") if parameter(module, KINDS, tensors))
    return Memory(norm=next(there, ""), skipped=finder.may_skip())
