"""From a checkpoint to a model that is ready to train: loaded, and only what was asked for trainable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import BiasPatchError, TuneError
from hf_bias_patch.evidence.models import folder_of, quiet
from hf_bias_patch.patching.loading import load
from hf_bias_patch.patching.record import BLOCK, untouchable
from hf_bias_patch.scoring.adapters import CONFIG
from hf_bias_patch.tuning import adapters
from hf_bias_patch.tuning.adapter_folder import AdapterFolder, NoAdapterError, adapter_folder, linear_biases
from hf_bias_patch.tuning.base import Base, base_of
from hf_bias_patch.tuning.select import ADAPTERS, Selection, select
from hf_bias_patch.tuning.settings import Settings
from hf_bias_patch.tuning.start import Start

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A model ready to train.

    Attributes:
        model: a transformers model, or a peft model around one.
        selection: what trains.
        new: names of the parameters that the checkpoint did not hold.
        adapter: what is written for peft at the end; None if peft cannot express it.
        no_adapter: why not, in one sentence.
    """

    model: Any
    selection: Selection
    new: tuple[str, ...]
    adapter: AdapterFolder | None = None
    no_adapter: str = ""


def prepare(settings: Settings, start: Start, auto_class: Any, **config: Any) -> Prepared:
    """Load a model with a head, and make trainable what the settings name.

    Args:
        settings: of the run.
        start: the checkpoint to load.
        auto_class: a transformers Auto class, such as `AutoModelForSequenceClassification`.
        config: values of its config, such as `num_labels`.

    Raises:
        TuneError: the head in the checkpoint does not fit, or nothing would train.
        SourceError, CheckpointError, FamilyError, RecipeError: as for `load` and `select`.
    """
    _refuse_adapter(start.source)
    model, new = _load(folder_of(start.loaded), settings.model_name_or_path, auto_class, config)
    biases = linear_biases(model)
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
            remedy="Say --train_head, or another --train",
        )
    if settings.gradient_checkpointing:
        _keep_no_activations(model)
    try:
        adapter = adapter_folder(model, selection, _base(start), biases, new=new)
    except NoAdapterError as reason:
        return Prepared(model, selection, new, no_adapter=str(reason))
    return Prepared(model, selection, new, adapter)


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


def _load(place: Path, name: str, auto_class: Any, config: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
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
                f"The head in {name} does not fit the task ({_said(config)})",
                why="It was trained for another number of labels",
                remedy="Start from the checkpoint it was trained from, or take a task with as many labels",
            ) from error
        raise TuneError(f"{name} cannot be loaded", why=f"{type(error).__name__}: {error}") from error
    model, info = loaded
    return model, tuple(sorted(info["missing_keys"]))


def _said(config: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in config.items() if isinstance(value, (int, str))) or "as asked"
