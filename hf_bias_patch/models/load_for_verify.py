"""Loads the two models to compare, in a given dtype and attention implementation."""

from __future__ import annotations

import zlib
from typing import Any

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import VerifyError
from hf_bias_patch.models.classes import named_class
from hf_bias_patch.models.inputs.token_ids import first_known, pad_of, unknown_ids, vocabulary_size
from hf_bias_patch.models.load import Loaded, load_reported, refusing
from hf_bias_patch.models.source_files import folder_of

__all__ = ["TORCH_NAMES", "load_model"]

TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def load_model(source: Source, dtype: str, attention: str, device: str = "cpu") -> Loaded:
    """Load a checkpoint as the class it was saved from, else as `AutoModel`; the model is in evaluation mode.

    Parameters that the checkpoint lacks get values that depend on their name alone, so that two models that lack the
    same ones (a head that was never trained) can be compared at all.

    Args:
        source: where it lies.
        dtype: one of `F64`, `F32`, `F16`, `BF16`; every floating tensor is cast to it.
        attention: an attention implementation, such as `eager` or `sdpa`.
        device: `cpu`; or `meta` for a model without values, which tells by the headers alone what is loaded.

    Raises:
        VerifyError: transformers cannot load it that way.
    """
    import torch
    import transformers

    folder = folder_of(source)
    wanted: dict[str, Any] = {"dtype": getattr(torch, TORCH_NAMES[dtype]), "attn_implementation": attention}
    wanted |= {"local_files_only": True, **({} if device == "cpu" else {"device_map": device})}
    config = None

    def known_reason() -> str:
        return unknown_ids(folder, vocabulary_size(config))

    with refusing(VerifyError, source.name, f" in {TORCH_NAMES[dtype]} with {attention} attention", known_reason):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        stock = named_class((config.architectures or [""])[0], type(config))
        if dtype == "F64":
            wanted |= _without_lower_precision(config, stock)
        loaded = load_reported(folder, stock or transformers.AutoModel, **wanted)
    model = loaded.model.eval()
    _check_attention(model, attention, source.name)
    if first_known([getattr(model.config, "pad_token_id", None)], vocabulary_size(model.config)) is None:
        model.config.pad_token_id = pad_of(model.config)  # classifiers refuse batches without one
    _fill(model, loaded.missing)
    return loaded


def _without_lower_precision(config: Any, stock: Any) -> dict[str, Any]:
    """What a model is loaded with so that it computes in float64 throughout."""
    from hf_bias_patch.models.float64 import EXPERTS

    wanted: dict[str, Any] = {}
    if getattr(config, "reorder_and_upcast_attn", False):
        # GPT-2 can insist on float32 scores, against overflow in float16; the function is the same without.
        wanted["reorder_and_upcast_attn"] = False
    if getattr(stock, "_can_set_experts_implementation", bool)():
        wanted["experts_implementation"] = EXPERTS
    return wanted


def _check_attention(model: Any, attention: str, name: str) -> None:
    used = {getattr(part.config, "_attn_implementation", None) for part in model.modules() if hasattr(part, "config")}
    if used - {attention, None}:
        raise VerifyError(
            f"{name} uses {', '.join(sorted(map(str, used - {None})))} attention where {attention} was asked for",
            remedy=f"Leave {attention} out of the attention implementations to verify",
        )


def _fill(model: Any, missing: Any) -> None:
    import torch

    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in sorted(set(missing) & parameters.keys()):
        random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        values = torch.randn(parameters[name].shape, generator=random, dtype=torch.float64) * 0.02
        # Rounded first, so that it is the same value in every dtype.
        parameters[name].data.copy_(values.bfloat16())
