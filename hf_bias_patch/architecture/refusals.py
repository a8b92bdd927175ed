"""Refuses checkpoints that no model can be built from: empty tensors, or a config.json with far too many modules.

DeepSpeed ZeRO-3 leaves placeholders where it keeps the values elsewhere. Transformers makes a module for each layer
that config.json counts, before it looks at a single tensor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hf_bias_patch.architecture.sites import Tensor
from hf_bias_patch.checkpoint.quantised import PACKED_NAMES
from hf_bias_patch.checkpoint.shorten import brief, listed
from hf_bias_patch.errors import CheckpointError

__all__ = ["refuse_countless", "refuse_placeholders"]

_COUNTS = re.compile(r"(.*_)?(n?_?layers?|depths?|blocks|stages|experts|codebooks|quantizers)(_.*)?", re.IGNORECASE)
_FREE = 1000
"""What a count may always be: some count what has no tensors."""


def refuse_countless(config: Mapping[str, Any], tensors: Collection[str]) -> None:
    """Refuse counts of modules that are far beyond the number of tensors; to be called before a model is made.

    Args:
        config: a parsed config.json.
        tensors: names of the checkpoint's tensors.

    Raises:
        CheckpointError: there is one; it is named.
    """
    most = max(_FREE, 10 * len(tensors))
    for key, value in _numbers(config):
        if value > most:
            raise CheckpointError(
                f"config.json: `{key}` is {brief(value)}, and the checkpoint has {len(tensors):,} tensors",
                why="A model of that size would not fit into memory",
                remedy="Use the config.json that was saved with these weights",
            )


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every count of modules in a config, and in those inside it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", count) for inner, count in _numbers(value))
        elif _COUNTS.fullmatch(key):
            several = value if isinstance(value, list) else [value]
            yield from ((key, count) for count in several if isinstance(count, int | float))


def refuse_placeholders(tensors: Mapping[str, Tensor]) -> None:
    """Refuse a model that has such in the place of its parameters.

    Args:
        tensors: parameter name → dtype and shape, of a checkpoint or of a model in memory.

    Raises:
        CheckpointError: there are such.
    """
    empty = sorted(name for name, tensor in tensors.items() if tensor.shape == (0,) and _is_missing(name, tensors))
    if not empty:
        return
    raise CheckpointError(
        f"{len(empty):,} of {len(tensors):,} tensors are empty (shape [0]): {listed(empty)}",
        why="They are placeholders of DeepSpeed ZeRO-3: the values were spread over several processes, and were not "
        "gathered when the model was saved",
        remedy="Make whole weights with the zero_to_fp32.py that DeepSpeed puts beside its checkpoints, or save again "
        "with `stage3_gather_16bit_weights_on_model_save: true` (in memory: inside deepspeed.zero.GatheredParameters)",
    )


def _is_missing(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether an empty tensor should have values: it is a parameter, and its module has no quantised form of it."""
    module, _, kind = name.rpartition(".")
    weight = tensors.get(f"{module}.weight")
    if kind == "bias" and weight is not None and weight.shape[:1] == (0,) and len(weight.shape) > 1:
        return False  # a head for no labels at all
    packed = any(f"{module}.{each}" in tensors for each in PACKED_NAMES)
    return kind.endswith(("weight", "bias", "gamma", "beta")) and not packed
