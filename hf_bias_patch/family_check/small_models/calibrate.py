"""Gives batch norms the statistics of what they are fed, without which nothing of an input survives many of them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.inputs.random_inputs import inputs_of
from hf_bias_patch.models.run import run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["calibrate"]


def calibrate(model: PreTrainedModel, seed: int = 0) -> None:
    """Run a model and set every batch norm's running statistics near those it meets; nothing without batch norms.

    Args:
        model: changed in place.
        seed: of the inputs and of the distance.
    """
    norms = [module for module in model.modules() if _is_batch_norm(module)]
    if not norms:
        return
    try:
        inputs = inputs_of(model, seed)
    except VerifyError:  # the caller will hear of it when asking for inputs
        return
    generator = torch.Generator().manual_seed(seed)

    def fit(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        values = arguments[0].double().transpose(0, 1).flatten(1)
        mean, variance = values.mean(1), values.var(1, unbiased=False)
        away = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        spread = torch.rand(mean.shape, generator=generator, dtype=torch.float64)
        module.running_mean.copy_(mean + 0.3 * variance.sqrt() * away)  # type: ignore[operator]
        module.running_var.copy_((0.5 + spread) * variance + 1e-3)  # type: ignore[operator]

    with ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_pre_hook(fit).remove)
        run(model, inputs)


def _is_batch_norm(module: nn.Module) -> bool:
    """Also the frozen ones, which are no subclass of torch's."""
    found = (getattr(module, name, None) for name in ("running_mean", "running_var"))
    return all(isinstance(value, torch.Tensor) for value in found)
