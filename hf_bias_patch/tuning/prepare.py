"""From a checkpoint to a model that is ready to train: loaded, and only what was asked for trainable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_bias_patch.checkpoint.sidecar import ADAPTER
from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import TuneError
from hf_bias_patch.evidence.models import folder_of
from hf_bias_patch.patching.record import BLOCK, untouchable
from hf_bias_patch.scoring.tasks import Task
from hf_bias_patch.tuning import adapters
from hf_bias_patch.tuning.adapter_folder import AdapterFolder, NoAdapterError, adapter_folder, linear_biases
from hf_bias_patch.tuning.base import Base, base_of
from hf_bias_patch.tuning.kinds import GlueSettings
from hf_bias_patch.tuning.loading import load_classifier, load_model
from hf_bias_patch.tuning.select import ADAPTERS, Selection, select
from hf_bias_patch.tuning.settings import Settings
from hf_bias_patch.tuning.start import Start

__all__ = ["Prepared", "prepare"]

_RANDOM_HEAD = "The head is new and does not train: it stays random, and the scores are those of chance"


@dataclass(frozen=True)
class Prepared:
    """A model ready to train.

    Attributes:
        model: a transformers model, or a peft model around one.
        selection: what trains.
        new: names of the parameters that the checkpoint did not hold.
        adapter: what is written for peft at the end; None if peft cannot express it.
        no_adapter: why not, in one sentence.
        notes: what a person should know of the head.
    """

    model: Any
    selection: Selection
    new: tuple[str, ...]
    adapter: AdapterFolder | None = None
    no_adapter: str = ""
    notes: tuple[str, ...] = ()


def prepare(settings: Settings, start: Start, auto_class: Any, task: Task) -> Prepared:
    """Load a model with a head, and make trainable what the settings name.

    Args:
        settings: of the run.
        start: the checkpoint to load.
        auto_class: a transformers Auto class, such as `AutoModelForSequenceClassification`.
        task: that the head is for.

    Raises:
        TuneError: the head in the checkpoint does not fit, or nothing would train.
        SourceError, CheckpointError, FamilyError, RecipeError: as for `load` and `select`.
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
        selection = select(
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
            remedy="Say --train_head, --new_head for one that begins anew, or another --train",
        )
    if settings.gradient_checkpointing:
        _keep_no_activations(model)
    notes = ready.notes if head or not new else (*ready.notes, _RANDOM_HEAD)
    try:
        adapter = adapter_folder(model, selection, _base(start), biases, new=new)
    except NoAdapterError as reason:
        return Prepared(model, selection, new, no_adapter=str(reason), notes=notes)
    return Prepared(model, selection, new, adapter, notes=notes)


def _base(start: Start) -> Base:
    """What an adapter is loaded on.

    Raises:
        NoAdapterError: nobody else has that.
    """
    if start.loaded is not start.source:
        raise NoAdapterError(
            "the model was patched before training, so that nothing that stays is the adapter's base (patch it first, "
            "and tune the variant: then the variant is the base)"
        )
    base = base_of(start.source)
    if base is None:
        raise NoAdapterError("the base is a patch without its weights, on which peft can load nothing")
    return base


def _refuse_adapter(source: Source) -> None:
    if (folder_of(source) / ADAPTER).is_file():
        raise TuneError(
            f"{source.name} holds an adapter beside its model",
            why="What it adds has no place in the model itself, where training begins",
            remedy="Begin from the model that it was trained from",
        )


def _keep_no_activations(model: Any) -> None:
    """Not reentrant: then nothing below the lowest trained parameter needs a gradient."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.config.use_cache = False
