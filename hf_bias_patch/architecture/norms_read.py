"""Which layer norm each projection of a site reads, directly and alone; or why it reads none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hf_bias_patch.architecture.name_patterns import KINDS, parameter
from hf_bias_patch.architecture.site_place import SitePlace
from hf_bias_patch.architecture.sites import Norm, Projection

__all__ = ["NormsRead", "OuterNorm"]

# Checkpoints converted from TensorFlow call γ and β by their names; transformers renames them when it loads.
_WEIGHTS, _BIASES = ("weight", "gamma"), ("bias", "beta")

Found = tuple[Norm | None, str]
"""A norm, or why there is none."""


@dataclass(frozen=True)
class OuterNorm:
    """What cross-attention reads from outside of its model or tower: the output of a norm, or why of none.

    Attributes:
        norm: its module; empty if it is not known.
        none: why there is none.
        skipped: whether training may skip the layer it belongs to, so that it is sometimes another norm that is read.
    """

    norm: str = ""
    none: str = ""
    skipped: bool = False


class NormsRead:
    """The norms that a site reads.

    Args:
        place: of the site.
        outer: what its cross-attention reads from outside.
    """

    def __init__(self, place: SitePlace, outer: OuterNorm) -> None:
        self._place, self._attention, self._outer = place, place.attention, outer

    def of(self, projection: Projection) -> Found:
        """The norm of one projection; what stock transformers does not read of it counts as missing."""
        norm, why = self._there(projection)
        if norm is not None and (unread := self._place.unread.get(f"{projection}.norm")):
            return None, f"stock transformers does not read {norm.bias}: {unread}"
        return norm, why

    def may_not_run(self) -> bool:
        """Whether the checkpoint has nothing that gives cross-attention what it reads."""
        modules = self._memory()[0].split("|")
        return not self._outer.none and not any(parameter(name, _WEIGHTS, self._place.tensors) for name in modules)

    def _there(self, projection: Projection) -> Found:
        if projection == "output":
            return None, "it reads attention, not a norm"
        from_outside = self._attention.kind == "cross" and projection in ("key", "value")
        if from_outside and isinstance(self._attention.reads, str):
            module, skipped = self._memory()
            if not module:
                return None, self._outer.none or "it reads hidden states that the caller passes in"
            return self._layer_norm(module, residual=False, dropout=skipped)
        return self._own(projection)

    def _own(self, projection: Projection) -> Found:
        place, attention = self._place, self._attention
        module, first = _of(attention.reads, projection), _of(attention.reads_first, projection)
        is_first = place.index.layer == 0 and bool(first)
        if is_first and attention.between_first and place.has(attention.between_first):
            return None, f"{attention.between_first} stands between the embedding norm and it"
        module = first if is_first else module
        if module in ("", "none"):
            return None, "it reads no layer norm directly and alone"
        dropout = (is_first and attention.dropout_after_first) or attention.dropout_after
        skipped = "{before}" in module and attention.may_skip(place.config)
        skipped = skipped or ("{last}" in module and place.finder.may_skip("encoder"))
        named = "|".join(map(place.name, module.split("|")))
        return self._layer_norm(named, attention.post_norm, dropout or skipped)

    def _memory(self) -> tuple[str, bool]:
        """The module of the norm that cross-attention reads, empty if there is none; whether training may skip it."""
        finder, own = self._place.finder, self._attention.memory
        module, skipped = (self._place.name(own), False) if own else (self._outer.norm, self._outer.skipped)
        behind = "encoder" in finder.family.stacks and self._attention.stack != "encoder"
        if not module and not self._outer.none and behind:
            return finder.final_norm("encoder"), finder.may_skip("encoder")
        return module, skipped

    def _layer_norm(self, module: str, residual: bool, dropout: bool) -> Found:
        modules, tensors = module.split("|"), self._place.tensors
        module = next((name for name in modules if parameter(name, KINDS, tensors)), modules[-1])
        weight, bias = parameter(module, _WEIGHTS, tensors), parameter(module, _BIASES, tensors)
        if weight is None or bias is None:
            return None, f"the checkpoint has no layer norm {module} with weight and bias"
        return Norm(weight, bias, residual, dropout), ""


def _of(reads: str | Mapping[Projection, str], projection: Projection) -> str:
    """A projection's entry, where there is one for each."""
    return reads if isinstance(reads, str) else reads.get(projection, "")
