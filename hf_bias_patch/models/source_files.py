"""What is read of a checkpoint beside the model: its folder, config and tokenizer, and hashes of its weight files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.checkpoint import open_model
from hf_bias_patch.checkpoint.pickled import is_pickled, pickle_files
from hf_bias_patch.checkpoint.sidecar import ADAPTER_WEIGHTS, is_adapter_alone, is_patch_only
from hf_bias_patch.checkpoint.source import Source, sha256_of
from hf_bias_patch.errors import CheckpointError, SourceError
from hf_bias_patch.models.load import quiet

__all__ = ["folder_of", "load_config", "load_tokenizer", "read_config", "weight_files"]

_TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model", "*.vocab", "*.tiktoken", "tekken.json")


def folder_of(source: Source) -> Path:
    """The folder that transformers loads."""
    return source.path if source.path.is_dir() else source.path.parent


def load_config(source: Source) -> Any:
    """The checkpoint's config, as transformers has it.

    Raises:
        CheckpointError: there is none, or none that transformers itself can use.
        SourceError: it was published as a patch alone, which is no checkpoint yet.
    """
    folder = folder_of(source)
    if is_patch_only(folder):
        raise SourceError(
            f"{source.name} was published without its weights",
            remedy=f"Make a folder of it first: `hf-bias-patch pull {source.name} FOLDER`",
        )
    if is_adapter_alone(folder):
        raise CheckpointError(
            f"{source.name} is a peft adapter, not a model",
            remedy="Give the merged model, which `tune` leaves in `model` beside it, or merge it (peft's "
            "`merge_and_unload`) and save that",
        )
    remedy = (
        "Give a checkpoint whose config.json names a model type of transformers: old ones may lack it (add "
        '"model_type": "bert", say). Code that comes with a checkpoint is never run here'
    )
    return read_config(folder, source.name, remedy)


def read_config(folder: Path, name: str, remedy: str = "") -> Any:
    """The config in a folder, as transformers has it.

    Raises:
        CheckpointError: there is none, or none that transformers itself can use.
    """
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each way of being wrong has its own
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise CheckpointError(f"{name} has no config that transformers can use", why, remedy) from error


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


def weight_files(source: Source) -> dict[str, str]:
    """The weight files of a checkpoint, a pickle's or an adapter's too: name to sha256."""
    folder = folder_of(source)
    if is_adapter_alone(folder):
        return sha256_of(source, [ADAPTER_WEIGHTS])
    return sha256_of(source, pickle_files(folder) if is_pickled(folder) else open_model(source.path).files)
