"""Follows a forward pass op by op and finds its attention: which parameters score, which are mixed, what comes out.

Nothing here knows module names. An attention call is: two activations that come from linear maps are multiplied
(scores), whatever happens to them, and the result is multiplied with a third (mixing). See `origin` for how the
parameters behind each of the three are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten

from hf_bias_patch.probing.products import Products
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
from hf_bias_patch.probing.tags import NormTag, Tag, broadcast, union

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


class Trace(Products):
    """Records the maps and attention calls of all forward passes run inside it; what it found is in `Products`."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__(parameters)
        self._fresh = Fresh()

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


def _moved_norm(name: str, args: Any, tagged: list[Tag]) -> NormTag | None:
    """The norm whose output these entries are, after they were moved or joined from parts of that one output."""
    if name not in _ADDS_ENTRIES:
        return tagged[0].norm if len(tagged) == 1 else None
    same = name == "cat" and len(tagged) == len(_tensors(args)) and len({tag.norm for tag in tagged}) == 1
    return tagged[0].norm if same else None


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]
