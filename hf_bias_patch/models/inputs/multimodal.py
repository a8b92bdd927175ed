"""Inputs of models that take more than token ids: images, sound, time series, boxes, or several of them.

`random_inputs` knows what every model type wants. Nothing says which of their outputs'
positions are padding, so all are compared: with padding on the right, as here, each of them attends to something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["MultimodalBatch", "multimodal_batches"]

SETS = 3
"""Of random inputs."""


@dataclass(frozen=True)
class MultimodalBatch:
    """One set of inputs, as a model type wants them.

    Attributes:
        name: what they are, for the certificate.
        inputs: keyword arguments of the model's forward; floating ones are float64, to be cast, and hold values that
            the storage dtype has too, so that all runs see the very same.
        inner: whether hidden states and attention weights are worth comparing on it.
    """

    name: str
    inputs: dict[str, Any]
    inner: bool = False


def multimodal_batches(model: Any, seed: int, storage: torch.dtype) -> list[MultimodalBatch]:
    """Random inputs of several seeds; texts among them are padded, those of the last set are not, where that can be.

    Args:
        model: in float64.
        seed: of the values.
        storage: dtype that floating values are rounded to.

    Raises:
        VerifyError: the model runs on none that are known.
    """
    import torch
    from torch.utils._pytree import tree_map

    from hf_bias_patch.models.inputs.random_inputs import accepted_sets

    def rounded(value: Any) -> Any:
        floats = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(storage).double() if floats else value

    found = []
    for index in range(SETS):
        sets = accepted_sets(model, SETS * seed + index)
        inputs = tree_map(rounded, sets[index % len(sets)])  # with optional arguments, and without
        padding = _padded(inputs)
        if index == SETS - 1 and padding:
            inputs, padding = _without_padding(model, inputs)
        what = ", ".join(f"{name} {_shape(value)}" for name, value in inputs.items() if _shape(value))
        name = f"random inputs {index + 1}: {what}{'; texts are padded on the right' if padding else ''}"
        found.append(MultimodalBatch(name, inputs, inner=index == 0))
    return found


def _shape(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " and ".join(filter(None, map(_shape, value)))
    return "x".join(map(str, value.shape)) if hasattr(value, "shape") else ""


def _padded(inputs: Mapping[str, Any]) -> bool:
    mask = inputs.get("attention_mask")
    return mask is not None and "input_ids" in inputs and not bool(mask.all())


def _without_padding(model: Any, inputs: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The inputs with a mask of ones, and False; the inputs as they are, and True, if the model cannot run with it."""
    import torch

    from hf_bias_patch.models.run import run

    full = inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}
    try:
        run(model, full)
    except Exception:  # whatever code of any model type comes upon
        return inputs, True
    return full, False
