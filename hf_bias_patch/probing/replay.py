"""Does to shadows what an op does to tensors that it only moves around."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hf_bias_patch.probing.origin import NOTHING
from hf_bias_patch.probing.tags import Tag

__all__ = ["MOVES", "replay"]

MOVES = {
    "_reshape_alias", "_to_copy", "_unsafe_view", "alias", "as_strided", "cat", "chunk", "clone", "constant_pad_nd",
    "contiguous", "detach", "diagonal", "dropout", "expand", "flip", "gather", "index", "index_select", "lift_fresh",
    "masked_fill", "masked_fill_", "movedim", "narrow", "native_dropout", "permute", "pixel_shuffle",
    "reflection_pad1d", "repeat", "reshape", "roll", "select", "select_scatter", "slice", "slice_scatter", "split",
    "split_with_sizes", "squeeze", "stack", "t", "transpose", "tril", "triu", "unbind", "unflatten", "unfold",
    "unsqueeze", "view",
}  # fmt: skip
"""Ops whose results hold entries of their arguments, in other places, and nothing else."""

_SAME = {"_to_copy", "clone", "contiguous", "lift_fresh", "detach", "alias", "dropout", "native_dropout",
         "masked_fill", "masked_fill_", "tril", "triu"}  # fmt: skip
_RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias"}


def replay(func: Any, name: str, args: Any, kwargs: Any, tags: Mapping[int, Tag], kind: str) -> Any:
    """The same move, done to the shadows of its arguments; None where that is not possible.

    `kind` is that of the result: codes of parameters mean nothing among those of anything else (a sink's logits).
    """

    def shadow_of(value: Any) -> Any:
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            return value  # an index says where from; it is no entry that moves
        tag = tags.get(id(value))
        if tag is not None and tag.shadow is not None and (tag.kind == "parameter") == (kind == "parameter"):
            return tag.shadow
        return torch.full(value.shape, NOTHING) if value.is_floating_point() else value

    if name in _SAME:
        return shadow_of(args[0])
    if name in _RESHAPES:
        return shadow_of(args[0]).reshape(args[1])
    given, named = tree_map(shadow_of, (args, dict(kwargs)))
    if name == "constant_pad_nd":
        given = (*given[:2], NOTHING)
    try:
        return func(*given, **named)
    except RuntimeError:
        return None
