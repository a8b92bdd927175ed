"""A model with its tokenizer and a head that suits a kind of task, from whatever MODEL may be."""

from __future__ import annotations

from typing import Any

from hf_bias_patch.checkpoint.sidecar import is_patch_only
from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import BiasPatchError, CheckpointError, SourceError, TaskError
from hf_bias_patch.evidence.models import folder_of, load_tokenizer, quiet
from hf_bias_patch.evidence.retrace import weight_files
from hf_bias_patch.patching.loading import load
from hf_bias_patch.patching.record import public_name
from hf_bias_patch.scoring.adapters import adapter_base, is_adapter, load_adapter
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.forms import form_of_class, require_form
from hf_bias_patch.scoring.measures import Kind

__all__ = ["load_config", "load_scorable", "scored"]


def load_config(source: Source) -> Any:
    """The checkpoint's config, as transformers has it.

    Raises:
        CheckpointError: there is none, or none that transformers itself can use.
        SourceError: it was published as a patch alone, which is no checkpoint yet.
    """
    import transformers

    folder = folder_of(source)
    if is_patch_only(folder):
        raise SourceError(
            f"{source.name} was published without its weights",
            remedy=f"Make a folder of it first: `hf-bias-patch pull {source.name} FOLDER`",
        )
    if is_adapter(source):
        raise CheckpointError(
            f"{source.name} is a peft adapter, and no model by itself",
            remedy="Take the merged model, which `tune` leaves in `model` beside it, or merge it (peft's "
            "`merge_and_unload`) and save that",
        )
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each way of being wrong has its own
        raise CheckpointError(
            f"{source.name} has no config that transformers can use",
            why=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}",
            remedy="Take a checkpoint with a config.json of a model type that transformers has, which an old one may "
            'lack (add "model_type": "bert", say); code that comes with one is never run here',
        ) from error


def load_scorable(model: str, kind: Kind, *, device: str | None = None, dtype: str = "float32") -> tuple[Any, Any]:
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
        raise SourceError(f"{source.name} has no tokenizer that can be loaded", why="Tasks are made of texts")
    return found.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), tokenizer


def scored(model: str) -> dict[str, Any]:
    """Which model scores are of, as JSON values: its name, and the sha256 of its weight files."""
    source = resolve(model)
    return {"name": public_name(source), "sha256": weight_files(source)}


def _load_model(source: Source, kind: Kind, dtype: Any) -> Any:
    config = load_config(source)
    require_form(kind, form_of_class((config.architectures or [""])[0]), source.name)
    try:
        with quiet():
            loaded: Any = load(folder_of(source), dtype=dtype, output_loading_info=True)
    except BiasPatchError:
        raise
    except Exception as error:  # transformers raises whatever comes up inside it
        raise CheckpointError(
            f"{source.name} cannot be loaded", why=f"{type(error).__name__}: {str(error).strip()}"
        ) from error
    found, report = loaded
    if missing := sorted(map(str, report["missing_keys"])):
        raise TaskError(
            f"{source.name} lacks {len(missing)} parameters, such as {missing[0]}",
            why="They would be drawn at random, and so would the scores",
            remedy="Take a checkpoint that was saved with its head, or tune one: `hf-bias-patch tune`",
        )
    return found
