"""From settings to data: the task, what kind of model answers it, its training and validation texts as token ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import RecipeError, TaskError
from hf_bias_patch.models.source_files import load_config, load_tokenizer
from hf_bias_patch.scoring.custom import custom_task
from hf_bias_patch.scoring.data import Split, read_split
from hf_bias_patch.scoring.encode import Encoded, encode
from hf_bias_patch.scoring.forms import AUTO_CLASSES, Form, form_of_class, input_limit, require_form
from hf_bias_patch.scoring.identity import DataIdentity
from hf_bias_patch.scoring.tasks import Task, load_task
from hf_bias_patch.tuning.kinds import GlueSettings, TaskSettings
from hf_bias_patch.tuning.samples import count, draw, hold_out

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
        train_identity: which data that is; its rows are samples.
        validation_identity: the same of the validation data; None if there is none.
    """

    task: Task
    form: Form
    tokenizer: Any
    train: Encoded
    validation: Dataset | None
    auto_class: Any
    notes: tuple[str, ...]
    train_identity: DataIdentity
    validation_identity: DataIdentity | None


def task_data(settings: TaskSettings, source: Source) -> TaskData:
    """Load and encode what a run needs.

    Args:
        settings: of the run.
        source: the checkpoint, whose config and tokenizer are read.

    Raises:
        TaskError, DataError: the task or its data cannot be had, or the model cannot answer it.
        RecipeError: the command is for tasks of another kind.
        CheckpointError: its config is missing or damaged.
    """
    import transformers

    config = load_config(source)
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        raise TaskError(f"{source.name} has no tokenizer", remedy="Put its tokenizer files beside the weights")
    task = _task(settings, config)
    form = _form(task, config, source.name)
    length = input_limit(tokenizer, config, settings.max_length)
    read = _read(settings, task)
    targets = min(getattr(settings, "max_target_length", None) or min(128, length // 2), length)
    encoded = encode(read.train.dataset, tokenizer, task, length, form=form, training=True, max_target_length=targets)
    return TaskData(
        task,
        form,
        tokenizer,
        encoded,
        read.validation.dataset if read.validation else None,
        getattr(transformers, AUTO_CLASSES[form]),
        (*_told(settings, config), *_notes(task, encoded, read)),
        read.train.identity,
        read.validation.identity if read.validation else None,
    )


def _task(settings: TaskSettings, config: Any) -> Task:
    task = load_task(settings.task_name) if settings.task_name is not None else _own_task(settings, config)
    if task.kind not in settings.kinds:
        raise RecipeError(
            f"{task.name} is a {task.kind} task, and this command is for {' and '.join(settings.kinds)}",
            remedy="The commands are: tune glue, tune lm, tune generation",
        )
    return task


def _own_task(settings: TaskSettings, config: Any) -> Task:
    files = {"train": settings.train_file, settings.validation_split: settings.validation_file}
    asked = isinstance(settings, GlueSettings) and settings.regression
    return custom_task(
        {split: path for split, path in files.items() if path is not None},
        kind="regression" if asked or _goes_on_with_regression(settings, config) else settings.own_kind,
        text=settings.text_column or None,
        label=settings.label_column,
        skip_bad_rows=settings.skip_bad_rows,
    )


def _goes_on_with_regression(settings: TaskSettings, config: Any) -> bool:
    """Whether own data meets a head that gives out one number: its labels are numbers, whole ones too."""
    if settings.task_name is not None or not isinstance(settings, GlueSettings) or settings.new_head:
        return False
    classifies = form_of_class((config.architectures or [""])[0]) == "classifier"
    return classifies and (config.problem_type == "regression" or config.num_labels == 1)


def _told(settings: TaskSettings, config: Any) -> tuple[str, ...]:
    if not _goes_on_with_regression(settings, config):
        return ()
    return ("The checkpoint's head is one for regression, so labels are numbers to predict, and no classes",)


def _form(task: Task, config: Any, name: str) -> Form:
    """The form that the model will have: a classifier gets a new head, a language model must bring its own."""
    if task.kind in ("classification", "regression"):
        return "classifier"
    return require_form(task.kind, form_of_class((config.architectures or [""])[0]), name)


@dataclass(frozen=True)
class _Read:
    """Training data, of which there were more samples before some were drawn, and validation data."""

    train: Split
    validation: Split | None
    drawn: int
    total: int


def _read(settings: TaskSettings, task: Task) -> _Read:
    skip, mixed = settings.skip_bad_rows, not task.joined  # a running text keeps its order, or it would be none
    train = read_split(task, "train", _given(settings.train_file, "train"), skip_bad_rows=skip)
    dataset = train.dataset
    if settings.max_train_samples is not None:
        dataset = draw(dataset, settings.max_train_samples, settings.seed, mixed=mixed)
    drawn, total, validation = count(dataset), count(train.dataset), None
    if settings.validation_share is not None:
        dataset, held_out = hold_out(dataset, settings.validation_share, settings.seed, mixed=mixed)
        held_out = held_out.select(range(min(settings.max_eval_samples or len(held_out), len(held_out))))
        validation = Split(held_out, replace(train.identity, rows=len(held_out), limited=True))
    elif not settings.validates_on_nothing:
        name = settings.validation_split
        given, limit = _given(settings.validation_file, name), settings.max_eval_samples
        validation = read_split(task, name, given, limit, skip_bad_rows=skip)
    trained = count(dataset)
    identity = replace(train.identity, rows=trained, limited=trained < total)
    return _Read(replace(train, dataset=dataset, identity=identity), validation, drawn, total)


def _given(path: Path | None, split: str) -> dict[str, str | Path] | None:
    return None if path is None else {split: path}


def _notes(task: Task, train: Encoded, read: _Read) -> tuple[str, ...]:
    notes = [f"{task.name}: {len(train.dataset):,} training samples"]
    if read.drawn < read.total:
        notes[0] += f" ({'the first ' if task.joined else ''}{read.drawn:,} of {read.total:,} {_unit(task)})"
    if read.validation is not None:
        notes[0] += f", {len(read.validation.dataset):,} to validate on"
    else:
        notes.append("There is no validation data: the last state is taken for the best")
    notes += [*read.train.notes, *(read.validation.notes if read.validation else ())]
    if train.truncated:
        notes.append(f"Training data: {train}")
    if train.cut_targets:
        notes.append(f"Training data: {train.cut_targets:,} targets were longer than --max_target_length and were cut")
    return tuple(notes)


def _unit(task: Task) -> str:
    """What is counted when samples are drawn."""
    if task.kind == "generation":
        return "pairs of a source and a reference"
    return "lines" if task.joined else "rows"
