"""Resolves one family's patterns against one model's tensors: which layers there are, under which prefix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from hf_bias_patch.architecture.causes import MisfitError, MissingError
from hf_bias_patch.architecture.condition import MISSING, lookup, meant
from hf_bias_patch.architecture.family import Attention, Family, Stack
from hf_bias_patch.architecture.name_patterns import LayerIndex, ModelPart, first_there, places
from hf_bias_patch.architecture.sites import Tensor
from hf_bias_patch.architecture.unread import SITE, layers_key, unread, within
from hf_bias_patch.architecture.wrapped import stock_prefixes
from hf_bias_patch.checkpoint.shorten import brief, listed
from hf_bias_patch.errors import CheckpointError

__all__ = ["Finder"]


class Finder:
    """What one family finds in one model or tower.

    Args:
        config: the model's, or the tower's own, as transformers reads it.
        tensors: parameter name → dtype and shape, of the whole checkpoint.
        family: the facts.
        part: which part of it is looked at.
    """

    def __init__(
        self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, part: ModelPart
    ) -> None:
        self.config, self.tensors, self.family, self.part = config, tensors, family, part
        self._scope = part.scope
        self._found: dict[int, list[LayerIndex]] = {}
        there = (facts for facts in family.attention if meant(facts.when, config) and SITE not in self.unread(facts))
        self.attention = tuple(self._settled(facts) for facts in there)
        unhandled = family.unhandled(config)
        self.unhandled = unhandled and f"{unhandled} (see `handled` in {family.file})"

    def unread(self, attention: Attention, stage: int = 0) -> dict[str, str]:
        """What stock transformers does not read of one kind of attention, in a stage → why; see `unread`."""
        return unread(self.config, attention.stack, attention.kind, self.part.path, stage)

    def _settled(self, attention: Attention) -> Attention:
        """The same with one name for each module: of several, the first that is there."""
        maps = attention.maps.items()
        return replace(attention, maps={first_there(name, self.tensors, self._scope): made for name, made in maps})

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
        return any(attention.may_skip(self.config) for attention in own)

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
                f"config.json: `{self.part.path}{key}` is {brief(shown)}, not a positive whole number",
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
                    f"The checkpoint holds several models of type {self.model_type}, under "
                    f"{listed(sorted(map(repr, found)))}",
                    remedy="Save the one you want by itself",
                )
            if found:
                return found.pop()
        return ""

    def there(self, attention: Attention) -> list[LayerIndex]:
        """The layers that have this kind of site (one of `attention`): as many as the config says, or none.

        Stock transformers reads none beyond these.
        """
        if id(attention) not in self._found:
            self._found[id(attention)] = self._there(attention)
        return self._found[id(attention)]

    def _there(self, attention: Attention) -> list[LayerIndex]:
        stack = self.family.stacks[attention.stack]
        key = layers_key(self.config, attention.stack)
        counted = lookup(self.config, key) if key else None
        told = [(self._places(module.removeprefix("!")), module[:1] != "!") for module in attention.told_by]
        present = {
            module: {
                place
                for place in self._places(module)
                if within(place, counted) and all((place in marked) is has for marked, has in told)
            }
            for module in attention.maps
        }
        everywhere = sorted(set().union(*present.values()))
        if not everywhere:
            return []
        count = self.size(stack.layers) if stack.layers else 0
        # No more layers are gone through than the file has and one: the config may say any number.
        asked = min(count, len(everywhere) + 1)
        wanted = [LayerIndex(0, layer) for layer in range(asked)] if count and not attention.sparse else everywhere
        for module, there in present.items():
            if missing := [place for place in wanted if place not in there]:
                raise self._lacks(stack, count, module, missing[0], everywhere)
            if beyond := sorted(there - set(wanted)):
                raise MisfitError(
                    f"{self._says(stack, count)} checkpoint holds {self._module(module, beyond[0])}",
                    remedy="Use the config.json that was saved with these weights",
                )
        return wanted

    def _places(self, module: str) -> set[LayerIndex]:
        """The layers that have a module; of several names with `|` between them, of the first that is there."""
        pattern = first_there(module, self.tensors, self._scope)
        return places(pattern, self.tensors, self._scope).get(self.prefix, set())

    def _lacks(
        self, stack: Stack, count: int, module: str, place: LayerIndex, everywhere: list[LayerIndex]
    ) -> MissingError:
        what = f"{self._says(stack, count)} checkpoint lacks {self._module(module, place)}"
        if place not in everywhere and place > everywhere[-1]:
            return MissingError(
                what,
                why=f"Its last layer is {everywhere[-1].layer}: it was cut, tied to other layers when it was saved, or "
                "config.json is another model's",
                remedy="Download the rest, save it untied with transformers, or use the config.json that was saved "
                "with these weights",
            )
        return MissingError(
            what,
            why="Part of the checkpoint is missing, or was tied to other tensors when it was saved",
            remedy="Download it again, or load and save the model untied with transformers",
        )

    def _says(self, stack: Stack, count: int) -> str:
        return f"config.json says {stack.layers} = {count}, but the" if stack.layers else "The"

    def _module(self, module: str, place: LayerIndex) -> str:
        return self.prefix + module.format(stage=place.stage, layer=place.layer)
