"""What an attention site is: its projections, where their biases are, and what surrounds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from hf_bias_patch.architecture.layout import View
from hf_bias_patch.architecture.verdict import Verdict

__all__ = ["PROJECTIONS", "Norm", "Projection", "Site", "Slot", "Tensor"]

Projection = Literal["query", "key", "value", "output"]

PROJECTIONS: tuple[Projection, ...] = ("query", "key", "value", "output")


class Tensor(Protocol):
    """What this room needs to know of a tensor."""

    @property
    def dtype(self) -> str:
        """A safetensors dtype name, such as `F32`."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...


@dataclass(frozen=True)
class Norm:
    """The layer norm whose output a projection reads directly and alone.

    Attributes:
        weight: parameter name of γ.
        bias: parameter name of β.
        residual: whether its output is also the residual stream that the site's output is added to.
        dropout: whether dropout sits between it and the projection (while training).
    """

    weight: str
    bias: str
    residual: bool
    dropout: bool


@dataclass(frozen=True)
class Slot:
    """Where one projection's bias lives, what surrounds it, and the verdict.

    Attributes:
        projection: `query`, `key`, `value` or `output`.
        bias: parameter name, or None where there is no bias.
        weight: parameter name of the projection's weight, or None where it is not a plain tensor (quantised).
        view: the projection's part of the bias.
        conv1d: whether the weight is stored (in, out).
        norm: the layer norm it reads, or None.
        verdict: what becomes of the function when the bias goes.
        rows: the projection's part of the weight's output axis; the same as of the bias, unless that is apart.
    """

    projection: Projection
    bias: str | None
    weight: str | None
    view: View
    conv1d: bool
    norm: Norm | None
    verdict: Verdict
    rows: View

    @property
    def vectors(self) -> tuple[str, ...]:
        """The small tensors that a plan may read: the bias, and those of the norm."""
        norm = (self.norm.weight, self.norm.bias) if self.norm else ()
        return norm if self.bias is None else (self.bias, *norm)


@dataclass(frozen=True)
class Site:
    """One attention module.

    Attributes:
        stack, layer, kind: where it is; see `name`.
        heads: query heads.
        slots: projection → its slot.
        kv_heads_said: key-value heads, where the sizes of the maps do not tell, as a head of the query has other
            entries than one of the key map; 0 where they do.
    """

    stack: str
    layer: int
    kind: str
    heads: int
    slots: dict[str, Slot]
    kv_heads_said: int = 0

    @property
    def name(self) -> str:
        """`stack.layer.kind`, such as `encoder.0.self`."""
        return f"{self.stack}.{self.layer}.{self.kind}"

    @property
    def kv_heads(self) -> int:
        """Key-value heads: fewer than `heads` where several query heads share one."""
        return self.kv_heads_said or self.heads * self.slots["key"].view.size // self.slots["query"].view.size
