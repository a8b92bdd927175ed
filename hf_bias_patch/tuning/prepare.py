"""From a checkpoint to a model that is ready to train: loaded, patched, and only what was asked for trainable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.source import Source, resolve
from hf_bias_patch.errors import BiasPatchError, TuneError
from hf_bias_patch.evidence.models import folder_of, quiet
from hf_bias_patch.patching.applying import apply
from hf_bias_patch.patching.loading import load
from hf_bias_patch.patching.recipe import make_recipe
from hf_bias_patch.scoring.adapters import CONFIG
from hf_bias_patch.tuning import adapters
from hf_bias_patch.tuning.adapter_folder import AdapterFolder, NoAdapterError, adapter_folder, linear_biases
from hf_bias_patch.tuning.base import base_of
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
        adapter: what is written for peft at the end; None if peft cannot express it.
        no_adapter: why not, in one sentence.
    """

    model: Any
    selection: Selection
    plan: Plan | None
    new: tuple[str, ...]
    adapter: AdapterFolder | None = None
    no_adapter: str = ""


def prepare(settings: Settings, auto_class: Any, **config: Any) -> Prepared:
    """Load a model with a head, patch it, and make trainable what the settings name.

    Args:
        settings: of the run.
        auto_class: a transformers Auto class, such as `AutoModelForSequenceClassification`.
        config: values of its config, such as `num_labels`.

    Raises:
        TuneError: the head in the checkpoint does not fit, or nothing would train.
        SourceError, CheckpointError, FamilyError, RecipeError, PlanError: as for `load`, `apply` and `select`.
    """
    source = resolve(settings.model_name_or_path)
    _refuse_adapter(source)
    model, new = _load(settings.model_name_or_path, auto_class, config)
    biases = linear_biases(model)
    plan = None
    if settings.fold or settings.drop:
        plan = apply(model, make_recipe(fold=settings.fold, drop=settings.drop)).plan
    head = bool(new) if settings.train_head is None else settings.train_head
    if settings.train in ADAPTERS:
        rank, alpha = settings.lora_rank, settings.lora_alpha
        model, selection = adapters.add(model, settings.train, head=head, new=new, rank=rank, alpha=alpha)
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
            remedy="Say --train_head, or another --train",
        )
    if settings.gradient_checkpointing:
        _keep_no_activations(model)
    base, patched = base_of(source), plan.touched if plan is not None else ()
    try:
        adapter = adapter_folder(model, selection, base, biases, new=new, patched=patched)
    except NoAdapterError as reason:
        return Prepared(model, selection, plan, new, no_adapter=str(reason))
    return Prepared(model, selection, plan, new, adapter)


def _refuse_adapter(source: Source) -> None:
    if (folder_of(source) / CONFIG).is_file():
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


def _load(place: str, auto_class: Any, config: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """The model, and the names of parameters that its checkpoint did not hold."""
    import torch

    try:
        with quiet():
            loaded: Any = load(place, auto_class, output_loading_info=True, dtype=torch.float32, **config)
    except BiasPatchError:
        raise
    except Exception as error:  # transformers raises whatever comes up inside it
        if "size mismatch" in str(error) or "ignore_mismatched_sizes" in str(error):
            raise TuneError(
                f"The head in {place} does not fit the task ({_said(config)})",
                why="It was trained for another number of labels",
                remedy="Start from the checkpoint it was trained from, or take a task with as many labels",
            ) from error
        raise TuneError(f"{place} cannot be loaded", why=f"{type(error).__name__}: {error}") from error
    model, info = loaded
    return model, tuple(sorted(info["missing_keys"]))


def _said(config: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in config.items() if isinstance(value, (int, str))) or "as asked"
