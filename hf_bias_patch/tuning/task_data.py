"""From settings to data: the task, what kind of model answers it, its training and validation texts as token ids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.source import resolve
from hf_bias_patch.errors import DataError, RecipeError, TaskError
from hf_bias_patch.evidence.models import load_tokenizer
from hf_bias_patch.scoring.custom import custom_task
from hf_bias_patch.scoring.data import load_split
from hf_bias_patch.scoring.encode import Encoded, encode
from hf_bias_patch.scoring.forms import AUTO_CLASSES, Form, form_of_class, input_limit, require_form
from hf_bias_patch.scoring.loading import load_config
from hf_bias_patch.scoring.tasks import Task, load_task
from hf_bias_patch.tuning.kinds import TaskSettings

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TaskData", "task_data"]


@dataclass(frozen=True)
class TaskData:
    """A task and its data, for one model.

    Attributes:
        task: what is asked.
        form: of the model.
        tokenizer: of the model.
        train: encoded training data.
        validation: canonical validation data; None if there is none.
        auto_class: of transformers, with the head that the task needs.
        notes: what a person should know of the data.
    """

    task: Task
    form: Form
    tokenizer: Any
    train: Encoded
    validation: Dataset | None
    auto_class: Any
    notes: tuple[str, ...]


def task_data(settings: TaskSettings) -> TaskData:
    """Load and encode what a run needs.

    Raises:
        TaskError, DataError: the task or its data cannot be had, or the model cannot answer it.
        RecipeError: the command is for tasks of another kind.
        SourceError: the model leads nowhere.
        CheckpointError: its config is missing or damaged.
    """
    import transformers

    source = resolve(settings.model_name_or_path)
    config = load_config(source)
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        raise TaskError(f"{source.name} has no tokenizer", remedy="Put its tokenizer files beside the weights")
    task = _task(settings)
    form = _form(task, config, source.name)
    length = input_limit(tokenizer, config, settings.max_length)
    train, validation = _splits(settings, task)
    targets = min(getattr(settings, "max_target_length", None) or min(128, length // 2), length)
    encoded = encode(train, tokenizer, task, length, form=form, training=True, max_target_length=targets)
    return TaskData(
        task,
        form,
        tokenizer,
        encoded,
        validation,
        getattr(transformers, AUTO_CLASSES[form]),
        _notes(task, encoded, validation),
    )


def _task(settings: TaskSettings) -> Task:
    task = load_task(settings.task_name) if settings.task_name is not None else _own_task(settings)
    if task.kind not in settings.kinds:
        raise RecipeError(
            f"{task.name} is a {task.kind} task, and this command is for {' and '.join(settings.kinds)}",
            remedy="The commands are: tune glue, tune lm, tune generation",
        )
    return task


def _own_task(settings: TaskSettings) -> Task:
    files = {"train": settings.train_file, settings.validation_split: settings.validation_file}
    return custom_task(
        {split: path for split, path in files.items() if path is not None},
        kind=settings.own_kind,
        text=settings.text_column or None,
        label=settings.label_column,
    )


def _form(task: Task, config: Any, name: str) -> Form:
    """The form that the model will have: a classifier gets a new head, a language model must bring its own."""
    if task.kind in ("classification", "regression"):
        return "classifier"
    return require_form(task.kind, form_of_class((config.architectures or [""])[0]), name)


def _splits(settings: TaskSettings, task: Task) -> tuple[Dataset, Dataset | None]:
    train = load_split(task, "train", _given(settings.train_file, "train"))
    mixed = not task.joined  # the lines of a running text stay in their order, or it would be none
    if settings.max_train_samples and settings.max_train_samples < len(train):
        train = (train.shuffle(seed=settings.seed) if mixed else train).select(range(settings.max_train_samples))
    if settings.validation_share is not None:
        return _shared(train, settings.validation_share, mixed, settings)
    if settings.validates_on_nothing:
        return train, None
    name = settings.validation_split
    return train, load_split(task, name, _given(settings.validation_file, name), limit=settings.max_eval_samples)


def _shared(train: Dataset, share: float, mixed: bool, settings: TaskSettings) -> tuple[Dataset, Dataset]:
    """What is left to train on, and the share to validate on: drawn by the seed, or the end of a running text."""
    if math.ceil(share * len(train)) >= len(train):
        raise DataError(
            f"There are {len(train)} training samples, and a validation_share of {share} leaves none of them",
            remedy="Give more training data, a smaller share, or a --validation_file",
        )
    parts = train.train_test_split(test_size=share, seed=settings.seed, shuffle=mixed)
    asked = min(settings.max_eval_samples or len(parts["test"]), len(parts["test"]))
    return parts["train"], parts["test"].select(range(asked))


def _given(path: Path | None, split: str) -> dict[str, str | Path] | None:
    return None if path is None else {split: path}


def _notes(task: Task, train: Encoded, validation: Dataset | None) -> tuple[str, ...]:
    notes = [f"{task.name}: {len(train.dataset):,} training samples"]
    if validation is not None:
        notes[0] += f", {len(validation):,} to validate on"
    else:
        notes.append("There is no validation data: the last state is taken for the best")
    if train.truncated:
        notes.append(f"Training data: {train}")
    if train.cut_targets:
        notes.append(f"Training data: {train.cut_targets:,} targets were longer than --max_target_length and were cut")
    return tuple(notes)
