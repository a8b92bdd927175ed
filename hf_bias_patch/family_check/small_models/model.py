"""A small random model of a config: every parameter random and of a size that lets it be seen."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any

import torch

from hf_bias_patch.family_check.small_models.calibrate import calibrate
from hf_bias_patch.family_check.small_models.classes import class_of
from hf_bias_patch.family_check.small_models.randomise import randomise
from hf_bias_patch.models.float64 import EXPERTS, attention_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["small_instance", "small_model"]


def small_model(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model with all towers of a config, in float64 and eval mode, random, with attention that a probe can follow.

    Args:
        config: see small_config; left as it is.
        seed: of the parameters.

    Raises:
        FamilyError: no class of the installed transformers belongs to the config.
    """
    model = small_instance(class_of(config), config, seed)
    calibrate(model, seed)
    return model


def small_instance(cls: Any, config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """An instance of a class, in float64 and eval mode, every parameter random; it need not be able to run.

    Args:
        cls: of transformers.
        config: that the class takes; left as it is.
        seed: of the parameters.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model: PreTrainedModel = _build(cls, config).double().eval()
    randomise(model, seed)
    return model


def _build(cls: Any, config: PreTrainedConfig) -> Any:
    """An instance whose attention and experts a probe can follow."""
    if hasattr(cls, "_from_config"):
        how = {"attn_implementation": attention_of(config.model_type), "experts_implementation": EXPERTS}
        return cls._from_config(config, dtype=torch.float64, **how)
    return cls(copy.deepcopy(config))
