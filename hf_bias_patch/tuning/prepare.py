"""From a checkpoint to a model that is ready to train: loaded, patched, and only what was asked for trainable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import TuneError
from hf_bias_patch.patching.applying import apply
from hf_bias_patch.patching.recipe import make_recipe
from hf_bias_patch.scoring.tasks import Task
from hf_bias_patch.tuning import adapters
from hf_bias_patch.tuning.kinds import GlueSettings
from hf_bias_patch.tuning.loading import load_classifier, load_model
from hf_bias_patch.tuning.select import ADAPTERS, Selection, select
from hf_bias_patch.tuning.settings import Settings

if TYPE_CHECKING:
    from hf_bias_patch.patching.plan import Plan

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A model ready to train.

    Attributes:
        model: a transformers model, or a peft model around one.
        selection: what trains.
        plan: what was folded or dropped before; None if nothing.
        new: names of the parameters that the checkpoint did not hold.
        notes: what a person should know of the head.
    """

    model: Any
    selection: Selection
    plan: Plan | None
    new: tuple[str, ...]
    notes: tuple[str, ...] = ()


def prepare(settings: Settings, auto_class: Any, task: Task) -> Prepared:
    """Load a model with a head, patch it, and make trainable what the settings name.

    Args:
        settings: of the run.
        auto_class: a transformers Auto class, such as `AutoModelForSequenceClassification`.
        task: that the head is for.

    Raises:
        TuneError: the head in the checkpoint does not fit, or nothing would train.
        SourceError, CheckpointError, FamilyError, RecipeError, PlanError: as for `load`, `apply` and `select`.
    """
    place = settings.model_name_or_path
    if isinstance(settings, GlueSettings):
        ready = load_classifier(place, auto_class, task, new_head=settings.new_head)
    else:
        ready = load_model(place, auto_class)
    model: Any = ready.model
    new, plan = ready.new, None
    if settings.fold or settings.drop:
        plan = apply(model, make_recipe(fold=settings.fold, drop=settings.drop)).plan
    head = bool(new) if settings.train_head is None else settings.train_head
    if settings.train in ADAPTERS:
        model, selection = adapters.add(model, settings.train, head=head, new=new)
    else:
        selection = select(
            model,
            settings.train,
            head=head,
            new=new,
            freeze=settings.freeze,
            redundant=settings.train_redundant,
        )
    if not selection.trained:
        raise TuneError(
            f"Nothing would train: train is {settings.train}, and the head does not train",
            remedy="Say --train_head, --new_head for one that begins anew, or another --train",
        )
    if settings.gradient_checkpointing:
        _keep_no_activations(model)
    return Prepared(model, selection, plan, new, ready.notes)


def _keep_no_activations(model: Any) -> None:
    """Not reentrant: then nothing below the lowest trained parameter needs a gradient."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.config.use_cache = False
