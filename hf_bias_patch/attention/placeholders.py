"""Sees tensors that hold nothing, as DeepSpeed ZeRO-3 leaves them where it keeps the values elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from hf_bias_patch.attention.sites import Tensor
from hf_bias_patch.checkpoint.quantised import PACKED_NAMES
from hf_bias_patch.checkpoint.shorten import listed
from hf_bias_patch.errors import CheckpointError

__all__ = ["refuse_placeholders"]


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
    """Whether an empty tensor should have values: it is a parameter, and no other form of it stands beside it."""
    module, _, kind = name.rpartition(".")
    weight = tensors.get(f"{module}.weight")
    if kind == "bias" and weight is not None and weight.shape[:1] == (0,) and len(weight.shape) > 1:
        return False  # a head for no labels at all
    packed = any(f"{module}.{each}" in tensors for each in PACKED_NAMES)
    return kind.endswith(("weight", "bias", "gamma", "beta")) and not packed
