"""Makes one attention site from a family's patterns and a model's tensors: slots, what they read, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_bias_patch.attention.causes import MisfitError
from hf_bias_patch.attention.condition import MISSING, holds, lookup, matches, may_hold
from hf_bias_patch.attention.family import Attention, Blocker, Layout
from hf_bias_patch.attention.fit import check_fit
from hf_bias_patch.attention.layout import View, fused, sized
from hf_bias_patch.attention.name_patterns import KINDS, Place, parameter
from hf_bias_patch.attention.sites import PROJECTIONS, Norm, Projection, Site, Slot
from hf_bias_patch.attention.verdict import BLOCKERS, SlotFacts, decide
from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.checkpoint.quantised import PACKED_NAMES
from hf_bias_patch.checkpoint.shorten import brief

if TYPE_CHECKING:
    from hf_bias_patch.attention.resolve import Finder

__all__ = ["Memory", "SiteMaker", "chance_to_skip"]

# Checkpoints converted from TensorFlow call γ and β by their names; transformers renames them when it loads.
_NORM_WEIGHTS, _NORM_BIASES = ("weight", "gamma"), ("bias", "beta")
_FROM_THE_CALLER = "it reads hidden states that the caller passes in"


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


class SiteMaker:
    """Makes one site."""

    def __init__(self, finder: Finder, attention: Attention, place: Place, number: int, memory: Memory) -> None:
        self.finder, self.attention, self.place, self.number, self.memory = finder, attention, place, number, memory
        self.config, self.tensors = finder.config, finder.tensors
        self.stack = finder.family.stacks[attention.stack]
        self.traps = self._traps()
        self.unread = finder.unread(attention, place.stage)
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
            kv_heads_said=heads if (layout := self._layout()) and layout.sizes else 0,
        )
        check_fit(site, self.tensors, self.finder.part.path + self.stack.heads, self.attention.apart)
        return site

    def _stack_name(self) -> str:
        is_decoder = self.stack.decoder_when and lookup(self.config, self.stack.decoder_when) is True
        own = "decoder" if is_decoder else self.attention.stack
        tower = self.finder.part.name
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
                reason, roads = BLOCKERS[trap.trap]
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

    def _numbered(self, trap: Blocker) -> bool:
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
        skipped = "{before}" in module and chance_to_skip(attention, self.config)
        skipped = skipped or ("{last}" in module and self.finder.may_skip("encoder"))
        named = "|".join(self._name(each) for each in module.split("|"))
        return self._layer_norm(named, attention.post_norm, dropout or skipped)

    def _there(self, module: str) -> bool:
        return parameter(self.finder.prefix + module, KINDS, self.tensors) is not None

    def _memory_norm(self, projection: Projection) -> tuple[Norm | None, str]:
        if isinstance(self.attention.reads, dict):
            return self._norm(projection)
        module, skipped = self._memory()
        if not module:
            return None, self.memory.none or _FROM_THE_CALLER
        return self._layer_norm(module, residual=False, dropout=skipped)

    def _memory(self) -> tuple[str, bool]:
        """The module of the norm that cross-attention reads, empty if there is none; whether training may skip it."""
        own = self.attention.memory
        module, skipped = (self._name(own), False) if own else (self.memory.norm, self.memory.skipped)
        behind = "encoder" in self.finder.family.stacks and self.attention.stack != "encoder"
        if not module and not self.memory.none and behind:
            return self.finder.final_norm("encoder"), self.finder.may_skip("encoder")
        return module, skipped

    def _may_not_run(self) -> bool:
        """Whether the checkpoint has nothing that gives cross-attention what it reads."""
        modules = self._memory()[0].split("|")
        return not self.memory.none and not any(parameter(name, _NORM_WEIGHTS, self.tensors) for name in modules)

    def _layer_norm(self, module: str, residual: bool, dropout: bool) -> tuple[Norm | None, str]:
        modules = module.split("|")
        module = next((name for name in modules if parameter(name, KINDS, self.tensors)), modules[-1])
        weight = parameter(module, _NORM_WEIGHTS, self.tensors)
        bias = parameter(module, _NORM_BIASES, self.tensors)
        if weight is None or bias is None:
            return None, f"the checkpoint has no layer norm {module} with weight and bias"
        return Norm(weight, bias, residual, dropout), ""

    # ---------------------------------------------------------------------------------------------------- slots

    def _slots(self, module: str, projections: list[Projection], heads: int) -> dict[str, Slot]:
        weight = parameter(module, ("weight",), self.tensors)
        no_weight = self._quantised(module, projections)
        weight = None if no_weight else weight
        shared = parameter(module, ("bias",), self.tensors)
        own = {name: self._own(bias) for name, bias in self.attention.biases.items() if name in projections}
        axis = self._axis(module, None if own else shared, weight, len(projections))
        views, problem = self._views(projections, axis, heads)
        made: dict[str, Slot] = {}
        for projection in projections:
            bias = own.get(projection, None if own else shared)
            bias = bias if bias in self.tensors else None
            unread = self.unread.get(projection, "") if bias else ""
            bias = None if unread else bias  # the file has it, the model does not
            view = self._own_view(bias) if bias and projection in own else views[projection]
            evidence = self._evidence(projection, bias, no_weight, self._no_matrix(weight), problem)
            evidence = replace(evidence, unread=unread)
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

    def _own_view(self, bias: str) -> View:
        """All of a bias that no other projection shares."""
        shape = self.tensors[bias].shape
        if len(shape) != 1 or not shape[0]:
            raise MisfitError(
                f"Tensor {bias} has shape {list(shape)}, and is no bias",
                why=f"A {self.finder.family.name} model has one bias entry per output of the map",
                remedy="Download the checkpoint again, or save the model again with transformers",
            )
        return View.whole(shape[0])

    def _views(self, projections: list[Projection], axis: int, heads: int) -> tuple[dict[str, View], str]:
        """Each projection's part of an axis, or the whole for all and what is not known."""
        if len(projections) == 1:
            return {projections[0]: View.whole(axis)}, ""
        layout = self._layout()
        found = None
        if layout is not None and layout.sizes:
            found = sized({name: self.finder.size(layout.sizes[name]) for name in projections}, axis, heads)
        elif layout is not None:
            found = fused(layout.order, projections, axis, heads, layout.kv_heads or self._kv_heads(heads))
        if found is None:
            whole: dict[str, View] = {name: View.whole(axis) for name in projections}
            return whole, "how its map of several projections is laid out"
        return found, ""

    def _layout(self) -> Layout | None:
        """How fused maps are ordered; None where the config does not tell."""
        layouts = self.attention.layouts or (Layout("blocks"),)
        return next((layout for layout in layouts if holds(layout.when, self.config)), None)

    def _kv_heads(self, heads: int) -> int:
        key = self.stack.kv_heads
        if isinstance(key, int):
            return key
        value = lookup(self.config, key) if key else None
        return (
            self.finder.size(key, self.place.stage if self.staged else None) if value not in (None, MISSING) else heads
        )

    def _norm_of(self, projection: Projection) -> tuple[Norm | None, str]:
        norm, why = self._norm_there(projection)
        if norm is not None and (unread := self.unread.get(f"{projection}.norm")):
            return None, f"stock transformers does not read {norm.bias}: {unread}"
        return norm, why

    def _norm_there(self, projection: Projection) -> tuple[Norm | None, str]:
        if projection == "output":
            return None, "it reads attention, not a norm"
        if self.attention.kind == "cross" and projection in ("key", "value"):
            return self._memory_norm(projection)
        return self._norm(projection)

    def _evidence(
        self, projection: Projection, bias: str | None, no_weight: str, no_matrix: str, problem: str
    ) -> SlotFacts:
        no_output = self._no_output()
        no_shift = "only a query bias goes there" if projection != "query" else self._no_plain(("value", "output"))
        if not self.attention.shift or self.traps:
            no_shift = no_shift or "whether others could make up for it is not known"
        if self.attention.kind == "cross" and self.attention.post_norm and self._may_not_run():
            no_shift = no_shift or "without hidden states from the caller it does not run, and cannot make up for it"
        return SlotFacts(
            bias=bias is not None,
            unhandled=self.finder.unhandled or problem,
            no_cancel=self.traps.get("key", ""),
            no_norm=self.traps.get("weight", "") or no_matrix or self._norm_of(projection)[1],
            no_shift=no_shift,
            no_output=self.traps.get("value", "")
            or no_output
            or self._no_plain(("output",))
            or self._no_output_matrix(),
            no_weight=no_weight,
        )

    def _no_output(self) -> str:
        """Why there is no output bias; empty if there is one."""
        modules = [module for module, maps in self.attention.maps.items() if "output" in maps]
        if not modules:
            return "there is no output projection"
        there = any(parameter(self._name(module), ("bias",), self.tensors) for module in modules)
        if there and "output" in self.unread:
            return f"stock transformers does not read the output bias: {self.unread['output']}"
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

    def _no_plain(self, projections: tuple[Projection, ...]) -> str:
        """Why the weights of some projections cannot be read; empty if they can, and where there are none."""
        found = {module: made for module, made in self.attention.maps.items() if set(made) & set(projections)}
        return next(filter(None, (self._quantised(self._name(module), made) for module, made in found.items())), "")

    def _quantised(self, module: str, projections: list[Projection]) -> str:
        """Why a map's weight is no plain tensor; empty if it is one."""
        weight = parameter(module, ("weight",), self.tensors)
        if weight is not None and self.tensors[weight].dtype in FLOATS:
            return ""
        kept = weight or parameter(module, PACKED_NAMES, self.tensors)
        if kept is None:
            return f"{module} has no weight tensor"
        which = f"the {', '.join(projections)} weights are stored as {self.tensors[kept].dtype}"
        return f"{which}: quantised weights cannot be read or edited"

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
            raise MisfitError(
                f"{module}: bias and weight do not fit together: {brief(sorted(map(list, sizes)))}",
                why=f"A model of type {self.finder.model_type} has one bias entry per output of the map",
                remedy="Download the checkpoint again, or save the model again with transformers",
            )
        return int(next(iter(sizes))[0])


def chance_to_skip(attention: Attention, config: Mapping[str, Any]) -> bool:
    """Whether training skips layers, so that it is sometimes another norm that is read."""
    chance = lookup(config, attention.layerdrop) if attention.layerdrop else 0
    return chance not in (0, None, MISSING)


def _no_map(projection: Projection) -> Slot:
    """The slot of a projection that no map makes."""
    whole = View.whole(1)
    return Slot(projection, None, None, whole, False, None, decide(projection, SlotFacts(bias=False)), whole)


def _of(reads: str | Mapping[Projection, str], projection: Projection) -> str:
    """A projection's entry, where there is one for each."""
    return reads if isinstance(reads, str) else reads.get(projection, "")
