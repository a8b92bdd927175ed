"""Runs a model in float64 throughout: code that casts to float32 on the way stays in float64.

Many models do that for softmax, norms and rotary angles. It leaves noise of 1e-7, in which small effects drown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

__all__ = ["EXPERTS", "attention_of", "in_float64", "in_single_steps"]

EXPERTS = "eager"
"""The implementation of experts: the fused ones know no float64."""

_NO_EAGER: dict[str, str | dict[str, str]] = {
    "nemotron3_5_asr": {"": "eager", "encoder_config": "sdpa"},
    "nemotron_asr_streaming": {"": "eager", "encoder_config": "sdpa"},
    "nemotron_asr_streaming_encoder": "sdpa",
    "qwen2_5_omni_dit": "sdpa",
}
"""Types without an eager attention, or whose eager attention gives nothing but NaN (transformers 5.23 inverts a mask of
floats there as if of booleans)."""

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


def attention_of(model_type: object) -> str | dict[str, str]:
    """The `attn_implementation` of a model that can be followed step by step, such as `eager`.

    Args:
        model_type: as config.json has it; whether it is one at all is found out by who loads the model.
    """
    return _NO_EAGER.get(model_type, "eager") if isinstance(model_type, str) else "eager"


@contextmanager
def in_float64() -> Iterator[None]:
    """A block in which everything is computed in float64, without gradients; fused attention stays so, as deployed."""
    default, fast = torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()
    torch.set_default_dtype(torch.float64)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), _Double():
            yield
    finally:
        torch.set_default_dtype(default)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def in_single_steps(dropped: Callable[[Tensor], Tensor] | None = None) -> Iterator[None]:
    """As `in_float64`, fused attention in its single steps.

    Args:
        dropped: called with what comes out of each dropout; its result takes that place.
    """
    with in_float64(), _Plain(dropped):
        yield
