"""Loads variants of either storage as transformers models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.checkpoint.leftovers import working_folder
from hf_bias_patch.checkpoint.sidecar import is_patch_only
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import CheckpointError
from hf_bias_patch.patching.patch_only import read_patch
from hf_bias_patch.patching.rebuild import fetch_base, rebuild
from hf_bias_patch.patching.record import BLOCK, block_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["load"]


def load(path: str | os.PathLike[str], auto_class: Any = None, **kwargs: Any) -> PreTrainedModel:
    """Load a variant, or any other checkpoint, as a transformers model.

    A variant that was published without its weights is made of its base first, in the Hub's cache, for as long as
    loading takes; `pull` makes a folder that stays.

    Args:
        path: a folder, `embedded:NAME` or a Hub id (`owner/name@REVISION`).
        auto_class: a transformers Auto class, such as `AutoModelForMaskedLM`, or a model class; by default the
            class the checkpoint was saved from (`architectures` in its config.json).
        kwargs: passed on to `from_pretrained`, such as `dtype`.

    Returns:
        The model in evaluation mode. Biases that are absent from a variant are no parameters of it.

    Raises:
        SourceError, CheckpointError: the path leads nowhere, or config.json names no class that can be loaded; or as
            for `pull`.
    """
    source = resolve(path)
    if source.path.is_dir() and is_patch_only(source.path):
        with _rebuilt(source) as variant:
            return _load(variant, auto_class, kwargs)
    return _load(source.path if source.path.is_dir() else source.path.parent, auto_class, kwargs)


@contextmanager
def _rebuilt(published: Source) -> Iterator[Path]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)  # on the disk that the base is on
    cache.mkdir(parents=True, exist_ok=True)
    with working_folder(cache, "rebuilt") as place:
        variant = place / "variant"
        rebuild(published, fetch_base(read_patch(published.path)), variant)
        yield variant


def _load(folder: Path, auto_class: Any, kwargs: dict[str, Any]) -> PreTrainedModel:
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=kwargs.get("trust_remote_code", False))
    stock = _class_of(auto_class, config, folder)
    absent = set(block_of({BLOCK: getattr(config, BLOCK, None)}).get("absent", ()))
    # A stock loader adds them again, as zeros that may be trained: once saved, they are parameters like any other.
    if absent and not absent & set(open_checkpoint(folder).tensors):
        from hf_bias_patch.patching.absent import without_biases

        stock = without_biases(stock)
    loaded: PreTrainedModel = stock.from_pretrained(folder, **kwargs)
    return loaded


def _class_of(auto_class: Any, config: Any, folder: Path) -> Any:
    import transformers

    if auto_class is None:
        name = (config.architectures or [""])[0]
        if not hasattr(transformers, name or "-"):
            raise CheckpointError(
                f"{folder}/config.json names no architecture that transformers has ({name or 'none'})",
                remedy="Pass an Auto class, such as transformers.AutoModel",
            )
        return getattr(transformers, name)
    mapping = getattr(auto_class, "_model_mapping", None)
    if mapping is None:
        return auto_class
    if type(config) not in mapping:
        raise CheckpointError(f"{auto_class.__name__} has no class for the model type {config.model_type!r}")
    return mapping[type(config)]
