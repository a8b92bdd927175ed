"""A trace that also notes what is done to a map's outputs before they are compared or mixed: traps are named by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_bias_patch.probing.tags import Tag
from hf_bias_patch.probing.trace import Trace

__all__ = ["Operation", "Watch"]

_NORMS = {
    "_fused_rms_norm", "linalg_vector_norm", "mean", "native_batch_norm", "native_group_norm", "native_layer_norm",
    "norm", "rms_norm", "var", "var_mean",
}  # fmt: skip
_CLIPS = {"clamp", "clamp_", "clamp_max", "clamp_min", "hardtanh"}
_CURVES = {"elu", "exp", "gelu", "pow", "relu", "sigmoid", "silu", "softplus", "tanh"}


@dataclass(frozen=True)
class Operation:
    """Something done to outputs of a map.

    Attributes:
        what: `norm`, `rotary` (a sum of its own entries, moved), `clip`, `product` (with another map's) or `curve`.
        codes: of the entries, as in `Codes`.
    """

    what: str
    codes: frozenset[int]


class Watch(Trace):
    """A trace with notes.

    Attributes:
        steps: done to the outputs of maps, in order.
        beside: number of a product → what stands beside its scores in one row: `sink` (a parameter) or `extra_key`.
        widths: number of a product → entries of a key that it compares: the size of a head.
    """

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__(parameters)
        self.steps: list[Operation] = []
        self.beside: dict[int, str] = {}
        self.widths: dict[int, int] = {}

    def done_to(self, codes: Iterable[int]) -> set[str]:
        """What was done to any of these entries."""
        wanted = set(codes)
        return {step.what for step in self.steps if step.codes & wanted}

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, tagged: list[Tag]) -> None:
        active = [tag for tag in tagged if tag.kind == "activation" and tag.shadow is not None]
        what = _what(name, len(active))
        if what and (what != "rotary" or self._same_origin(active)):
            codes = frozenset(code for code in active[0].shadow.unique().tolist() if code >= 0)  # type: ignore[union-attr]
            self.steps.append(Operation(what, codes))
        if name in ("cat", "constant_pad_nd"):
            self._note_beside(tagged)
        super()._follow(func, name, args, kwargs, out, tagged)

    def _note_beside(self, tagged: list[Tag]) -> None:
        scores = [score for tag in tagged if tag.kind == "score" for score in tag.scores]
        beside = "sink" if any(tag.kind == "parameter" for tag in tagged) else "extra_key"
        for score in scores:
            self.beside.setdefault(score.number, beside)

    def _attention(self, a: Tag | None, b: Tag | None, left: Tensor, right: Tensor, out: Tensor) -> None:
        before = self.products
        super()._attention(a, b, left, right, out)
        if self.products > before:
            self.widths[self.products] = left.shape[-1]


def _what(name: str, active: int) -> str:
    if not active:
        return ""
    if name in _NORMS:
        return "norm"
    if name in ("add", "add_", "sub") and active > 1:
        return "rotary"
    if name in ("mul", "mul_") and active > 1:
        return "product"
    if name in _CLIPS:
        return "clip"
    return "curve" if name in _CURVES else ""
