"""Keeps a float64 model in float64. Many stock models cast to float32 inside (softmax, norms), which would leave 1e-7
of noise in figures that must be below 1e-9."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["staying_double"]


@contextmanager
def staying_double() -> Iterator[None]:
    """Within it, whatever asks torch for float32, float16 or bfloat16 gets float64."""
    import torch
    from torch.overrides import TorchFunctionMode

    lower = {torch.float32, torch.float16, torch.bfloat16}
    casts = {torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16}

    def raised(value: Any) -> Any:
        return torch.float64 if isinstance(value, torch.dtype) and value in lower else value

    class StayingDouble(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in casts:
                return args[0].double()
            return func(*map(raised, args), **{key: raised(value) for key, value in (kwargs or {}).items()})

    with StayingDouble():
        yield
