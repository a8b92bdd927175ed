"""Runs a model in float64 throughout: code that casts to float32 on the way stays in float64.

Many models do that for softmax, norms and rotary angles. It leaves noise of 1e-7, in which small effects drown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

__all__ = ["in_double"]

_LOWER = (torch.float32, torch.float16, torch.bfloat16)


class _Double(TorchDispatchMode):
    """Every floating-point dtype asked for becomes float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in _LOWER:
            kwargs["dtype"] = torch.float64
        if func is torch.ops.prims.convert_element_type.default and args[1] in _LOWER:
            args = (args[0], torch.float64)
        args = tree_map(lambda value: torch.float64 if value in _LOWER else value, args) if _has_dtype(args) else args
        return func(*args, **kwargs)


def _has_dtype(args: Any) -> bool:
    return any(isinstance(value, torch.dtype) for value in args)


class _Plain(TorchFunctionMode):
    """Fused attention as its single steps, and dropout where it would be, so that both can be followed."""

    def __init__(self, dropped: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self._dropped = dropped

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func is functional.multi_head_attention_forward and not kwargs.get("need_weights", True):
            # Inside it no function comes by here; asked for its weights, it computes in plain steps.
            return func(*args, **kwargs | {"need_weights": True})[0], None
        out = func(*args, **kwargs)
        if self._dropped is not None and func is functional.dropout:
            return self._dropped(out)
        return out


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What `torch.nn.functional.scaled_dot_product_attention` computes, step by step."""
    if enable_gqa:
        groups = query.size(-3) // key.size(-3)
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.size(-1)) if scale is None else scale)
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.softmax(scores, -1) @ value


@contextmanager
def in_double(dropped: Callable[[Tensor], Tensor] | None = None, *, fused: bool = False) -> Iterator[None]:
    """A block in which everything is computed in float64, in plain steps.

    Args:
        dropped: called with what comes out of each dropout; its result takes that place.
        fused: whether fused attention stays so, as it is deployed; `dropped` is not called then.
    """
    default, fast = torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()
    torch.set_default_dtype(torch.float64)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), _Double(), nullcontext() if fused else _Plain(dropped):
            yield
    finally:
        torch.set_default_dtype(default)
        torch.backends.mha.set_fastpath_enabled(fast)
