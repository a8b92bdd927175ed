"""Why the tensors are not those that config.json describes: the cause, where the files show it, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hf_bias_patch.architecture.family import family_of, is_known
from hf_bias_patch.architecture.model_type import type_of_class
from hf_bias_patch.architecture.sites import Tensor
from hf_bias_patch.architecture.suggest import alike
from hf_bias_patch.checkpoint.quantised import quantised
from hf_bias_patch.checkpoint.shorten import brief, listed
from hf_bias_patch.checkpoint.sidecar import LOADER
from hf_bias_patch.errors import CheckpointError

__all__ = ["BY_PROBE", "MisfitError", "MissingError", "NoAttentionError", "explained", "own_code"]

BY_PROBE = "Read that code, then `hf-bias-patch inspect MODEL --probe --trust-remote-code` measures it"
_ADAPTERS = (".lora_A.", ".lora_B.", ".lora_magnitude_vector", ".beft_", "lora_embedding_A")


class MisfitError(CheckpointError):
    """Tensors and config do not fit together; `explained` finds the cause."""


class MissingError(MisfitError):
    """A tensor is not there, or not under that name."""


class NoAttentionError(MissingError):
    """None of the tensors that config.json describes is there."""


def own_code(config: Mapping[str, Any]) -> str:
    """The class that a model of somebody's own code has, as `auto_map` names it; empty for stock models."""
    named = config.get("auto_map")
    classes = named.items() if isinstance(named, Mapping) else ()
    found = (str(place) for auto, place in classes if str(auto).startswith("AutoModel"))
    return next((place[:100] for place in found if LOADER[:-3] not in place), "")


def explained(error: MisfitError, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CheckpointError:
    """The error with its cause, where the files tell that.

    Args:
        error: what does not fit, and what else may be the cause.
        config: a parsed config.json with a model type that is known.
        tensors: parameter name → dtype and shape.
    """
    why, remedy = next(_causes(error, config, tensors), (error.why, error.remedy))
    return CheckpointError(error.what, why, remedy)


def _causes(error: MisfitError, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    missing = isinstance(error, MissingError)
    if place := own_code(config):
        yield (
            f"The model is made by code of its own (config.json: `auto_map` names {place}), which need not have the "
            f"tensors of a stock {config['model_type']} model",
            BY_PROBE,
        )
    wrapped = [name for name in tensors if ".base_layer." in name] if missing else []
    if wrapped:
        yield (
            f"{len(wrapped):,} of {len(tensors):,} tensors are called `.base_layer.`: they were saved with a peft "
            "adapter around them, and stock transformers does not find them",
            "Put the adapter into its model (peft's merge_and_unload) and save that",
        )
    adapters = sorted(name for name in tensors if any(part in name for part in _ADAPTERS)) if missing else []
    if adapters:
        yield (
            f"{len(adapters):,} of {len(tensors):,} tensors are an adapter's, the first of them {listed(adapters[:1])}",
            "Put the adapter into its model (peft's merge_and_unload) and save that",
        )
    found = quantised({}, tensors) if missing else None
    if found is not None:
        yield f"{found.what[:1].upper()}{found.what[1:]}", "Use the checkpoint as it was before it was quantised"
    if isinstance(error, NoAttentionError):
        yield from _of_another(config, tensors)


def _of_another(config: Mapping[str, Any], tensors: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What tells that config.json is of another model."""
    own = family_of(config)
    saved, names = type_of_class(config), alike(tensors)
    other = is_known(saved) and family_of({"model_type": saved}) != own
    remedy = "Use the config.json that was saved with these weights"
    if other:
        said = f"`model_type` is {brief(config['model_type'])}, and `architectures` names a {saved} model"
        yield f"config.json contradicts itself: {said}", remedy
    if names and own.attention and own.name not in names:
        word = "family" if len(names) == 1 else "families"
        yield (
            f"Its tensor names are those of the {word} {listed(names)}, so it is of another type",
            f"{remedy}, or say another --model-type where you gave one",
        )
