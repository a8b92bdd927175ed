"""Finds the attention sites of a model from its config and its tensors' names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_bias_patch.attention.family import Attention, Composite, Family, Stack, family_of
from hf_bias_patch.attention.layout import View
from hf_bias_patch.attention.sites import PROJECTIONS, Norm, Projection, Site, Slot, Tensor
from hf_bias_patch.attention.verdict import Evidence, decide
from hf_bias_patch.checkpoint.dtypes import FLOATS
from hf_bias_patch.errors import CheckpointError, FamilyError

__all__ = ["find_sites"]


def find_sites(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Site, ...]:
    """All attention sites, in the order of stacks, layers and kinds.

    Args:
        config: a parsed config.json.
        tensors: parameter name → dtype and shape.

    Raises:
        FamilyError: no family covers the config.
        CheckpointError: the tensors are not those the config describes.
    """
    family = family_of(config)
    if isinstance(family, Composite):
        return _composite(config, tensors, family)
    return _Finder(config, tensors, family, root="").sites(memory="")


def _composite(config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Composite) -> tuple[Site, ...]:
    parts = []
    for key in (family.encoder, family.decoder):
        part = family_of(config.get(key) or {})
        if isinstance(part, Composite):
            raise FamilyError(f"config.json: `{key}` is itself a {part.name} model", remedy="No family covers this")
        parts.append(_Finder(config[key], tensors, part, root=f"{key}."))
    encoder, decoder = parts
    if len(encoder.family.stacks) != 1:
        raise FamilyError(
            f"config.json: the encoder is a {encoder.family.name} model, which has a decoder of its own",
            remedy="No family covers this",
        )
    bridged = any(name.startswith(f"{family.bridge}.") for name in tensors)
    memory = "" if bridged else encoder.final_norm()
    no_memory = f"{family.bridge} stands between the encoder's last norm and it" if bridged else ""
    return encoder.sites(memory="") + decoder.sites(memory=memory, no_memory=no_memory)


class _Finder:
    """Resolves one family's patterns against one model's tensors."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor], family: Family, root: str) -> None:
        self.config, self.tensors, self.family = config, tensors, family
        self.unhandled = family.unhandled(config)
        self.prefix = self._prefix(root)

    def sites(self, memory: str, no_memory: str = "") -> tuple[Site, ...]:
        """The model's sites; `memory` is the norm that feeds keys and values of cross-attention from outside."""
        if not memory and not no_memory:
            memory = self.final_norm("encoder") if len(self.family.stacks) > 1 else ""
        found = []
        for attention in self.family.attention:
            count = self._layers(attention)
            found += [self._site(attention, layer, memory, no_memory) for layer in range(count)]
        if not found:
            raise CheckpointError(
                f"No attention tensors of the {self.family.name} family in the checkpoint",
                why=f"config.json says model_type {self.config.get('model_type')!r}, the tensor names say otherwise",
                remedy="Check that config.json belongs to these weights",
            )
        order = {stack: number for number, stack in enumerate(self.family.stacks)}
        kinds = {"self": 0, "cross": 1}
        return tuple(sorted(found, key=lambda site: (order.get(site.stack, 0), site.layer, kinds[site.kind])))

    def final_norm(self, stack: str | None = None) -> str:
        """Module name of the norm whose output is the (first) stack's output, prefix included."""
        name = stack or next(iter(self.family.stacks))
        facts = self.family.stacks[name]
        return self.prefix + facts.final_norm.format(last=int(self._size(facts.layers)) - 1)

    def _size(self, key: str) -> int:
        value = self.config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(
                f"config.json: `{key}` is {value!r}, not a positive number",
                why=f"A {self.family.name} model cannot be read without it",
                remedy="Restore the field from the model's original config.json",
            )
        return value

    def _prefix(self, root: str) -> str:
        """What precedes the family's names in this checkpoint: nothing, or a task head's name for its base model."""
        for attention in self.family.attention:
            module = next(iter(attention.maps)).format(layer=0)
            endings = tuple(f"{module}.{kind}" for kind in ("weight", "bias", "qweight"))
            found = {
                name[: -len(ending)]
                for name in self.tensors
                for ending in endings
                if name.endswith(ending) and name.startswith(root)
            }
            found = {prefix for prefix in found if not prefix or prefix.endswith(".")}
            if len(found) > 1:
                raise CheckpointError(
                    f"The checkpoint holds several {self.family.name} models, under {sorted(found)}",
                    remedy="Save the one you want by itself",
                )
            if found:
                return found.pop()
        return root

    def _layers(self, attention: Attention) -> int:
        """How many layers have this kind of site: none, or as many as the config says."""
        stack = self.family.stacks[attention.stack]
        count = self._size(stack.layers)
        modules = [self.prefix + module for module in attention.maps]
        present = [
            {
                layer
                for layer in range(count)
                if self._parameter(module.format(layer=layer), "weight", "bias", "qweight")
            }
            for module in modules
        ]
        if not any(present):
            return 0
        missing = [
            module.format(layer=layer)
            for module, layers in zip(modules, present, strict=True)
            for layer in range(count)
            if layer not in layers
        ]
        beyond = [module for module in (module.format(layer=count) for module in modules) if self._any(module)]
        if missing or beyond:
            named = f"lacks {missing[0]}" if missing else f"holds {beyond[0]}"
            raise CheckpointError(
                f"config.json says {stack.layers} = {count}, but the checkpoint {named}",
                why="Some of its tensors may have been tied to others when it was saved" if missing else "",
                remedy="Use the config.json of these weights, or load and save the model untied with transformers",
            )
        return count

    def _any(self, module: str) -> bool:
        return self._parameter(module, "weight", "bias", "qweight") is not None

    def _parameter(self, module: str, *kinds: str) -> str | None:
        return next((name for name in (f"{module}.{kind}" for kind in kinds) if name in self.tensors), None)

    def _site(self, attention: Attention, layer: int, memory: str, no_memory: str) -> Site:
        stack = self.family.stacks[attention.stack]
        is_decoder = stack.decoder_when and self.config.get(stack.decoder_when)
        output = next(module for module, maps in attention.maps.items() if "output" in maps)
        no_output = "" if self._parameter(self._name(output, layer), "bias") else "the output projection has no bias"
        slots = {}
        for module, projections in attention.maps.items():
            for index, projection in enumerate(projections):
                memory_read = attention.kind == "cross" and projection in ("key", "value")
                norm, no_norm = (
                    self._memory_norm(memory, no_memory) if memory_read else self._norm(attention, stack, layer)
                )
                if projection == "output":
                    norm, no_norm = None, "it reads attention, not a norm"
                slots[projection] = self._slot(
                    attention,
                    self._name(module, layer),
                    projection,
                    (index, len(projections)),
                    norm,
                    no_norm,
                    no_output,
                )
        return Site(
            stack="decoder" if is_decoder else attention.stack,
            layer=layer,
            kind=attention.kind,
            heads=self._size(stack.heads),
            slots={projection: slots[projection] for projection in PROJECTIONS},
        )

    def _name(self, module: str, layer: int) -> str:
        return self.prefix + module.format(layer=layer, before=layer - 1)

    def _norm(self, attention: Attention, stack: Stack, layer: int) -> tuple[Norm | None, str]:
        first = layer == 0 and bool(attention.reads_first)
        if first and attention.between_first and self._any(self.prefix + attention.between_first):
            return None, f"{attention.between_first} stands between the embedding norm and it"
        module = self._name(attention.reads_first if first else attention.reads, layer)
        return self._layer_norm(module, attention.post_norm, first and attention.dropout_after_first)

    def _memory_norm(self, memory: str, no_memory: str) -> tuple[Norm | None, str]:
        if not memory:
            return None, no_memory or "it reads hidden states that the caller passes in"
        return self._layer_norm(memory, residual=False, dropout=False)

    def _layer_norm(self, module: str, residual: bool, dropout: bool) -> tuple[Norm | None, str]:
        # Checkpoints converted from TensorFlow call γ and β by their names; transformers renames them when it loads.
        weight, bias = self._parameter(module, "weight", "gamma"), self._parameter(module, "bias", "beta")
        if weight is None or bias is None:
            return None, f"the checkpoint has no layer norm {module} with weight and bias"
        return Norm(weight, bias, residual, dropout), ""

    def _slot(
        self,
        attention: Attention,
        module: str,
        projection: Projection,
        block: tuple[int, int],
        norm: Norm | None,
        no_norm: str,
        no_output: str,
    ) -> Slot:
        bias = self._parameter(module, "bias")
        weight = self._parameter(module, "weight")
        no_weight = self._quantised(module, weight)
        axis = self._axis(module, bias, None if no_weight else weight, attention.conv1d, block[1])
        evidence = Evidence(
            bias=bias is not None,
            unhandled=self.unhandled,
            no_norm=no_norm,
            no_shift="" if projection == "query" else "only a query bias goes there",
            no_output=no_output,
            no_weight=no_weight,
        )
        view = View.block(axis, *block)
        verdict = decide(projection, evidence)
        return Slot(projection, bias, None if no_weight else weight, view, attention.conv1d, norm, verdict)

    def _quantised(self, module: str, weight: str | None) -> str:
        if weight is None:
            return f"{module} has no plain weight tensor (quantised?)"
        dtype = self.tensors[weight].dtype
        return "" if dtype in FLOATS else f"{weight} is stored as {dtype}: quantised weights cannot be read or edited"

    def _axis(self, module: str, bias: str | None, weight: str | None, conv1d: bool, projections: int) -> int:
        """Length of the module's output axis, checked between bias and weight."""
        sizes = set()
        if bias is not None:
            sizes.add(self.tensors[bias].shape)
        if weight is not None:
            shape = self.tensors[weight].shape
            sizes.add(shape[1:] if conv1d else shape[:1])
        if not sizes:  # quantised and without bias: nothing here is ever read
            return projections
        if len(sizes) != 1 or len(next(iter(sizes))) != 1:
            raise CheckpointError(
                f"{module}: bias and weight do not fit together: {sorted(map(list, sizes))}",
                why=f"A {self.family.name} model has one bias entry per output of the map",
                remedy="Check that config.json belongs to these weights",
            )
        return int(next(iter(sizes))[0])
