"""Runs a model in float64, always the same way."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_bias_patch.models.float64 import in_single_steps

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["CACHES", "forget", "run", "run_all"]

CACHES = ("past_key_values", "cache")
"""What outputs call their cache of keys and values: until transformers 5.23, and since."""


def run_all(model: PreTrainedModel, sets: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """The outputs of a run on each set of inputs, by the number of the set and their name."""
    found = (run(model, inputs) for inputs in sets)
    return {f"{number}.{name}": value for number, outputs in enumerate(found) for name, value in outputs.items()}


def run(model: PreTrainedModel, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Floating outputs by name, nested ones as `name.0` or `name.key`; twice the same for the same arguments."""
    random.seed(0)
    np.random.seed(0)
    forget(model)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), in_single_steps():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        output = model(**inputs)
    return dict(_flat("", output))


def forget(model: torch.nn.Module) -> None:
    """Empty the caches that a model keeps between runs, such as OmDet-Turbo's for texts.

    Else a parameter could move, and what was computed with its old values would hide it.
    """
    for module in model.modules():
        for store in vars(module).values():
            if type(store).__name__.endswith("LRUCache"):
                store.cache.clear()
                store.current_load = 0


def _flat(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point() and value.numel():
            yield name or "output", value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in CACHES:
                yield from _flat(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _flat(f"{name}.{index}" if name else str(index), item)
