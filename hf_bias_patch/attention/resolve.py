"""Resolves one family's patterns against one model's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hf_bias_patch.attention.condition import MISSING, holds, lookup, matches, may_hold, meant
from hf_bias_patch.attention.family import Attention, Family, Layout, Stack, Trap
from hf_bias_patch.attention.fit import check_fit
from hf_bias_patch.attention.layout import View, fused
from hf_bias_patch.attention.places import KINDS, Place, Scope, first_there, parameter, places
from hf_bias_patch.attention.sites import PROJECTIONS, Norm, Projection, Site, Slot, Tensor
from hf_bias_patch.attention.verdict import TRAPS, Evidence, decide
from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.errors import CheckpointError

__all__ = ["Finder", "Memory"]


@dataclass(frozen=True)
class Memory:
    """What cross-attention reads from outside: a norm's module, or why it is none's output.

    Attributes:
        norm: the module.
        none: why there is none.
        skipped: whether training may skip the layer it belongs to, so that it is sometimes another norm that is read.
    """

    norm: str = ""
    none: str = ""
    skipped: bool = False


class Finder:
    """Finds the sites of one family, of one model or tower.

    Args:
        config: the model's, or the tower's own.
        tensors: parameter name → dtype and shape, of the whole checkpoint.
        family: the facts.
        scope: which parameter names are meant.
        tower: the tower's name; empty for a model that is none.
    """

    def __init__(
        self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, scope: Scope, tower: str
    ) -> None:
        self.config, self.tensors, self.family, self.tower = config, tensors, family, tower
        self._scope = scope
        self.attention = tuple(self._settled(facts) for facts in family.attention if meant(facts.when, config))
        self.unhandled = family.unhandled(config)

    def _settled(self, attention: Attention) -> Attention:
        """The same with one name for each module: of several, the first that is there."""
        maps = attention.maps.items()
        return replace(attention, maps={first_there(name, self.tensors, self._scope): made for name, made in maps})

    def sites(self, memory: Memory) -> tuple[Site, ...]:
        """The sites, by stack, layer and kind."""
        found = []
        for attention in self.attention:
            for number, place in enumerate(self.there(attention)):
                found.append(_Maker(self, attention, place, number, memory).site())
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
        return any(_chance_to_skip(attention, self.config) for attention in own)

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
                f"config.json: `{key}` is {shown!r}, not a positive number",
                why=f"A {self.family.name} model cannot be read without it",
                remedy="Restore the field from the model's original config.json",
            )
        return value

    @cached_property
    def prefix(self) -> str:
        """What precedes the family's names in this checkpoint: nothing, or a task head's name for its base model."""
        for attention in self.attention:
            found = set(places(next(iter(attention.maps)), self.tensors, self._scope))
            if len(found) > 1:
                raise CheckpointError(
                    f"The checkpoint holds several {self.family.name} models, under {sorted(found)}",
                    remedy="Save the one you want by itself",
                )
            if found:
                return found.pop()
        return ""

    def there(self, attention: Attention) -> list[Place]:
        """The layers that have this kind of site: as many as the config says, or none."""
        stack = self.family.stacks[attention.stack]
        present = {
            module: places(module, self.tensors, self._scope).get(self.prefix, set()) for module in attention.maps
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
        says = f"config.json says {stack.layers} = {count}, but the" if stack.layers else "The"
        raise CheckpointError(
            f"{says} checkpoint {'lacks' if missing else 'holds'} {named}",
            why="Some of its tensors may have been tied to others when it was saved" if missing else "",
            remedy="Use the config.json of these weights, or load and save the model untied with transformers",
        )


class _Maker:
    """Makes one site."""

    def __init__(self, finder: Finder, attention: Attention, place: Place, number: int, memory: Memory) -> None:
        self.finder, self.attention, self.place, self.number, self.memory = finder, attention, place, number, memory
        self.config, self.tensors = finder.config, finder.tensors
        self.stack = finder.family.stacks[attention.stack]
        self.traps = self._traps()
        self.staged = "{stage}" in next(iter(attention.maps))

    def site(self) -> Site:
        heads = self.finder.size(self.stack.heads, self.place.stage if self.staged else None) if self.stack.heads else 1
        slots: dict[str, Slot] = {}
        for module, projections in self.attention.maps.items():
            slots |= self._slots(self._name(module), projections, heads)
        site = Site(
            stack=self._stack_name(),
            layer=self.number if self.staged else self.place.layer,
            kind=self.attention.kind,
            heads=heads,
            slots={name: slots.get(name) or _no_map(name) for name in PROJECTIONS},
        )
        check_fit(site, self.tensors, self.stack.heads)
        return site

    def _stack_name(self) -> str:
        is_decoder = self.stack.decoder_when and lookup(self.config, self.stack.decoder_when) is True
        own = "decoder" if is_decoder else self.attention.stack
        tower = self.finder.tower
        return own if not tower else tower if len(self.finder.family.stacks) == 1 else f"{tower}-{own}"

    def _name(self, module: str) -> str:
        layer = self.place.layer
        last = self.finder.last("encoder") if "{last}" in module else 0
        last_before = self._last_before() if "{last_before}" in module else 0
        return self.finder.prefix + module.format(
            stage=self.place.stage,
            layer=layer,
            before=layer - 1,
            last=last,
            stage_before=self.place.stage - 1,
            last_before=last_before,
        )

    def _last_before(self) -> int:
        """The last layer of the stage before; of the first stage, -1."""
        places = self.finder.there(self.attention)
        return max((place.layer for place in places if place.stage == self.place.stage - 1), default=-1)

    # ------------------------------------------------------------------------------------------------- evidence

    def _traps(self) -> dict[str, str]:
        """Closed road (`key`, `value`, `weight`) → why."""
        closed: dict[str, str] = {}
        for trap in self.attention.traps:
            here = self._here(trap.layers, trap.values) and self._numbered(trap)
            if may_hold(trap.when, self.config) and here:
                reason, roads = TRAPS[trap.trap]
                for road in roads:
                    closed.setdefault(road, reason)
        return closed

    def _here(self, key: str, values: tuple[Any, ...]) -> bool:
        """Whether the config's list for all layers has one of some values at this layer, or might."""
        if not key:
            return True
        entries = lookup(self.config, key)
        if not isinstance(entries, (list, tuple)) or self.place.layer >= len(entries):
            return True
        return matches(entries[self.place.layer], values)

    def _numbered(self, trap: Trap) -> bool:
        """Whether the config's lists of layer numbers have a trap at this layer, or might."""
        but, only = (lookup(self.config, key) if key else MISSING for key in (trap.but, trap.only))
        spared = isinstance(but, (list, tuple)) and self.place.layer in but
        beyond = isinstance(only, (list, tuple)) and self.place.layer not in only
        return not spared and not beyond

    def _norm(self, projection: Projection) -> tuple[Norm | None, str]:
        attention = self.attention
        module, first = _of(attention.reads, projection), _of(attention.reads_first, projection)
        is_first = self.place.layer == 0 and bool(first)
        if is_first and attention.between_first and self._there(attention.between_first):
            return None, f"{attention.between_first} stands between the embedding norm and it"
        module = first if is_first else module
        if module in ("", "none"):
            return None, "it reads no layer norm directly and alone"
        dropout = (is_first and attention.dropout_after_first) or attention.dropout_after
        skipped = "{before}" in module and _chance_to_skip(attention, self.config)
        skipped = skipped or ("{last}" in module and self.finder.may_skip("encoder"))
        named = "|".join(self._name(each) for each in module.split("|"))
        return self._layer_norm(named, attention.post_norm, dropout or skipped)

    def _there(self, module: str) -> bool:
        return parameter(self.finder.prefix + module, KINDS, self.tensors) is not None

    def _memory_norm(self, projection: Projection) -> tuple[Norm | None, str]:
        if isinstance(self.attention.reads, dict):
            return self._norm(projection)
        stacks, own = self.finder.family.stacks, self.attention.memory
        module, skipped = (self._name(own), False) if own else (self.memory.norm, self.memory.skipped)
        if not module and not self.memory.none and "encoder" in stacks and self.attention.stack != "encoder":
            module, skipped = self.finder.final_norm("encoder"), self.finder.may_skip("encoder")
        if not module:
            return None, self.memory.none or "it reads hidden states that the caller passes in"
        return self._layer_norm(module, residual=False, dropout=skipped)

    def _layer_norm(self, module: str, residual: bool, dropout: bool) -> tuple[Norm | None, str]:
        modules = module.split("|")
        module = next((name for name in modules if parameter(name, KINDS, self.tensors)), modules[-1])
        # Checkpoints converted from TensorFlow call γ and β by their names; transformers renames them when it loads.
        weight = parameter(module, ("weight", "gamma"), self.tensors)
        bias = parameter(module, ("bias", "beta"), self.tensors)
        if weight is None or bias is None:
            return None, f"the checkpoint has no layer norm {module} with weight and bias"
        return Norm(weight, bias, residual, dropout), ""

    # ---------------------------------------------------------------------------------------------------- slots

    def _slots(self, module: str, projections: list[Projection], heads: int) -> dict[str, Slot]:
        weight = parameter(module, ("weight",), self.tensors)
        no_weight = self._quantised(module, weight)
        weight = None if no_weight else weight
        shared = parameter(module, ("bias",), self.tensors)
        own = {name: self._own(bias) for name, bias in self.attention.biases.items() if name in projections}
        axis = self._axis(module, None if own else shared, weight, len(projections))
        views, problem = self._views(projections, axis, heads)
        made: dict[str, Slot] = {}
        for projection in projections:
            bias = own.get(projection, None if own else shared)
            bias = bias if bias in self.tensors else None
            view = View.whole(self.tensors[bias].shape[0]) if bias and projection in own else views[projection]
            evidence = self._evidence(projection, bias, no_weight, self._no_matrix(weight), problem)
            norm = self._norm_of(projection)[0]
            made[projection] = Slot(
                projection,
                bias,
                weight,
                view,
                self.attention.conv1d,
                norm,
                decide(projection, evidence),
                views[projection],
            )
        return made

    def _own(self, biases: str) -> str:
        """Of several bias parameters with `|` between them, the first that is there; else the last."""
        names = [self._name(bias) for bias in biases.split("|")]
        return next((name for name in names if name in self.tensors), names[-1])

    def _views(self, projections: list[Projection], axis: int, heads: int) -> tuple[dict[str, View], str]:
        """Each projection's part of an axis, or the whole for all and what is not known."""
        if len(projections) == 1:
            return {projections[0]: View.whole(axis)}, ""
        layouts = self.attention.layouts or (Layout("blocks"),)
        layout = next((layout for layout in layouts if holds(layout.when, self.config)), None)
        found = None
        if layout is not None:
            found = fused(layout.order, projections, axis, heads, layout.kv_heads or self._kv_heads(heads))
        if found is None:
            whole: dict[str, View] = {name: View.whole(axis) for name in projections}
            return whole, "how its map of several projections is laid out"
        return found, ""

    def _kv_heads(self, heads: int) -> int:
        key = self.stack.kv_heads
        if isinstance(key, int):
            return key
        value = lookup(self.config, key) if key else None
        return (
            self.finder.size(key, self.place.stage if self.staged else None) if value not in (None, MISSING) else heads
        )

    def _norm_of(self, projection: Projection) -> tuple[Norm | None, str]:
        if projection == "output":
            return None, "it reads attention, not a norm"
        if self.attention.kind == "cross" and projection in ("key", "value"):
            return self._memory_norm(projection)
        return self._norm(projection)

    def _evidence(
        self, projection: Projection, bias: str | None, no_weight: str, no_matrix: str, problem: str
    ) -> Evidence:
        no_output = self._no_output()
        no_shift = "only a query bias goes there" if projection != "query" else ""
        if not self.attention.shift or self.traps:
            no_shift = no_shift or "whether others could make up for it is not known"
        return Evidence(
            bias=bias is not None,
            unhandled=self.finder.unhandled or problem,
            no_cancel=self.traps.get("key", ""),
            no_norm=self.traps.get("weight", "") or no_matrix or self._norm_of(projection)[1],
            no_shift=no_shift,
            no_output=self.traps.get("value", "") or no_output or self._no_output_matrix(),
            no_weight=no_weight,
        )

    def _no_output(self) -> str:
        """Why there is no output bias; empty if there is one."""
        modules = [module for module, maps in self.attention.maps.items() if "output" in maps]
        if not modules:
            return "there is no output projection"
        there = any(parameter(self._name(module), ("bias",), self.tensors) for module in modules)
        return "" if there else "the output projection has no bias"

    def _no_output_matrix(self) -> str:
        """Why the output weight is no matrix; empty if it is one, as a convolution of width 1 without groups is."""
        weights = {projection: self._weight_of(projection) for projection in ("value", "output")}
        value, output = (self.tensors[name].shape if name else () for name in weights.values())
        plain = len(output) < 3 or (set(output[2:]) == {1} and output[1:2] == value[:1])
        return "" if plain else f"{weights['output']} is a convolution"

    def _weight_of(self, projection: Projection) -> str | None:
        modules = (self._name(module) for module, made in self.attention.maps.items() if made == [projection])
        return next((parameter(module, ("weight",), self.tensors) for module in modules), None)

    def _quantised(self, module: str, weight: str | None) -> str:
        if weight is None:
            return f"{module} has no plain weight tensor (quantised?)"
        dtype = self.tensors[weight].dtype
        return "" if dtype in FLOATS else f"{weight} is stored as {dtype}: quantised weights cannot be read or edited"

    def _no_matrix(self, weight: str | None) -> str:
        shape = self.tensors[weight].shape if weight else ()
        return "" if len(shape) < 3 else f"{weight} is a convolution"

    def _axis(self, module: str, bias: str | None, weight: str | None, projections: int) -> int:
        """Length of the module's output axis, checked between bias and weight."""
        sizes = set()
        if bias is not None:
            sizes.add(self.tensors[bias].shape)
        if weight is not None:
            shape = self.tensors[weight].shape
            sizes.add(shape[1:] if self.attention.conv1d else shape[:1])
        if not sizes:  # quantised and without bias: nothing here is ever read
            return projections
        if len(sizes) != 1 or len(next(iter(sizes))) != 1:
            raise CheckpointError(
                f"{module}: bias and weight do not fit together: {sorted(map(list, sizes))}",
                why=f"A {self.finder.family.name} model has one bias entry per output of the map",
                remedy="Check that config.json belongs to these weights",
            )
        return int(next(iter(sizes))[0])


def _chance_to_skip(attention: Attention, config: Mapping[str, Any]) -> bool:
    """Whether training skips layers, so that it is sometimes another norm that is read."""
    chance = lookup(config, attention.layerdrop) if attention.layerdrop else 0
    return chance not in (0, None, MISSING)


def _no_map(projection: Projection) -> Slot:
    """The slot of a projection that no map makes."""
    whole = View.whole(1)
    return Slot(projection, None, None, whole, False, None, decide(projection, Evidence(bias=False)), whole)


def _of(reads: str | Mapping[Projection, str], projection: Projection) -> str:
    """A projection's entry, where there is one for each."""
    return reads if isinstance(reads, str) else reads.get(projection, "")
