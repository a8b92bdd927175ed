"""Resolves one family's patterns against one model's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from hf_bias_patch.attention.condition import MISSING, lookup, meant
from hf_bias_patch.attention.family import Attention, Family, Stack
from hf_bias_patch.attention.places import Part, Place, first_there, places
from hf_bias_patch.attention.site_maker import Memory, SiteMaker, chance_to_skip
from hf_bias_patch.attention.sites import Site, Tensor
from hf_bias_patch.attention.unread import SITE, layers_key, unread, within
from hf_bias_patch.attention.wrapped import stock_prefixes
from hf_bias_patch.errors import CheckpointError

__all__ = ["Finder"]


class Finder:
    """Finds the sites of one family, of one model or tower.

    Args:
        config: the model's, or the tower's own, as transformers reads it.
        tensors: parameter name → dtype and shape, of the whole checkpoint.
        family: the facts.
        part: which part of it is looked at.
    """

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, part: Part) -> None:
        self.config, self.tensors, self.family, self.part = config, tensors, family, part
        self._scope = part.scope
        there = (facts for facts in family.attention if meant(facts.when, config) and SITE not in self.unread(facts))
        self.attention = tuple(self._settled(facts) for facts in there)
        self.unhandled = family.unhandled(config)

    def unread(self, attention: Attention, stage: int = 0) -> dict[str, str]:
        """What stock transformers does not read of one kind of attention, in a stage → why; see `unread`."""
        return unread(self.config, attention.stack, attention.kind, self.part.path, stage)

    def _settled(self, attention: Attention) -> Attention:
        """The same with one name for each module: of several, the first that is there."""
        maps = attention.maps.items()
        return replace(attention, maps={first_there(name, self.tensors, self._scope): made for name, made in maps})

    def sites(self, memory: Memory) -> tuple[Site, ...]:
        """The sites, by stack, layer and kind."""
        found = []
        for attention in self.attention:
            for number, place in enumerate(self.there(attention)):
                found.append(SiteMaker(self, attention, place, number, memory).site())
        order = {name: number for number, name in enumerate(self.family.stacks)}
        kinds = {"self": 0, "cross": 1}
        # A stack may go by another name than its facts do (a decoder of encoder layers): then there is one only.
        return tuple(
            sorted(found, key=lambda site: (order.get(site.stack.rpartition("-")[2], 0), site.layer, kinds[site.kind]))
        )

    def final_norm(self, stack: str | None = None) -> str:
        """Module name of the norm whose output is the (first) stack's output, prefix included; empty if none is."""
        name = stack or next(iter(self.family.stacks))
        norms = (each.norm for each in self.family.stacks[name].final_norm if meant(each.when, self.config))
        pattern = next(norms, "")
        if pattern in ("", "none"):
            return ""
        last = self.last(name) if "{last}" in pattern else 0
        return "|".join(self.prefix + each.format(last=last) for each in pattern.split("|"))

    def may_skip(self, stack: str | None = None) -> bool:
        """Whether training may skip layers of the (first) stack."""
        name = stack or next(iter(self.family.stacks))
        own = (attention for attention in self.attention if attention.stack == name)
        return any(chance_to_skip(attention, self.config) for attention in own)

    def last(self, stack: str) -> int:
        """The last layer of a stack."""
        facts = self.family.stacks.get(stack) or Stack()
        if facts.layers:
            return self.size(facts.layers) - 1
        own = [attention for attention in self.attention if attention.stack == stack]
        there = [place.layer for attention in own for place in self.there(attention)]
        return max(there, default=0)

    def size(self, key: str, stage: int | None = None) -> int:
        """A positive number of the config; of a list, the entry of a stage."""
        value = lookup(self.config, key)
        if stage is not None and isinstance(value, (list, tuple)) and stage < len(value):
            value = value[stage]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            shown = None if value is MISSING else value
            raise CheckpointError(
                f"config.json: `{self.part.path}{key}` is {shown!r}, not a positive number",
                why=f"A model of type {self.model_type} cannot be read without it",
                remedy="Restore the field from the model's original config.json",
            )
        return value

    @property
    def model_type(self) -> str:
        """The type that the config names."""
        return str(self.config.get("model_type"))

    @cached_property
    def prefix(self) -> str:
        """What precedes the family's names in this checkpoint: nothing, or a task head's name for its base model."""
        for attention in self.attention:
            found = set(places(next(iter(attention.maps)), self.tensors, self._scope))
            found = stock_prefixes(found, (self.part.root, self.model_type))
            if len(found) > 1:
                raise CheckpointError(
                    f"The checkpoint holds several models of type {self.model_type}, under {sorted(found)}",
                    remedy="Save the one you want by itself",
                )
            if found:
                return found.pop()
        return ""

    def there(self, attention: Attention) -> list[Place]:
        """The layers that have this kind of site: as many as the config says, or none. Stock reads none beyond."""
        stack = self.family.stacks[attention.stack]
        key = layers_key(self.config, attention.stack)
        counted = lookup(self.config, key) if key else None
        present = {
            module: {
                place
                for place in places(module, self.tensors, self._scope).get(self.prefix, set())
                if within(place, counted)
            }
            for module in attention.maps
        }
        everywhere = sorted(set().union(*present.values()))
        if not everywhere:
            return []
        count = self.size(stack.layers) if stack.layers else 0
        wanted = [Place(0, layer) for layer in range(count)] if count and not attention.sparse else everywhere
        for module, there in present.items():
            missing = [place for place in wanted if place not in there]
            beyond = sorted(there - set(wanted))
            if missing or beyond:
                self._refuse_count(stack, count, module, missing, beyond)
        return wanted

    def _refuse_count(self, stack: Stack, count: int, module: str, missing: list[Place], beyond: list[Place]) -> None:
        place = (missing or beyond)[0]
        named = self.prefix + module.format(stage=place.stage, layer=place.layer)
        says = f"config.json says {self.part.path}{stack.layers} = {count}, but the" if stack.layers else "The"
        raise CheckpointError(
            f"{says} checkpoint {'lacks' if missing else 'holds'} {named}",
            why="Some of its tensors may have been tied to others when it was saved" if missing else "",
            remedy="Use the config.json of these weights, or load and save the model untied with transformers",
        )
