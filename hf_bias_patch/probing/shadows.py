"""What ops do to shadows, as to the tensors that they belong to; and what rows of scores show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hf_bias_patch.probing.origin import NOTHING
from hf_bias_patch.probing.tags import PRODUCT, Tag

__all__ = ["FRESH", "MOVES", "PAIRS", "POOLS", "Fresh", "paired", "pooled", "replay", "spread", "stands", "varies"]

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


FRESH = {
    "empty", "empty_like", "empty_strided", "full", "full_like", "new_empty", "new_empty_strided", "new_full",
    "new_ones", "new_zeros", "ones_like", "zeros", "zeros_like",
}  # fmt: skip
"""Ops whose results hold no entry of their arguments."""


class Fresh:
    """Remembers such tensors, and what was copied into them."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def made(self, tensor: Tensor) -> None:
        """A tensor was made."""
        if tensor.is_floating_point() and tensor.is_contiguous() and not tensor.storage_offset():
            self._made[tensor.untyped_storage().data_ptr()] = (tensor, torch.full(tensor.shape, NOTHING))

    def filled(self, part: Tensor, codes: Tensor) -> tuple[Tensor, Tensor] | None:
        """A part of one was filled: the whole tensor, and the codes of all its entries; None if it is none of these.

        Args:
            part: the view that was copied into.
            codes: of what was copied, in a shape that expands to the view's.
        """
        whole, shadow = self._made.get(part.untyped_storage().data_ptr(), (None, None))
        if whole is None or shadow is None or part.untyped_storage().size() != whole.untyped_storage().size():
            return None
        shadow.as_strided(part.shape, part.stride(), part.storage_offset()).copy_(codes)
        return whole, shadow.clone()


def varies(left: Tensor | None, product: int) -> bool | None:
    """Whether positions of a product differ along the last axis; entries of no product, such as a sink's, do not count.

    Of a product that was added to another, only that one has entries.
    """
    if left is None:
        return None
    numbers = left.div(PRODUCT, rounding_mode="floor")
    own = numbers == product if (numbers == product).any() else numbers == numbers.max()
    high, low = left.masked_fill(~own, -1).amax(-1), left.masked_fill(~own, torch.iinfo(left.dtype).max).amin(-1)
    return bool((high > low).any())


def stands(left: Tensor | None, product: int) -> bool:
    """Whether a product has entries of its own."""
    return left is not None and bool((left.div(PRODUCT, rounding_mode="floor") == product).any())


def spread(visible: Tensor) -> float:
    """Largest difference within a row, of what is not masked."""
    if visible.shape[-1] < 2:
        return 0.0
    high = torch.nan_to_num(visible, nan=-float("inf")).amax(-1)
    low = torch.nan_to_num(visible, nan=float("inf")).amin(-1)
    return float((high - low).nan_to_num(0.0, 0.0, 0.0).max())


PAIRS = {"view_as_complex", "view_as_real"}
"""Ops that make one complex number of two entries, and back."""


def paired(name: str, codes: Tensor) -> Tensor | None:
    """The codes of a result of one of `PAIRS`: complex128 for `view_as_complex`, int64 for `view_as_real`.

    None for complex numbers that are no pairs of entries, such as those of a Fourier transform.
    """
    if name == "view_as_complex":
        return torch.view_as_complex(codes.double().contiguous())
    return torch.view_as_real(codes.resolve_conj()).long() if codes.is_complex() else None


POOLS = {"amax", "max", "max_pool2d_with_indices"}
"""Ops that take the largest of several entries."""


def pooled(name: str, args: Any, codes: Tensor, values: Tensor) -> Tensor | None:
    """Codes of the largest entries (int64, in the shape of `values`); None where entries of several origins compete.

    Args:
        name: one of `POOLS`.
        args: of the op.
        codes: of the tensor that is pooled, in its shape.
        values: the largest entries.
    """
    if name == "max_pool2d_with_indices":
        first = codes[..., :1, :1]
        return first.expand(values.shape).clone() if bool((codes == first).all()) else None
    if len(args) < 2 or isinstance(args[1], Tensor):
        return None
    largest, smallest = codes.amax(*args[1:]), codes.amin(*args[1:])
    return largest if torch.equal(largest, smallest) else None
