"""Tensors as a header lists them: of the tiny models, without a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from hf_bias_patch.architecture.find import find_sites
from tests.models import fresh

__all__ = ["Info", "Tensors", "is_attention", "sample", "slot_of", "tensors_of"]


@dataclass(frozen=True)
class Info:
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]


Tensors = dict[str, Info]


def tensors_of(model: torch.nn.Module) -> Tensors:
    """A model's state dict, buffers included, as a header would list it."""
    return {name: Info("F32", tuple(value.shape)) for name, value in model.state_dict().items()}


@cache
def sample(name: str) -> tuple[dict[str, Any], Tensors]:
    """Config and tensors of one of the tiny models, with its usual head."""
    model = fresh(name)
    return model.config.to_dict(), tensors_of(model)


def slot_of(config: Mapping[str, Any], tensors: Mapping[str, Info], site: str, projection: str) -> Any:
    return {found.name: found for found in find_sites(config, tensors)}[site].slots[projection]


def is_attention(name: str) -> bool:
    """Whether a tensor is of an attention module."""
    attention = ("attention.", "self_attn.", "encoder_attn.", ".attn.", "crossattention.")
    return any(part in name for part in attention) and not _is_norm(name)


def _is_norm(name: str) -> bool:
    return "norm" in name.lower() or ".ln_" in name
