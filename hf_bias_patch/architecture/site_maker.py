"""Makes the attention sites of a model from its families' patterns and its tensors: slots, and the verdict on each."""

from __future__ import annotations

from hf_bias_patch.architecture.causes import MisfitError
from hf_bias_patch.architecture.condition import MISSING, holds, lookup
from hf_bias_patch.architecture.family import Attention, Layout
from hf_bias_patch.architecture.fit import check_fit
from hf_bias_patch.architecture.layout import View, fused, sized
from hf_bias_patch.architecture.name_patterns import LayerIndex, parameter
from hf_bias_patch.architecture.norms_read import NormsRead, OuterNorm
from hf_bias_patch.architecture.resolve import Finder
from hf_bias_patch.architecture.site_place import SitePlace
from hf_bias_patch.architecture.sites import PROJECTIONS, Projection, Site, Slot
from hf_bias_patch.architecture.verdict import SlotFacts, decide
from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.checkpoint.quantised import PACKED_NAMES
from hf_bias_patch.checkpoint.shorten import brief

__all__ = ["site_at", "sites_of"]


def sites_of(finder: Finder, outer: OuterNorm) -> tuple[Site, ...]:
    """The sites of one model or tower, by stack, layer and kind.

    Args:
        finder: of the model or tower.
        outer: what its cross-attention reads from outside.
    """
    found = []
    for attention in finder.attention:
        for number, index in enumerate(finder.there(attention)):
            found.append(site_at(finder, attention, index, number, outer))
    order = {name: number for number, name in enumerate(finder.family.stacks)}
    kinds = {"self": 0, "cross": 1}
    # A stack may go by another name than its facts do (a decoder of encoder layers): then there is one only.
    return tuple(
        sorted(found, key=lambda site: (order.get(site.stack.rpartition("-")[2], 0), site.layer, kinds[site.kind]))
    )


def site_at(finder: Finder, attention: Attention, index: LayerIndex, number: int, outer: OuterNorm) -> Site:
    """One site.

    Args:
        finder, attention, index, number: as for `SitePlace`.
        outer: as for `sites_of`.
    """
    place = SitePlace(finder, attention, index, number)
    return _SiteMaker(place, NormsRead(place, outer)).site()


class _SiteMaker:
    """Makes one site."""

    def __init__(self, place: SitePlace, norms: NormsRead) -> None:
        self._place, self._norms = place, norms
        self._attention, self._tensors, self._closed = place.attention, place.tensors, place.closed

    def site(self) -> Site:
        place, key = self._place, self._place.stack.heads
        heads = place.size(key) if key else 1
        slots: dict[str, Slot] = {}
        for module, projections in self._attention.maps.items():
            slots |= self._slots(place.name(module), projections, heads)
        site = Site(
            stack=place.stack_name,
            layer=place.layer,
            kind=self._attention.kind,
            heads=heads,
            slots={name: slots.get(name) or _no_map(name) for name in PROJECTIONS},
            kv_heads_said=heads if (layout := self._layout()) and layout.sizes else 0,
        )
        check_fit(site, self._tensors, place.finder.part.path + key, self._attention.apart)
        return site

    def _slots(self, module: str, projections: list[Projection], heads: int) -> dict[str, Slot]:
        weight = parameter(module, ("weight",), self._tensors)
        no_weight = self._quantised(module, projections)
        weight = None if no_weight else weight
        shared = parameter(module, ("bias",), self._tensors)
        own = {name: self._own(bias) for name, bias in self._attention.biases.items() if name in projections}
        axis = self._axis(module, None if own else shared, weight, len(projections))
        views, problem = self._views(projections, axis, heads)
        made: dict[str, Slot] = {}
        for projection in projections:
            bias = own.get(projection, None if own else shared)
            bias = bias if bias in self._tensors else None
            unread = self._place.unread.get(projection, "") if bias else ""
            bias = None if unread else bias  # the file has it, the model does not
            view = self._own_view(bias) if bias and projection in own else views[projection]
            norm, no_norm = self._norms.of(projection)
            facts = SlotFacts(
                bias=bias is not None,
                unread=unread,
                unhandled=self._place.finder.unhandled or problem,
                no_cancel=self._closed.get("key", ""),
                no_norm=self._closed.get("weight", "") or self._no_matrix(weight) or no_norm,
                no_shift=self._no_shift(projection),
                no_output=self._no_output(),
                no_weight=no_weight,
            )
            verdict, conv1d = decide(projection, facts), self._attention.conv1d
            made[projection] = Slot(projection, bias, weight, view, conv1d, norm, verdict, views[projection])
        return made

    def _own(self, biases: str) -> str:
        """Of several bias parameters with `|` between them, the first that is there; else the last."""
        names = [self._place.name(bias) for bias in biases.split("|")]
        return next((name for name in names if name in self._tensors), names[-1])

    def _own_view(self, bias: str) -> View:
        """All of a bias that no other projection shares."""
        shape = self._tensors[bias].shape
        if len(shape) != 1 or not shape[0]:
            raise MisfitError(
                f"Tensor {bias} has shape {list(shape)}, and is not a bias",
                why=f"A {self._place.finder.family.name} model has one bias entry per output of the map",
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
            found = sized({name: self._place.finder.size(layout.sizes[name]) for name in projections}, axis, heads)
        elif layout is not None:
            found = fused(layout.order, projections, axis, heads, layout.kv_heads or self._kv_heads(heads))
        if found is None:
            whole: dict[str, View] = {name: View.whole(axis) for name in projections}
            fused_map = f"the fused map of its {self._attention.kind}-attention"
            return whole, f"the order in {fused_map} (see `layouts` in {self._place.finder.family.file})"
        return found, ""

    def _layout(self) -> Layout | None:
        """How fused maps are ordered; None where the config does not tell."""
        layouts = self._attention.layouts or (Layout("blocks"),)
        return next((layout for layout in layouts if holds(layout.when, self._place.config)), None)

    def _kv_heads(self, heads: int) -> int:
        key = self._place.stack.kv_heads
        if isinstance(key, int):
            return key
        value = lookup(self._place.config, key) if key else None
        return self._place.size(key) if value not in (None, MISSING) else heads

    def _no_shift(self, projection: Projection) -> str:
        """Why identity 4 is closed to a projection; empty if it is not."""
        if projection != "query":
            return "only a query bias goes there"
        if why := self._no_plain(("value", "output")):
            return why
        if not self._attention.shift or self._closed:
            return "whether others could make up for it is not known"
        lone = self._attention.kind == "cross" and self._attention.post_norm and self._norms.may_not_run()
        return "without hidden states from the caller it does not run, and cannot make up for it" if lone else ""

    def _no_output(self) -> str:
        """Why a value bias cannot reach the output bias; empty if it can."""
        closed = self._closed.get("value", "") or self._no_output_bias()
        return closed or self._no_plain(("output",)) or self._no_output_matrix()

    def _no_output_bias(self) -> str:
        """Why there is no output bias; empty if there is one."""
        modules = [module for module, maps in self._attention.maps.items() if "output" in maps]
        if not modules:
            return "there is no output projection"
        there = any(parameter(self._place.name(module), ("bias",), self._tensors) for module in modules)
        if there and "output" in self._place.unread:
            return f"stock transformers does not read the output bias: {self._place.unread['output']}"
        return "" if there else "the output projection has no bias"

    def _no_output_matrix(self) -> str:
        """Why the output weight is not a matrix; empty if it is one, as a convolution of width 1 without groups is."""
        weights = {projection: self._weight_of(projection) for projection in ("value", "output")}
        value, output = (self._tensors[name].shape if name else () for name in weights.values())
        plain = len(output) < 3 or (set(output[2:]) == {1} and output[1:2] == value[:1])
        return "" if plain else f"{weights['output']} is a convolution"

    def _weight_of(self, projection: Projection) -> str | None:
        modules = (self._place.name(module) for module, made in self._attention.maps.items() if made == [projection])
        return next((parameter(module, ("weight",), self._tensors) for module in modules), None)

    def _no_plain(self, projections: tuple[Projection, ...]) -> str:
        """Why the weights of some projections cannot be read; empty if they can, and where there are none."""
        found = {module: made for module, made in self._attention.maps.items() if set(made) & set(projections)}
        return next(
            filter(None, (self._quantised(self._place.name(module), made) for module, made in found.items())), ""
        )

    def _quantised(self, module: str, projections: list[Projection]) -> str:
        """Why a map's weight is not a plain tensor; empty if it is one."""
        weight = parameter(module, ("weight",), self._tensors)
        if weight is not None and self._tensors[weight].dtype in FLOATS:
            return ""
        kept = weight or parameter(module, PACKED_NAMES, self._tensors)
        if kept is None:
            return f"{module} has no weight tensor"
        which = f"the {', '.join(projections)} weights are stored as {self._tensors[kept].dtype}"
        return f"{which}: quantised weights cannot be read or edited"

    def _no_matrix(self, weight: str | None) -> str:
        shape = self._tensors[weight].shape if weight else ()
        return "" if len(shape) < 3 else f"{weight} is a convolution"

    def _axis(self, module: str, bias: str | None, weight: str | None, projections: int) -> int:
        """Length of the module's output axis, checked between bias and weight."""
        sizes = set()
        if bias is not None:
            sizes.add(self._tensors[bias].shape)
        if weight is not None:
            shape = self._tensors[weight].shape
            sizes.add(shape[1:] if self._attention.conv1d else shape[:1])
        if not sizes:  # quantised and without bias: nothing here is ever read
            return projections
        if len(sizes) != 1 or len(next(iter(sizes))) != 1:
            raise MisfitError(
                f"{module}: bias and weight do not fit together: {brief(sorted(map(list, sizes)))}",
                why=f"A model of type {self._place.finder.model_type} has one bias entry per output of the map",
                remedy="Download the checkpoint again, or save the model again with transformers",
            )
        return int(next(iter(sizes))[0])


def _no_map(projection: Projection) -> Slot:
    """The slot of a projection that no map makes."""
    whole = View.whole(1)
    return Slot(projection, None, None, whole, False, None, decide(projection, SlotFacts(bias=False)), whole)
