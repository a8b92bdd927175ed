"""Follows a forward pass op by op and finds its attention: which parameters score, which are mixed, what comes out.

Nothing here knows module names. An attention call is: two activations that come from linear maps are multiplied
(scores), whatever happens to them, and the result is multiplied with a third (mixing). See `origin` for how the
parameters behind each of the three are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from hf_bias_patch.probing.origin import Codes
from hf_bias_patch.probing.shadows import (
    FRESH,
    MOVES,
    PAIRS,
    POOLS,
    Fresh,
    paired,
    pooled,
    replay,
    spread,
    stands,
    varies,
)
from hf_bias_patch.probing.tags import PRODUCT, MapCall, Mixing, NormTag, ScoreProduct, Tag, broadcast, union

__all__ = ["Trace"]


_LINEAR = {"add", "add_", "div", "div_", "mul", "mul_", "neg", "rsub", "sub", "sub_", "where"}
_SELECTS = {"argmax", "argmin", "argsort", "bernoulli", "exponential_", "kthvalue", "multinomial", "sort", "topk"}
_REDUCES = _SELECTS | {
    "all", "amax", "amin", "any", "cumsum", "linalg_vector_norm", "logsumexp", "max", "mean", "min", "norm", "prod",
    "std", "sum", "var", "var_mean",
}  # fmt: skip
_REGROUPS = PAIRS | POOLS
_NORMS = {
    "_fused_rms_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "native_batch_norm",
    "native_group_norm", "native_layer_norm", "rms_norm",
}  # fmt: skip


_KINDS = ("context", "score", "activation", "parameter")  # of tensors put together, the first of these is what it is
_ADDS_ENTRIES = {"cat", "constant_pad_nd", "masked_fill", "masked_fill_", "select_scatter", "slice_scatter", "stack"}


class Trace(TorchDispatchMode):
    """Records the maps and attention calls of all forward passes run inside it.

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
        self._fresh = Fresh()
        self._numbers = {id(value): number for number, value in enumerate(parameters.values())}
        self._tags: dict[int, Tag] = {}
        for number, value in enumerate(parameters.values()):
            self._tag(value, Tag(value, "parameter", self.codes.of_parameter(number)))

    def dropped(self, tensor: Tensor) -> Tensor:
        """A tensor behind dropout, as another tensor with the same values."""
        tag = self._tags.get(id(tensor))
        if tag is None or tag.norm is None:
            return tensor
        copy = tensor.view_as(tensor)
        self._tag(copy, replace(tag, tensor=copy, norm=replace(tag.norm, dropout=True)))
        return copy

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        tagged = [self._tags[id(a)] for a in tree_flatten((args, kwargs))[0] if id(a) in self._tags]
        for tag in tagged:
            if id(tag.tensor) in self._numbers:
                self.used.add(self._numbers[id(tag.tensor)])
        fresh = name in FRESH
        if fresh:
            self._fresh.made(out)
        # What is made in the shape of scores becomes more scores, by other means than a softmax (GroupViT's choice).
        if any(tag.kind == "score" or not fresh for tag in tagged):
            self._follow(func, name, args, kwargs, out, tagged)
        return out

    # ------------------------------------------------------------------------------------------------ following

    def _follow(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, tagged: list[Tag]) -> None:
        maps: dict[str, Callable[[Any, Any], None]] = {
            "mm": lambda a, o: self._product(a[0], a[1], o, None),
            "bmm": lambda a, o: self._product(a[0], a[1], o, None),
            "addmm": lambda a, o: self._product(a[1], a[2], o, a[0]),
            "baddbmm": lambda a, o: self._product(a[1], a[2], o, a[0]),
            "convolution": self._convolution,
            "_softmax": lambda a, o: self._softmax(a[0], a[1], o, tagged),
            "native_layer_norm": self._layer_norm,
        }
        if name in maps:
            maps[name](args, out)
        elif name in MOVES:
            self._move(func, name, args, kwargs, out, tagged)
        elif name in ("add", "add_"):
            self._add(args, out, tagged)
        elif name == "copy_":
            self._copy(args[0], self._get(args[1]))
        elif name in _NORMS:
            self._features(args[0], out[0] if isinstance(out, tuple) else out)
        elif name in _REGROUPS and len(tagged) == 1 and tagged[0].kind == "activation":
            self._regroup(name, args, out, tagged[0])
        elif name in _REDUCES:
            for tag in tagged:
                if name in _SELECTS:
                    for score in tag.scores:
                        score.ops.append(name)
        elif isinstance(out, Tensor) and (out.is_floating_point() or out.is_complex()):
            self._pointwise(name, out, tagged)

    def _tag(self, tensor: Tensor, tag: Tag) -> None:
        self._tags[id(tensor)] = tag

    def _get(self, tensor: Any) -> Tag | None:
        return self._tags.get(id(tensor))

    def _move(self, func: Any, name: str, args: Any, kwargs: Any, out: Any, tagged: list[Tag]) -> None:
        kind = min((tag.kind for tag in tagged), key=_KINDS.index)
        shadowed = any(tag.shadow is not None for tag in tagged)
        shadows = _tensors(replay(func, name, args, kwargs, self._tags, kind)) if shadowed else []
        norm = _moved_norm(name, args, tagged)
        scores, mixings = union(tagged, "scores"), union(tagged, "mixings")
        for number, tensor in enumerate(_tensors(out)):
            shadow = shadows[number] if number < len(shadows) and shadows[number].shape == tensor.shape else None
            self._tag(tensor, Tag(tensor, kind, shadow, norm, scores, mixings))

    def _copy(self, part: Tensor, tag: Tag | None) -> None:
        """What is copied into a part of a fresh tensor is there from now on."""
        if tag is None or tag.kind != "activation" or tag.shadow is None:
            return
        whole = self._fresh.filled(part, tag.shadow)
        if whole is not None:
            self._tag(whole[0], Tag(whole[0], "activation", whole[1]))

    def _pointwise(self, name: str, out: Tensor, tagged: list[Tag]) -> None:
        active = [tag for tag in tagged if tag.kind != "parameter"]
        if not active:
            return
        mixings = union(active, "mixings")
        if mixings:
            for mixing in mixings:
                mixing.between.append(name)
            shadow = next(tag.shadow for tag in active if tag.kind == "context")
            self._tag(out, Tag(out, "context", broadcast(shadow, out), mixings=mixings))
            return
        scored = [tag for tag in active if tag.kind == "score"]
        if scored:
            scores = union(scored, "scores")
            if name not in _LINEAR or (len(scored) > 1 and name not in ("sub", "sub_", "where")):
                for score in scores:
                    score.ops.append(name)
            self._tag(out, Tag(out, "score", broadcast(scored[0].shadow, out), None, scores))
            return
        coded = [tag for tag in active if tag.shadow is not None]
        if len(coded) == 1 or (coded and self._same_origin(coded)):
            self._tag(out, Tag(out, "activation", broadcast(coded[0].shadow, out)))

    def _regroup(self, name: str, args: Any, out: Any, tag: Tag) -> None:
        """Entries are paired, or the largest of them are taken."""
        if tag.shadow is None:
            return
        values = out[0] if isinstance(out, tuple) else out
        codes = paired(name, tag.shadow) if name in PAIRS else pooled(name, args, tag.shadow, values)
        if codes is not None:
            self._tag(values, Tag(values, "activation", codes))

    def _same_origin(self, coded: Iterable[Tag]) -> bool:
        origins = [self.codes.parameters_in(tag.shadow) for tag in coded if tag.shadow is not None]
        return all(origin == origins[0] for origin in origins)

    def _add(self, args: Any, out: Tensor, tagged: list[Tag]) -> None:
        active = [tag for tag in tagged if tag.kind != "parameter"]
        constant = [tag for tag in tagged if tag.kind == "parameter"]
        if len(active) == 1 and len(constant) == 1 and active[0].kind == "activation" and active[0].shadow is not None:
            codes, bias = active[0].shadow, broadcast(constant[0].shadow, out)
            if bias is not None and self.codes.is_row(codes):
                codes = self._with_bias(broadcast(codes, out), bias)
            self._tag(out, Tag(out, "activation", broadcast(codes, out)))
            return
        if not active and len(constant) == 1 and isinstance(args[0], Tensor) and isinstance(args[1], Tensor):
            return  # an unknown activation and a parameter: an embedding of positions, say
        self._pointwise("add", out, tagged)

    def _with_bias(self, rows: Tensor | None, bias: Tensor) -> Tensor:
        """Codes of rows replaced by those of the bias elements added to them."""
        assert rows is not None
        for axis in {-1, min(1, rows.ndim - 1)}:  # of outputs: the last, or a convolution's channels
            pairs = [codes.movedim(axis, -1).reshape(-1, codes.shape[axis])[0] for codes in (bias, rows)]
            self.rows |= {b: r for b, r in zip(*(pair.tolist() for pair in pairs), strict=True) if b >= 0 and r >= 0}
        return torch.where(bias >= 0, bias, rows)

    def _features(self, tensor: Tensor, out: Tensor) -> None:
        tag = self._get(tensor)
        if tag is None:
            return
        if tag.kind == "context":
            for mixing in tag.mixings:
                mixing.between.append("norm")
            self._tag(out, replace(tag, tensor=out, norm=None))
        elif tag.kind == "score":
            for score in tag.scores:
                score.ops.append("norm")
            self._tag(out, replace(tag, tensor=out))
        elif tag.shadow is not None:
            self._tag(out, Tag(out, "activation", tag.shadow))

    def _layer_norm(self, args: Any, out: Any) -> None:
        self._features(args[0], out[0])
        weight, bias = (self._get(value) if isinstance(value, Tensor) else None for value in (args[2], args[3]))
        if weight is None or bias is None or weight.kind != "parameter" or bias.kind != "parameter":
            return
        names = [self._whole_name(tag) for tag in (weight, bias)]
        if names[0] and names[1]:
            old = self._get(out[0]) or Tag(out[0], "activation")
            self._tag(out[0], replace(old, tensor=out[0], norm=NormTag(names[0], names[1])))

    def _whole_name(self, tag: Tag) -> str:
        numbers = self.codes.parameters_in(tag.shadow) if tag.shadow is not None else set()
        return self.codes.names[numbers.pop()] if len(numbers) == 1 else ""

    def _softmax(self, tensor: Tensor, dim: int, out: Tensor, tagged: list[Tag]) -> None:
        tag = tagged[0]
        if tag.kind != "score":
            self._pointwise("softmax", out, tagged)
            return
        rows = None if tag.shadow is None else tag.shadow.movedim(dim, -1)
        visible = tensor.movedim(dim, -1)
        visible = visible.masked_fill(visible < -1e4, float("nan"))
        differ = spread(visible)
        scores = tuple(
            replace(
                score,
                softmax=True,
                swapped=varies(rows, score.number),
                apart=stands(rows, score.number),
                spread=differ,
                ops=[*score.ops],
            )
            for score in tag.scores
        )
        self._tag(out, Tag(out, "score", tag.shadow, None, scores))

    # ------------------------------------------------------------------------------------------------- products

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


def _moved_norm(name: str, args: Any, tagged: list[Tag]) -> NormTag | None:
    """The norm whose output moved entries are: also of parts that are all that norm's output, put together again."""
    if name not in _ADDS_ENTRIES:
        return tagged[0].norm if len(tagged) == 1 else None
    same = name == "cat" and len(tagged) == len(_tensors(args)) and len({tag.norm for tag in tagged}) == 1
    return tagged[0].norm if same else None


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]
