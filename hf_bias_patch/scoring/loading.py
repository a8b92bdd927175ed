"""A model with its tokenizer and a head that suits a kind of task, from whatever MODEL may be."""

from __future__ import annotations

from typing import Any

from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import CheckpointError, SourceError, TaskError
from hf_bias_patch.models.load import load_reported, refusing
from hf_bias_patch.models.source_files import folder_of, load_config, load_tokenizer, weight_files
from hf_bias_patch.patching.record import public_name
from hf_bias_patch.scoring.adapters import adapter_base, is_adapter, load_adapter
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.heads import head_kind_of_class, require_head
from hf_bias_patch.scoring.metric_info import TaskKind

__all__ = ["load_scorable", "scored"]


def load_scorable(model: str, kind: TaskKind, *, device: str | None = None, dtype: str = "float32") -> tuple[Any, Any]:
    """Load a checkpoint, a variant of either storage, or a peft adapter on its base, to be scored as it is.

    Args:
        model: a folder, `embedded:NAME` or a Hub id.
        kind: of the task that it must have a head for.
        device: such as `cuda`; a GPU if there is one, if None.
        dtype: of torch, such as `bfloat16`.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        SourceError: MODEL or an adapter's base leads nowhere, or has no tokenizer.
        CheckpointError: its config is missing, damaged, or of no model type that transformers has; or its weights do
            not go with it.
        TaskError: it has no head for the task, or the head's values are not in its files; an adapter does not fit its
            base.
    """
    need("torch")
    import torch

    source = resolve(model)
    kind_of_number = getattr(torch, dtype)
    if is_adapter(source):
        tokenizer = load_tokenizer(source) or load_tokenizer(adapter_base(source))
        found = load_adapter(source, kind, kind_of_number)
    else:
        tokenizer = load_tokenizer(source)
        found = _load_model(source, kind, kind_of_number)
    if tokenizer is None:
        raise SourceError(
            f"{source.name} has no tokenizer that can be loaded",
            why="The texts of a task cannot be encoded without one",
        )
    return found.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), tokenizer


def scored(model: str) -> dict[str, Any]:
    """Which model scores are of, as JSON values: its name, and the sha256 of its weight files."""
    source = resolve(model)
    return {"name": public_name(source), "sha256": weight_files(source)}


def _load_model(source: Source, kind: TaskKind, dtype: Any) -> Any:
    config = load_config(source)
    require_head(kind, head_kind_of_class((config.architectures or [""])[0]), source.name)
    with refusing(CheckpointError, source.name):
        loaded = load_reported(folder_of(source), dtype=dtype)
    if missing := loaded.missing:
        raise TaskError(
            f"{source.name} lacks {len(missing)} parameters, such as {missing[0]}",
            why="They would be drawn at random, and so would the scores",
            remedy="Take a checkpoint that was saved with its head, or tune one: `hf-bias-patch tune`",
        )
    return loaded.model
