"""Loads the two models to compare, in a given dtype and attention implementation, with a record of how it went."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import BiasPatchError, VerifyError
from hf_bias_patch.models.inputs.token_ids import first_known, pad_of, unknown_ids, vocabulary_size
from hf_bias_patch.models.load import load

__all__ = ["Loaded", "folder_of", "load_model", "load_tokenizer", "quiet"]

_TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model", "*.vocab", "*.tiktoken", "tekken.json")
TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode.

    Attributes:
        model: a transformers model.
        missing: parameters and buffers that the checkpoint lacks, under the model's names.
        unexpected: tensors of the checkpoint that the model has no use for.
        errors: what else went wrong.
    """

    model: Any
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def report(self) -> tuple[str, ...]:
        """What did not fit, as `missing NAME`, `unexpected NAME` and `error TEXT`; best empty."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "error": self.errors}
        return tuple(f"{kind} {name}" for kind, names in kinds.items() for name in names)


def folder_of(source: Source) -> Path:
    """The folder that transformers loads."""
    return source.path if source.path.is_dir() else source.path.parent


def load_model(source: Source, dtype: str, attention: str, device: str = "cpu") -> Loaded:
    """Load a checkpoint as the class it was saved from, else as `AutoModel`.

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

    from hf_bias_patch.family_check.small_models.classes import class_named

    folder = folder_of(source)
    wanted = {
        "dtype": getattr(torch, TORCH_NAMES[dtype]),
        "attn_implementation": attention,
        "output_loading_info": True,
        "local_files_only": True,
        **({} if device == "cpu" else {"device_map": device}),
    }
    config = None
    with quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            if dtype == "F64" and getattr(config, "reorder_and_upcast_attn", False):
                # GPT-2 can insist on float32 scores, against overflow in float16; the function is the same without.
                wanted["reorder_and_upcast_attn"] = False
            stock = class_named(config)
            if dtype == "F64" and getattr(stock, "_can_set_experts_implementation", bool)():
                wanted["experts_implementation"] = "eager"  # nothing fused: it knows no float64
            model, info = load(folder, stock or transformers.AutoModel, **wanted)
        except BiasPatchError:
            raise
        except Exception as error:  # transformers raises whatever comes up inside it
            if "ignore_mismatched_sizes" in str(error):  # it says no more than "look at the above report"
                raise VerifyError(
                    f"The tensors of {source.name} do not have the shapes that config.json asks for",
                    remedy="Use the config.json that was saved with these weights",
                ) from error
            raise VerifyError(
                f"{source.name} cannot be loaded in {TORCH_NAMES[dtype]} with {attention} attention",
                why=f"{type(error).__name__}: {str(error).strip()}",
                remedy=unknown_ids(folder, vocabulary_size(config)),
            ) from error
    _check_attention(model, attention, source.name)
    if first_known([getattr(model.config, "pad_token_id", None)], vocabulary_size(model.config)) is None:
        model.config.pad_token_id = pad_of(model.config)  # classifiers refuse batches without one
    _fill(model, info["missing_keys"])
    errors = (*(f"mismatched {name}" for name in _names(info, "mismatched_keys")), *_names(info, "error_msgs"))
    return Loaded(model.eval(), _names(info, "missing_keys"), _names(info, "unexpected_keys"), errors)


def load_tokenizer(source: Source) -> Any | None:
    """The checkpoint's tokenizer, or None if it has none that can be loaded."""
    import transformers

    # transformers makes up an empty tokenizer for some model types where the files are missing.
    if not any(any(folder_of(source).glob(pattern)) for pattern in _TOKENIZER_FILES):
        return None
    with quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(folder_of(source), local_files_only=True)
        except Exception:  # a missing file, a missing library, a class of its own: all mean that there is none
            return None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing load reports and progress bars; what matters goes into the certificate."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


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


def _names(info: dict[str, Any], key: str) -> tuple[str, ...]:
    return tuple(sorted(map(str, info.get(key) or ())))
