"""AdamW over what trains, and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch

from hf_bias_patch.tuning.settings import TuneSettings

__all__ = ["make_optimiser", "make_scheduler", "total_steps"]


def make_optimiser(model: torch.nn.Module, settings: TuneSettings) -> torch.optim.AdamW:
    """AdamW over the parameters that train and no others. Vectors (biases, norms) have no weight decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.rate)


def make_scheduler(optimiser: torch.optim.Optimizer, settings: TuneSettings, steps: int) -> Any:
    """The learning rate over `steps` optimiser steps."""
    from transformers import get_scheduler

    warmup = math.ceil(settings.warmup_ratio * steps)
    return get_scheduler(settings.lr_scheduler_type, optimiser, warmup, steps)


def total_steps(settings: TuneSettings, per_epoch: int) -> int:
    """Optimiser steps of a run."""
    return settings.max_train_steps or max(1, math.ceil(settings.num_train_epochs * per_epoch))
