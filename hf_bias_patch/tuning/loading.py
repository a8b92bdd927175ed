"""From a checkpoint to a model with the head that a task needs: the checkpoint's own, or a new one.

The names in its config tell which output of a classification head stands for which label. A head that the checkpoint
has keeps its names and their order, and the task's labels are matched to its outputs (`scoring.labels`), so that what
it has learnt is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import TuneError
from hf_bias_patch.models.load import Loaded, Shapes, load_reported, refusing
from hf_bias_patch.models.source_files import folder_of, load_config
from hf_bias_patch.scoring.labels import head_names, match_labels
from hf_bias_patch.scoring.tasks import Task
from hf_bias_patch.tuning.head import head_of, renew_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LoadedModel", "load_classifier", "load_model"]

_TYPES = {"regression": "regression", "classification": "single_label_classification"}
_REMEDY = "Add --new-head to start with a new one"


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model.

    Attributes:
        model: of transformers, in float32.
        new: names of the parameters that got random values, because the checkpoint did not hold them.
        notes: on its head, for the user.
    """

    model: PreTrainedModel
    new: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_model(source: Source, auto_class: Any) -> LoadedModel:
    """Load a model that has its head, as a language model does.

    Raises:
        TuneError: transformers cannot load it.
        SourceError, CheckpointError: as for `load`.
    """
    loaded = _loaded(source, auto_class)
    return LoadedModel(loaded.model, loaded.missing)


def load_classifier(source: Source, auto_class: Any, task: Task, *, new_head: bool = False) -> LoadedModel:
    """Load a model with a head for a task: the checkpoint's, where it has one.

    Args:
        source: the checkpoint.
        auto_class: of transformers.
        task: classification or regression.
        new_head: start with a new head in any case.

    Returns:
        The model; its config names the labels as its outputs have them.

    Raises:
        TuneError: the head is of another size or another kind than the task needs, or names other labels.
        SourceError, CheckpointError: as for `load`.
    """
    config = load_config(source)
    before, own_type = head_names(config), config.problem_type
    if config.num_labels != task.outputs:
        config.num_labels = task.outputs
    config.problem_type = _TYPES[task.kind]
    loaded = _loaded(source, auto_class, config=config, ignore_mismatched_sizes=True)
    model = loaded.model
    head = head_of(model) or frozenset({*loaded.missing, *loaded.mismatched})
    replaced = _replaced(source.name, task, loaded.mismatched, head, before, new_head)
    new = {*loaded.missing, *replaced}
    if new_head:
        renew_head(model, head)
        new |= head
    # A bias alone may be missing: it is zero then, and the outputs are still the checkpoint's.
    if any(name in new and model.get_parameter(name).ndim > 1 for name in head):
        _name_labels(model.config, task)
        return LoadedModel(model, tuple(sorted(new)))
    return LoadedModel(model, tuple(sorted(new)), _keep_head(source.name, model.config, task, own_type))


def _loaded(source: Source, auto_class: Any, **more: Any) -> Loaded:
    import torch

    with refusing(TuneError, source.name):
        return load_reported(folder_of(source), auto_class, dtype=torch.float32, **more)


def _replaced(
    place: str, task: Task, shapes: Shapes, head: frozenset[str], names: dict[int, str], new_head: bool
) -> set[str]:
    """Names of the parameters whose stored values have another shape: only of a head that shall be new anyway."""
    if wrong := sorted(shapes.keys() - head):
        stored, wanted = shapes[wrong[0]]
        raise TuneError(
            f"{place} cannot be loaded",
            why=f"{wrong[0]} is stored as {stored}, and its config.json asks for {wanted}",
            remedy="Put the config.json that belongs to the weights beside them",
        )
    if shapes and not new_head:
        stored, _ = shapes[min(shapes, key=lambda name: len(shapes[name][0]))]
        raise TuneError(
            f"The head in {place} does not fit the task {task.name}: it has {stored[0]} outputs, and the task needs "
            f"{task.outputs}",
            why=_both(names, task),
            remedy=f"{_REMEDY}, or start from the checkpoint it was trained from",
        )
    return set(shapes)


def _keep_head(place: str, config: Any, task: Task, own_type: str | None) -> tuple[str, ...]:
    """Settle the config of a head that the checkpoint brings.

    Returns:
        Notes on it, for the user.

    Raises:
        TuneError: it is a head of another kind, or of other labels.
    """
    if task.kind == "regression":
        return ()
    if own_type == "regression":
        raise TuneError(
            f"The head in {place} is a regression head, and {task.name} is a classification task",
            why="problem_type in its config.json is regression",
            remedy=_REMEDY,
        )
    names = head_names(config)
    match, order = match_labels(names, task.labels)
    if match == "none":
        raise TuneError(
            f"The labels of the head in {place} are not those of {task.name}",
            why=f"{_both(names, task)}. It is unclear which output stands for which label",
            remedy=f"{_REMEDY}, or rename them in its config.json (id2label and label2id)",
        )
    notes = []
    if own_type == "multi_label_classification":
        notes.append("The head was trained to give several labels at once, and is now trained to give one")
    if match == "names":
        if order is not None:
            notes.append(f"The head keeps its own order of labels: {', '.join(names.values())}")
    else:
        pairs = ", ".join(f"{name} as {label}" for name, label in zip(names.values(), task.labels, strict=True))
        notes.append(
            f"The names of the head's outputs do not tell the labels; they are matched by their order: {pairs}"
        )
        if match == "generic":
            _name_labels(config, task)
    config.label2id = {name: number for number, name in config.id2label.items()}
    return tuple(notes)


def _name_labels(config: Any, task: Task) -> None:
    """Give the outputs the names of the task's labels; the one of a regression has none."""
    if task.kind == "classification":
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {name: number for number, name in config.id2label.items()}


def _both(names: dict[int, str], task: Task) -> str:
    has = ", ".join(task.labels) or "a score instead of labels"
    return f"The head has {', '.join(names.values())}; the task has {has}"
