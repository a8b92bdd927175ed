"""Loads a peft adapter onto its base to be scored, with the head that was trained; all of it must fit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.sidecar import ADAPTER, SIDE_FOLDER, is_adapter_alone
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import CheckpointError, SourceError, TaskError
from hf_bias_patch.models.load import load_reported, quiet, refusing
from hf_bias_patch.models.source_files import folder_of, read_config
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.heads import AUTO_CLASSES, HeadKind, head_kind_of_class, require_head
from hf_bias_patch.scoring.metric_info import TaskKind

__all__ = ["PEFT_PREFIX", "adapter_base", "is_adapter", "load_adapter"]

_HEADS: dict[str, HeadKind] = {"SEQ_CLS": "classifier", "CAUSAL_LM": "causal", "SEQ_2_SEQ_LM": "seq2seq"}
PEFT_PREFIX = "base_model.model."
"""Before each name of a parameter in a peft model and in an adapter's file."""


def is_adapter(source: Source) -> bool:
    """Whether a folder holds an adapter alone; transformers itself loads one that is beside a whole model."""
    return is_adapter_alone(folder_of(source))


def adapter_base(source: Source) -> Source:
    """The base that an adapter names.

    Raises:
        CheckpointError: its config cannot be read, or names none.
        SourceError: the base is not there.
    """
    config = _config(source)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{source.name} is an adapter, and its {ADAPTER} names no base_model_name_or_path")
    try:
        return resolve(name, revision=None if Path(name).exists() else revision)
    except SourceError as error:
        raise SourceError(
            f"The base of the adapter {source.name}, {name}{f' at {revision}' if revision else ''}, is missing",
            why=str(error),
            remedy=f"Put it there, or set base_model_name_or_path in {folder_of(source) / ADAPTER} to where it is",
        ) from error


def load_adapter(source: Source, kind: TaskKind, dtype: Any) -> Any:
    """The base with the adapter on it, not merged, and the head that was trained with it.

    Args:
        source: a folder for which `is_adapter` holds.
        kind: of the task.
        dtype: of torch.

    Returns:
        A transformers model in evaluation mode, whose adapted layers are peft's.

    Raises:
        SourceError, CheckpointError: as for `adapter_base`.
        TaskError: it has no head for the task, or does not fit the base.
    """
    import transformers

    need("peft")
    base = adapter_base(source)
    tensors = _tensors(source)
    head = require_head(kind, _head_kind(source, base), source.name)
    auto_class = getattr(transformers, AUTO_CLASSES[head])
    config = _model_config(source, base, auto_class, tensors)
    with refusing(CheckpointError, f"{base.name}, the base of the adapter {source.name},"):
        # A head of another size is replaced by the adapter's, or named as lost.
        found = load_reported(folder_of(base), auto_class, config=config, dtype=dtype, ignore_mismatched_sizes=True)
    with quiet():
        _make_room(found.model, tensors)
        whole = _put_on(source, base, found.model, tensors)
    known = {name.removeprefix(PEFT_PREFIX) for name in tensors}
    if lost := {*found.missing, *found.mismatched} - known:
        raise TaskError(
            f"{source.name} and its base {base.name} lack {len(lost)} parameters, such as {min(lost)}",
            why="They would be random, and so would the scores",
            remedy="Use an adapter that was saved with its head (peft's `modules_to_save`), or tune one: "
            "`hf-bias-patch tune`",
        )
    return whole


def _config(source: Source) -> dict[str, Any]:
    path = folder_of(source) / ADAPTER
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read", why=str(error)) from error
    if not isinstance(found, dict) or "peft_type" not in found:
        raise CheckpointError(f"{path} is not the config of an adapter", why="It has no peft_type")
    return found


def _tensors(source: Source) -> dict[str, Any]:
    from peft.utils.save_and_load import load_peft_weights

    folder = folder_of(source)
    if not any((folder / f"adapter_model.{ending}").is_file() for ending in ("safetensors", "bin")):
        raise CheckpointError(f"{source.name} has no adapter_model.safetensors")
    try:
        found: dict[str, Any] = load_peft_weights(str(folder), device="cpu")
    except Exception as error:  # each way of being damaged has its own
        raise CheckpointError(
            f"The tensors of the adapter {source.name} cannot be read", why=f"{type(error).__name__}: {error}"
        ) from error
    return found


def _head_kind(source: Source, base: Source) -> HeadKind | None:
    """From the adapter's task type; else from the class that it was trained on, or that the base was saved from."""
    config = _config(source)
    if config.get("task_type") is not None:
        return _HEADS.get(config["task_type"])
    name = (config.get("auto_mapping") or {}).get("base_model_class")
    return head_kind_of_class(name or (_base_config(base).architectures or [""])[0])


def _base_config(base: Source) -> Any:
    return read_config(folder_of(base), f"{base.name}, the base of the adapter,")


def _model_config(source: Source, base: Source, auto_class: Any, tensors: Mapping[str, Any]) -> Any:
    """The trained model's config: as `tune` left it, else the base's with as many labels as the head has."""
    import torch

    # `tune` leaves the trained model's config.json there, with its labels' names: the base has its own. Not beside
    # adapter_config.json, where transformers takes it for that of a whole model.
    own = folder_of(source) / SIDE_FOLDER
    if (own / "config.json").is_file():
        return read_config(own, f"The folder {own}")
    config = _base_config(base)
    with torch.device("meta"):
        empty = auto_class.from_config(config).state_dict()
    for name, tensor in tensors.items():
        stock = empty.get(name.removeprefix(PEFT_PREFIX))
        if stock is not None and tensor.shape[1:] == stock.shape[1:] and len(tensor) != len(stock) == config.num_labels:
            config.num_labels = len(tensor)
            break
    return config


def _make_room(model: Any, tensors: Mapping[str, Any]) -> None:
    """Resize the embeddings to those of the adapter, where tokens were added to its base."""
    embeddings = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embeddings)
    brought = tensors.get(f"{PEFT_PREFIX}{name}.weight")
    if brought is not None and len(brought) != len(embeddings.weight):
        model.resize_token_embeddings(len(brought), mean_resizing=False)


def _put_on(source: Source, base: Source, model: Any, tensors: Mapping[str, Any]) -> Any:
    import peft

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is refused below
            config = peft.PeftConfig.from_pretrained(str(folder_of(source)))
            if config.is_prompt_learning:
                raise TaskError(
                    f"{source.name} is an adapter of the kind {config.peft_type.value}",
                    why="It adds tokens before the text, which moves the outputs that scores are read from",
                    remedy="Use one that changes layers, such as LoRA",
                )
            wrapped = peft.PeftModel.from_pretrained(model, str(folder_of(source)), autocast_adapter_dtype=False)
            taken = peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(
            f"The adapter {source.name} does not fit its base {base.name}",
            why=f"{type(error).__name__}: {' '.join(str(error).split())}",
            remedy="Use the base that it was trained on",
        ) from error
    whole = wrapped.state_dict().keys()  # embeddings are saved as they are, and are no part of the adapter to peft
    if others := sorted((taken.keys() - tensors.keys()) | (tensors.keys() - taken.keys() - whole)):
        has = "has a tensor that its base has no module for" if others[0] in tensors else "lacks a tensor"
        raise TaskError(
            f"The adapter {source.name} does not fit its base {base.name}: it {has}, {others[0]}",
            remedy="Use the base that it was trained on",
        )
    return wrapped.get_base_model().eval()
