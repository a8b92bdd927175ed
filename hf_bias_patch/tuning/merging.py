"""The tensors of a stock model out of those of a peft model: where they are all there is of it.

Of a model in shards, peft's own merging would work on one process's part; the tensors that were gathered are whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["merged_state", "stock_state"]

_WRAPPED = "base_model.model."


def stock_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a model around which peft put an adapter, under their own names and without the adapter's.

    Args:
        state: of the peft model, or of the model inside of it.
    """
    names = {name: name.removeprefix(_WRAPPED).replace(".base_layer.", ".") for name in state}
    return {own: state[name] for name, own in names.items() if not own.endswith(".default") and ".default." not in own}


def merged_state(wrapped: Any, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of the stock model into which LoRA, or BEFT on maps that have a bias, is merged.

    Args:
        wrapped: the peft model; only its structure is read.
        state: all of its tensors, whole.
    """
    merged = stock_state(state)
    for name, layer in wrapped.get_base_model().named_modules():
        if hasattr(layer, "beft_bias"):
            vector = state[f"{_WRAPPED}{name}.beft_bias.default"].flatten()
            merged[f"{name}.bias"] = merged[f"{name}.bias"] + vector
        elif hasattr(layer, "lora_A"):
            down, up = (state[f"{_WRAPPED}{name}.lora_{part}.default.weight"] for part in "AB")
            product = (up @ down) * layer.scaling["default"]
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + (product.T if layer.fan_in_fan_out else product)
    return merged
