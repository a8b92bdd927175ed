"""Where one attention site is: the names of its modules, and what its config says that closes identities."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from hf_bias_patch.architecture.condition import MISSING, lookup, matches, may_hold
from hf_bias_patch.architecture.family import Attention, Blocker
from hf_bias_patch.architecture.name_patterns import KINDS, LayerIndex, parameter
from hf_bias_patch.architecture.resolve import Finder
from hf_bias_patch.architecture.verdict import BLOCKERS

__all__ = ["SitePlace"]


class SitePlace:
    """The place of one site.

    Args:
        finder: of the model or tower.
        attention: the facts, one of `finder.attention`.
        index: the layer.
        number: of the layer among those that have this kind of site.
    """

    def __init__(self, finder: Finder, attention: Attention, index: LayerIndex, number: int) -> None:
        self.finder, self.attention, self.index = finder, attention, index
        self.config, self.tensors = finder.config, finder.tensors
        self.stack = finder.family.stacks[attention.stack]
        self.unread = finder.unread(attention, index.stage)
        staged = "{stage}" in next(iter(attention.maps))
        self.layer = number if staged else index.layer
        self._stage = index.stage if staged else None

    @property
    def stack_name(self) -> str:
        """What the site calls its stack: the family's name for it, a decoder's, or a tower's."""
        is_decoder = self.stack.decoder_when and lookup(self.config, self.stack.decoder_when) is True
        own = "decoder" if is_decoder else self.attention.stack
        tower = self.finder.part.name
        return own if not tower else tower if len(self.finder.family.stacks) == 1 else f"{tower}-{own}"

    def name(self, module: str) -> str:
        """A module of the family in this checkpoint, at this site."""
        layer = self.index.layer
        last = self.finder.last("encoder") if "{last}" in module else 0
        last_before = self._last_before() if "{last_before}" in module else 0
        return self.finder.prefix + module.format(
            stage=self.index.stage,
            layer=layer,
            before=layer - 1,
            last=last,
            stage_before=self.index.stage - 1,
            last_before=last_before,
        )

    def _last_before(self) -> int:
        """The last layer of the stage before; of the first stage, -1."""
        there = self.finder.there(self.attention)
        return max((index.layer for index in there if index.stage == self.index.stage - 1), default=-1)

    def size(self, key: str) -> int:
        """A positive number of the config; in staged models, the entry of the site's stage."""
        return self.finder.size(key, self._stage)

    def has(self, module: str) -> bool:
        """Whether the checkpoint has a module of the family that is the same at all sites."""
        return parameter(self.finder.prefix + module, KINDS, self.tensors) is not None

    @cached_property
    def closed(self) -> dict[str, str]:
        """Identity that a blocker closes (`key`, `value`, `weight`) → why."""
        closed: dict[str, str] = {}
        for blocker in self.attention.blockers:
            here = self._listed(blocker.layers, blocker.values) and self._numbered(blocker)
            if may_hold(blocker.when, self.config) and here:
                reason, identities = BLOCKERS[blocker.name]
                closed |= {identity: reason for identity in identities if identity not in closed}
        return closed

    def _listed(self, key: str, values: tuple[Any, ...]) -> bool:
        """Whether the config's list for all layers has one of some values at this layer, or might."""
        if not key:
            return True
        entries = lookup(self.config, key)
        if not isinstance(entries, (list, tuple)) or self.index.layer >= len(entries):
            return True
        return matches(entries[self.index.layer], values)

    def _numbered(self, blocker: Blocker) -> bool:
        """Whether the config's lists of layer numbers have a blocker at this layer, or might."""
        but, only = (lookup(self.config, key) if key else MISSING for key in (blocker.but, blocker.only))
        spared = isinstance(but, (list, tuple)) and self.index.layer in but
        beyond = isinstance(only, (list, tuple)) and self.index.layer not in only
        return not spared and not beyond
