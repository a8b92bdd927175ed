"""Products that a trace meets: maps of parameters, and the two of an attention call, scores and what they mix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hf_bias_patch.probing.origin import Codes
from hf_bias_patch.probing.tags import PRODUCT, MapCall, Mixing, ScoreProduct, Tag, broadcast

__all__ = ["Products"]


class Products(TorchDispatchMode):
    """Tags of tensors, and the tags of products of two tensors.

    Attributes:
        codes: what the codes mean.
        mixings: attention calls.
        calls: uses of maps.
        rows: code of a bias element → code of the weight's row (or column) whose output it is added to.
        used: numbers of all parameters that any op read.
        products: how many products of two activations there were.
    """

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.codes = Codes(parameters)
        self.mixings: list[Mixing] = []
        self.calls: list[MapCall] = []
        self.rows: dict[int, int] = {}
        self.used: set[int] = set()
        self.products = 0
        self._numbers = {id(value): number for number, value in enumerate(parameters.values())}
        self._tags: dict[int, Tag] = {}
        for number, value in enumerate(parameters.values()):
            self._tag(value, Tag(value, "parameter", self.codes.of_parameter(number)))

    def _tag(self, tensor: Tensor, tag: Tag) -> None:
        self._tags[id(tensor)] = tag

    def _get(self, tensor: Any) -> Tag | None:
        return self._tags.get(id(tensor))

    def _product(self, left: Tensor, right: Tensor, out: Tensor, added: Any) -> None:
        a, b = self._get(left), self._get(right)
        if b is not None and b.kind == "parameter" and b.shadow is not None:
            if a is None or a.kind != "score":
                self._map(left, a, b.shadow, out, added)
                return
        elif a is not None and a.kind == "parameter" and a.shadow is not None and (b is None or b.kind == "activation"):
            self._map(right.transpose(-1, -2), b, a.shadow.transpose(-1, -2), out.transpose(-1, -2), None)
            codes = self.codes.of_outputs(a.shadow.transpose(-1, -2)) if a.shadow.ndim == 2 else None
            if codes is not None:
                self._tag(out, Tag(out, "activation", codes.unsqueeze(-1).expand(out.shape).clone()))
            return
        self._attention(a, b, left, right, out)

    def _map(self, left: Tensor, a: Tag | None, weight: Tensor, out: Tensor, added: Any) -> None:
        if not out.numel():  # of no tokens at all: nothing is seen of it
            return
        codes = self._output_codes(weight, out)
        rows = codes
        bias = self._get(added) if isinstance(added, Tensor) else None
        if bias is not None and bias.kind == "parameter" and bias.shadow is not None:
            wide = broadcast(bias.shadow, out)
            if wide is not None:
                codes = self._with_bias(codes, wide)
        self._tag(out, Tag(out, "activation", codes))
        numbers = self.codes.parameters_in(rows)
        for number in numbers:
            self.calls.append(MapCall(number, left, a.norm if a else None))
        if a is not None and len(numbers) == 1:
            axis = 1 if bool((rows >= 2 * self.codes.count).any()) else 0
            self._read(a, next(iter(numbers)), axis, None if a.shadow is None else a.shadow)

    def _read(self, tag: Tag, output: int, axis: int, codes: Tensor | None) -> None:
        """A map reads mixed values."""
        for mixing in tag.mixings:
            mixing.output, mixing.output_axis = output, axis
            mixing.read = None if codes is None else codes.reshape(-1, codes.shape[-1])[0]

    def _output_codes(self, weight: Tensor, out: Tensor) -> Tensor:
        if weight.ndim == 2:
            return self.codes.of_outputs(weight).expand(out.shape).clone()
        each = torch.stack([self.codes.of_outputs(part) for part in weight.reshape(-1, *weight.shape[-2:])])
        return each.unsqueeze(-2).expand(out.shape).clone()

    def _convolution(self, args: Any, out: Tensor) -> None:
        tensor, weight, bias = args[:3]
        a, w, b = self._get(tensor), self._get(weight), self._get(bias) if isinstance(bias, Tensor) else None
        if w is None or w.shadow is None or w.kind != "parameter":
            return
        transposed = bool(args[6])
        if transposed:
            return
        codes = self.codes.of_outputs(w.shadow.reshape(w.shadow.shape[0], -1).T)
        if b is not None and b.shadow is not None:
            codes = self._with_bias(codes, b.shadow)
        shape = [1, -1, *([1] * (out.ndim - 2))]
        self._tag(out, Tag(out, "activation", codes.reshape(shape).expand(out.shape).clone()))
        number = self.codes.number_of(int(w.shadow.reshape(-1)[0]))
        self.calls.append(MapCall(number, tensor.movedim(1, -1), a.norm if a else None))
        if a is not None:
            self._read(a, number, 0, None if a.shadow is None else a.shadow.movedim(1, -1))

    def _attention(self, a: Tag | None, b: Tag | None, left: Tensor, right: Tensor, out: Tensor) -> None:
        for one, other in ((a, b), (b, a)):
            if one is not None and one.kind == "score":
                value = other.shadow if other is not None and other.kind == "activation" else None
                mixing = Mixing(one.scores, value)
                self.mixings.append(mixing)
                features = None if value is None else value[..., :1, :] if one is a else value[..., :1]
                self._tag(out, Tag(out, "context", broadcast(features, out), mixings=(mixing,)))
                return
        if a is None or b is None or a.kind != "activation" or b.kind != "activation":
            return
        if a.shadow is None or b.shadow is None or not (a.shadow >= 0).any() or not (b.shadow >= 0).any():
            return
        self.products += 1
        rows = (torch.arange(out.shape[-2]) + self.products * PRODUCT).unsqueeze(-1).expand(out.shape).clone()
        self._tag(out, Tag(out, "score", rows, None, (ScoreProduct(a.shadow, b.shadow, self.products),)))

    def _with_bias(self, rows: Tensor | None, bias: Tensor) -> Tensor:
        """Codes of rows replaced by those of the bias elements added to them."""
        assert rows is not None
        for axis in {-1, min(1, rows.ndim - 1)}:  # of outputs: the last, or a convolution's channels
            pairs = [codes.movedim(axis, -1).reshape(-1, codes.shape[axis])[0] for codes in (bias, rows)]
            self.rows |= {b: r for b, r in zip(*(pair.tolist() for pair in pairs), strict=True) if b >= 0 and r >= 0}
        return torch.where(bias >= 0, bias, rows)
