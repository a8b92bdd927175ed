"""Loads a checkpoint for a probe: float64, attention in single steps, evaluation mode."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hf_bias_patch.architecture.refusals import refuse_countless
from hf_bias_patch.checkpoint.checkpoint import Checkpoint
from hf_bias_patch.checkpoint.quantised import quantised
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.classes import remote_class, stock_class
from hf_bias_patch.models.float64 import EXPERTS, attention_of
from hf_bias_patch.models.load import load_reported, refusing
from hf_bias_patch.models.memory import require_to_probe

__all__ = ["load_double"]


def load_double(checkpoint: Checkpoint, name: str, *, trust_remote_code: bool = False) -> Any:
    """A checkpoint as a transformers model: the class it was saved from, else `AutoModel`.

    Args:
        checkpoint: an open checkpoint.
        name: what the user calls it.
        trust_remote_code: whether Python code that comes with the checkpoint may run.

    Raises:
        VerifyError: it does not fit into memory, is quantised, needs code that is not trusted, cannot be loaded, or its
            tensors are not those of the model that config.json describes.
    """
    import torch

    config = checkpoint.config
    require_to_probe(checkpoint.parameters, name)
    refuse_countless(config, checkpoint.tensors)
    if (found := quantised(config, checkpoint.tensors)) is not None:
        raise VerifyError(
            f"{name} cannot be probed: {found.what}",
            why="A probe moves weights in float64",
            remedy=f"If the weights are meant to be plain, take `{found.key}` out of config.json"
            if found.leftover
            else "Probe the checkpoint that was quantised, as it was before",
        )
    how: dict[str, Any] = {"dtype": torch.float64, "local_files_only": True}
    how["attn_implementation"] = attention_of(config.get("model_type"))
    with refusing(VerifyError, name, " in float64 with eager attention"):
        if trust_remote_code and config.get("auto_map"):
            chosen = remote_class(config)
            how["trust_remote_code"] = True
        else:
            chosen = stock_class(config, name)
            how |= {"experts_implementation": EXPERTS} if chosen._can_set_experts_implementation() else {}
        loaded = load_reported(checkpoint.folder, chosen, **how)
    _require_own_tensors(loaded.model, loaded.missing, config, name)
    return loaded.model.double().eval()


def _require_own_tensors(model: Any, missing: Collection[str], config: dict[str, Any], name: str) -> None:
    """Refuse a model that is mostly not in the checkpoint: transformers fills it with random values."""
    sizes = {key: parameter.numel() for key, parameter in model.named_parameters()}
    lacking = [key for key in missing if key in sizes]
    if 2 * sum(sizes[key] for key in lacking) <= sum(sizes.values()):
        return
    raise VerifyError(
        f"{name} lacks most tensors of a model of type {config.get('model_type')}, the first of them {min(lacking)}",
        why="Transformers would fill them at random, and the probe would measure that",
        remedy="Use the config.json that was saved with these weights",
    )
