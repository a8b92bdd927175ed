"""From a checkpoint to a model that is ready to train: loaded, and only what the settings name trainable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_bias_patch.checkpoint.sidecar import ADAPTER
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import TuneError
from hf_bias_patch.models.source_files import folder_of
from hf_bias_patch.patching.record import BLOCK, untouchable
from hf_bias_patch.scoring.tasks import Task
from hf_bias_patch.tuning import adapters
from hf_bias_patch.tuning.adapter_folder import (
    AdapterBase,
    AdapterFolder,
    NoAdapterError,
    adapter_folder,
    base_of,
    linear_biases,
)
from hf_bias_patch.tuning.loading import load_classifier, load_model
from hf_bias_patch.tuning.set_trainable import ADAPTERS, set_trainable
from hf_bias_patch.tuning.settings import TuneSettings
from hf_bias_patch.tuning.starting_checkpoint import StartingCheckpoint
from hf_bias_patch.tuning.task_settings import GlueSettings
from hf_bias_patch.tuning.trainable import Trainable

__all__ = ["PreparedModel", "prepare_model"]

_RANDOM_HEAD = "The head is new and does not train: it stays random, and scores are at chance level"


@dataclass(frozen=True)
class PreparedModel:
    """A model ready to train.

    Attributes:
        model: a transformers model, or a peft model around one.
        selection: what trains.
        new: names of the parameters that the checkpoint did not hold.
        adapter: what is written for peft at the end; None if peft cannot express it.
        no_adapter: why not, in one sentence.
        notes: on the head, for the user.
    """

    model: Any
    selection: Trainable
    new: tuple[str, ...]
    adapter: AdapterFolder | None = None
    no_adapter: str = ""
    notes: tuple[str, ...] = ()


def prepare_model(settings: TuneSettings, start: StartingCheckpoint, auto_class: Any, task: Task) -> PreparedModel:
    """Load a model with a head, and make trainable what the settings name.

    Args:
        settings: of the run.
        start: the checkpoint to load.
        auto_class: a transformers Auto class, such as `AutoModelForSequenceClassification`.
        task: that the head is for.

    Raises:
        TuneError: the head in the checkpoint does not fit, or nothing would train.
        SourceError, CheckpointError, FamilyError, RecipeError: as for `load` and `set_trainable`.
    """
    _refuse_adapter(start.source)
    if isinstance(settings, GlueSettings):
        ready = load_classifier(start.loaded, auto_class, task, new_head=settings.new_head)
    else:
        ready = load_model(start.loaded, auto_class)
    model: Any = ready.model
    new, biases = ready.new, linear_biases(model)
    kept = untouchable({BLOCK: getattr(model.config, BLOCK, None)})
    head = bool(new) if settings.train_head is None else settings.train_head
    if settings.train in ADAPTERS:
        how: dict[str, Any] = {"rank": settings.lora_rank, "alpha": settings.lora_alpha, "kept": kept}
        model, selection = adapters.add(model, settings.train, head=head, new=new, **how)
    else:
        selection = set_trainable(
            model,
            settings.train,
            head=head,
            new=new,
            freeze=settings.freeze,
            kept=kept,
            redundant=settings.train_redundant,
        )
    if not selection.trained:
        raise TuneError(
            f"Nothing would train: train is {settings.train}, and the head does not train",
            remedy="Add --train-head, or --new-head to start with a new head, or give another --train",
        )
    if settings.gradient_checkpointing:
        _keep_no_activations(model)
    notes = ready.notes if head or not new else (*ready.notes, _RANDOM_HEAD)
    try:
        adapter = adapter_folder(model, selection, _base(start), biases, new=new)
    except NoAdapterError as reason:
        return PreparedModel(model, selection, new, no_adapter=str(reason), notes=notes)
    return PreparedModel(model, selection, new, adapter, notes=notes)


def _base(start: StartingCheckpoint) -> AdapterBase:
    """What an adapter is loaded on.

    Raises:
        NoAdapterError: it is not stored anywhere, or peft cannot load it.
    """
    if start.loaded is not start.source:
        raise NoAdapterError(
            "the model was patched before training, so the adapter's base is stored nowhere (patch first, and tune the "
            "variant: then the variant is the base)"
        )
    return base_of(start.source)


def _refuse_adapter(source: Source) -> None:
    if (folder_of(source) / ADAPTER).is_file():
        raise TuneError(
            f"{source.name} holds an adapter beside its model",
            why="Training starts from the model alone, without what the adapter adds",
            remedy="Start from the model that it was trained from",
        )


def _keep_no_activations(model: Any) -> None:
    """Gradient checkpointing; not reentrant, so that nothing below the lowest trained parameter needs a gradient."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.config.use_cache = False
