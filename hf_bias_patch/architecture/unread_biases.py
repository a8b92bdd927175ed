"""Names the attention biases of a file that stock transformers does not read, each with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hf_bias_patch.architecture.condition import lookup, meant
from hf_bias_patch.architecture.family import Attention
from hf_bias_patch.architecture.find import finders
from hf_bias_patch.architecture.name_patterns import LayerIndex, first_there, parameter, places
from hf_bias_patch.architecture.resolve import Finder
from hf_bias_patch.architecture.site_maker import sites_of
from hf_bias_patch.architecture.sites import Tensor
from hf_bias_patch.architecture.unread import SITE, layers_key, within

__all__ = ["unread_biases"]


def unread_biases(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Attention bias that stock transformers does not read → why.

    Args:
        config, tensors: as for `find_sites`.

    Raises:
        FamilyError, CheckpointError: as `find_sites`.
    """
    found: dict[str, str] = {}
    read: set[str | None] = set()
    for finder, outer in finders(config, tensors):
        read |= {slot.bias for site in sites_of(finder, outer) for slot in site.slots.values()}
        for attention in finder.family.attention:
            if meant(attention.when, finder.config):
                found |= dict(_of(finder, attention))
    return {name: why for name, why in found.items() if name not in read}


def _of(finder: Finder, attention: Attention) -> Iterator[tuple[str, str]]:
    for module, projections in attention.maps.items():
        pattern = first_there(module, finder.tensors, finder.part.scope)
        for prefix, there in places(pattern, finder.tensors, finder.part.scope).items():
            for place in there:
                bias = parameter(
                    prefix + pattern.format(stage=place.stage, layer=place.layer), ("bias",), finder.tensors
                )
                if bias and (why := _why(finder, attention, prefix, place, projections)):
                    yield bias, why


def _why(finder: Finder, attention: Attention, prefix: str, place: LayerIndex, projections: list[Any]) -> str:
    unread = finder.unread(attention, place.stage)
    if SITE in unread:
        return unread[SITE]
    if prefix != finder.prefix:
        return f"a model of type {finder.part.root} has no such attention under `{prefix}`"
    key = layers_key(finder.config, attention.stack)
    if key and not within(place, count := lookup(finder.config, key)):
        return f"`{finder.part.path}{key}` is {count}"
    return next((unread[name] for name in projections if name in unread), "")
