"""Finds the attention sites of a model from its config and its tensors' names and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from hf_bias_patch.architecture.as_read import as_read
from hf_bias_patch.architecture.causes import BY_PROBE, MisfitError, NoAttentionError, explained, own_code
from hf_bias_patch.architecture.condition import lookup, meant
from hf_bias_patch.architecture.family import Family, Tower, family_of, is_known
from hf_bias_patch.architecture.model_type import no_model_type
from hf_bias_patch.architecture.name_patterns import KINDS, ModelPart, Scope, parameter
from hf_bias_patch.architecture.norms_read import OuterNorm
from hf_bias_patch.architecture.refusals import refuse_placeholders
from hf_bias_patch.architecture.resolve import Finder
from hf_bias_patch.architecture.site_maker import sites_of
from hf_bias_patch.architecture.sites import Site, Tensor
from hf_bias_patch.architecture.suggest import hint
from hf_bias_patch.checkpoint.shorten import brief, listed
from hf_bias_patch.errors import CheckpointError, FamilyError

__all__ = ["find_sites", "finders", "uncovered"]

_NOT_KNOWN = "Whether its biases are redundant is not known, and is never guessed"
_LOOK_UP = "`hf-bias-patch inspect MODEL --probe` measures it; `hf-bias-patch families` lists what is known"


def find_sites(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Site, ...]:
    """All attention sites, in the order of towers, stacks, layers and kinds.

    Args:
        config: a parsed config.json.
        tensors: parameter name → dtype and shape.

    Raises:
        FamilyError: no family covers the config.
        CheckpointError: the tensors are not those the config describes.
    """
    if not tensors:
        raise CheckpointError("The checkpoint holds no tensors", remedy="Download it or save it again")
    refuse_placeholders(tensors)
    if not config.get("model_type"):
        raise no_model_type(config, tensors)
    if not is_known(config["model_type"]):
        _refuse_unknown(config, tensors)
    try:
        found = tuple(site for finder, outer in finders(config, tensors) for site in sites_of(finder, outer))
        if not found:
            if family_of(config).is_empty:
                raise FamilyError(
                    f"A model of type {config['model_type']} has no softmax attention",
                    why="Its layers mix positions by other means, so there is no query, key or value bias",
                )
            if absent := _switched_off(config):
                raise FamilyError(
                    f"This {config['model_type']} model has no softmax attention",
                    why=f"config.json, or its default, says so: {absent}",
                )
            if towers := uncovered(config):
                raise FamilyError(
                    f"No family covers all parts of this {config['model_type']} model: {', '.join(towers)}",
                    why=_NOT_KNOWN,
                    remedy=_LOOK_UP,
                )
            raise NoAttentionError(
                f"The checkpoint has none of the attention tensors of a model of type {config['model_type']}",
                why=f"Its tensors are called {listed(list(tensors))}",
                remedy="Use the config.json that was saved with these weights",
            )
    except MisfitError as error:
        raise explained(error, config, tensors) from None
    return found


def _switched_off(config: Mapping[str, Any]) -> str:
    """The config entries by which a model has no attention at all, as `key = value`; empty if it has some."""
    family, read = family_of(config), as_read(config)
    if family.towers:
        return ""
    kinds = read.get("layer_types")
    if isinstance(kinds, list) and kinds and not any(map(_may_attend, kinds)):
        return f"layer_types = {brief(kinds)}"
    if any(meant(attention.when, read) for attention in family.attention):
        return ""
    keys = dict.fromkeys(key for attention in family.attention for key in attention.when)
    return ", ".join(f"{key} = {brief(lookup(read, key))}" for key in keys)


def _may_attend(kind: object) -> bool:
    """Whether layers of a kind in a hybrid's `layer_types` may have attention by a softmax."""
    return "hybrid" in str(kind) or ("attention" in str(kind) and "linear" not in str(kind))


def _refuse_unknown(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    place = own_code(config)
    code = f"The model is made by code of its own (config.json: `auto_map` names {place})" if place else ""
    why = code or hint(tensors) or _NOT_KNOWN
    raise FamilyError(
        f"No family covers the model type {brief(config['model_type'])}", why, BY_PROBE if place else _LOOK_UP
    )


def uncovered(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The towers of a config that no family covers, as `key (model type)`: their sites are not among those found."""
    family, read = family_of(config), as_read(config)
    found = []
    for tower in family.towers.values():
        part = _part(read, tower)
        try:
            inner = uncovered(part) if part else ()
        except FamilyError:
            inner = (str((part or {}).get("model_type")),)
        found += [f"{tower.config} ({name})" for name in inner]
    return tuple(found)


def finders(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[tuple[Finder, OuterNorm]]:
    """A finder of sites for each part of a model, towers first, and the outer norm that its cross-attention reads.

    Args:
        config, tensors: as for `find_sites`.

    Raises:
        FamilyError, CheckpointError: as `find_sites`.
    """
    yield from _finders(as_read(config), tensors, ModelPart(str(config["model_type"])), OuterNorm())


def _finders(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], part: ModelPart, reads: OuterNorm
) -> Iterator[tuple[Finder, OuterNorm]]:
    family = family_of(config)
    yield from _towers(config, tensors, family, part)
    if family.attention:
        apart = tuple(name for inner in family.towers.values() for name in inner.under if name)
        scope = Scope(part.scope.under, (*part.scope.apart, *apart))
        yield Finder(config, tensors, family, replace(part, scope=scope)), reads


def _towers(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, outer: ModelPart
) -> Iterator[tuple[Finder, OuterNorm]]:
    covered = 0
    for name, tower in family.towers.items():
        inside = _part(config, tower)
        if inside is None and not family.memory:
            continue
        reads = _outer_norm(config, tensors, family, outer, name)
        try:
            yield from _finders(inside or {}, tensors, _inner(family, name, outer), reads)
            covered += 1
        except FamilyError:
            if family.memory:
                raise
    if family.towers and not covered and not family.attention:
        first = next(iter(family.towers.values()))
        family_of(_part(config, first) or {})  # raises, and names the type


def _inner(family: Family, name: str, outer: ModelPart) -> ModelPart:
    """A tower of a part."""
    tower = family.towers[name]
    others = (other for key, other in family.towers.items() if key != name)
    apart = (*outer.scope.apart, *(part for other in others for part in other.under if part))
    inner = f"{outer.name}-{name}" if outer.name else name
    return ModelPart(outer.root, inner, f"{outer.path}{tower.config}.", Scope(tower.under, apart))


def _part(config: Mapping[str, Any], tower: Tower) -> Mapping[str, Any] | None:
    """A tower's own config, its model type filled in."""
    part = config.get(tower.config)
    if not isinstance(part, Mapping):
        return None
    return part if part.get("model_type") or not tower.model_type else {**part, "model_type": tower.model_type}


def _outer_norm(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, outer: ModelPart, name: str
) -> OuterNorm:
    """What a tower's cross-attention reads, where that is another tower."""
    if own := family.towers[name].memory:
        sources = (_last_norm(config, tensors, family, outer, source) for source in own.split("|"))
        return next((norm for norm in sources if norm.norm), OuterNorm())
    if not family.memory or name == family.memory:
        return OuterNorm()
    tower = family.towers[family.memory]
    part = _part(config, tower)
    encoder, encoder_type = family_of(part or {}), (part or {}).get("model_type")
    has_decoder = len(encoder.stacks) != 1 and any(name.endswith("decoder") for name in encoder.stacks)
    if encoder.towers or has_decoder:
        what = (
            f"itself a model of type {encoder_type}"
            if encoder.towers
            else f"a model of type {encoder_type}, which has a decoder of its own"
        )
        raise FamilyError(f"config.json: `{tower.config}` is {what}", remedy="No family covers this")
    if any(tensor.startswith(f"{family.bridge}.") for tensor in tensors):
        return OuterNorm(none=f"{family.bridge} stands between the encoder's last norm and it")
    finder = Finder(part or {}, tensors, encoder, _inner(family, family.memory, outer))
    return OuterNorm(norm=finder.final_norm(), skipped=finder.may_skip())


def _last_norm(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, outer: ModelPart, name: str
) -> OuterNorm:
    """The norm whose output is a tower's output; none if the checkpoint has none, or it is not known."""
    part = _part(config, family.towers[name])
    try:
        encoder = family_of(part or {})
    except FamilyError:
        return OuterNorm()
    if encoder.towers or len(encoder.stacks) != 1:
        return OuterNorm()
    finder = Finder(part or {}, tensors, encoder, _inner(family, name, outer))
    there = (module for module in finder.final_norm().split("|") if parameter(module, KINDS, tensors))
    return OuterNorm(norm=next(there, ""), skipped=finder.may_skip())
