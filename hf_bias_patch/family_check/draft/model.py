"""Small models of a type to draft from: a bias on every attention map, at the default config and with one change."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from hf_bias_patch.family_check.added_biases import give_biases
from hf_bias_patch.family_check.draft.owners import Owner, owners
from hf_bias_patch.family_check.draft.seen import see
from hf_bias_patch.family_check.one_type import config_of_type
from hf_bias_patch.family_check.small_models.model import small_model
from hf_bias_patch.models.inputs.random_inputs import inputs_of
from hf_bias_patch.models.names import FileNames, names_in_files
from hf_bias_patch.models.run import run

__all__ = ["SeenModel", "look_at"]

_NAMED = re.compile("attention|attn|attending")


@dataclass(frozen=True)
class SeenModel:
    """What one small model shows.

    Attributes:
        owners: the model, then its towers, each with its own sites.
        config: plain values.
        parameters: names.
        given: biases that its class has not, and that the draft gave it.
        unread: parameters that no op of the run read.
        named: modules that are called attention.
        left_out: what looks like attention and is none that a family can describe: module, and why.
    """

    owners: tuple[Owner, ...]
    config: dict[str, Any]
    parameters: frozenset[str]
    given: tuple[str, ...]
    unread: tuple[str, ...]
    left_out: tuple[str, ...]
    named: tuple[str, ...]


def look_at(model_type: str, changes: Mapping[str, Any] | None = None) -> SeenModel:
    """Build a small model and see what it does.

    Args:
        model_type: of the installed transformers.
        changes: config values other than the default ones, by dotted keys.

    Raises:
        NotBuiltError, FamilyError, VerifyError: there is no such model, or no input for it.
    """
    config = config_of_type(model_type, changes or {})
    model = small_model(config)
    inputs = inputs_of(model)
    plain = frozenset(name for name, _ in model.named_parameters())
    given = give_biases(model, lambda: run(model, inputs))
    sites, left_out, unread = see(model, lambda: run(model, inputs))
    return SeenModel(
        owners=tuple(owners(model, sites, names_in_files(model), _headed(config, model))),
        config=config.to_dict(),
        parameters=plain,
        given=given,
        unread=tuple(sorted(unread & plain)),
        left_out=left_out,
        named=tuple(name for name, module in model.named_modules() if _NAMED.search(type(module).__name__.lower())),
    )


def _headed(config: Any, model: Any) -> FileNames | None:
    """Where the files of the type's first class with a head hold its parameters; None if it has none."""
    from transformers.models.auto import modeling_auto as auto

    for mapping in (auto.MODEL_FOR_CAUSAL_LM_MAPPING, auto.MODEL_FOR_MASKED_LM_MAPPING, auto.MODEL_MAPPING):
        if type(config) in mapping and mapping[type(config)] is not type(model):
            with suppress(Exception), torch.device("cpu"):
                return names_in_files(mapping[type(config)](copy.deepcopy(config)).double())
    return None
