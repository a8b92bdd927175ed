"""From settings to data: the task, the head that it needs, its training and validation texts as token ids.

A sample of a generation task is a pair of a source and one reference. All pairs of one source stay together: none of
them trains where another is held out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.source import Source
from hf_bias_patch.errors import DataError, RecipeError, TaskError
from hf_bias_patch.models.source_files import load_config, load_tokenizer
from hf_bias_patch.scoring.custom import custom_task
from hf_bias_patch.scoring.data import Split, read_split
from hf_bias_patch.scoring.encode import Encoded, encode
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.heads import AUTO_CLASSES, HeadKind, head_kind_of_class, input_limit, require_head
from hf_bias_patch.scoring.identity import DataIdentity
from hf_bias_patch.scoring.tasks import Task, load_task
from hf_bias_patch.tuning.task_settings import GlueSettings, TaskSettings

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["TaskData", "task_data"]


@dataclass(frozen=True)
class TaskData:
    """A task and its data, for one model.

    Attributes:
        task: what is asked.
        head: kind of the model's head.
        tokenizer: of the model.
        train: encoded training data.
        validation: canonical validation data; None if there is none.
        auto_class: of transformers, with the head that the task needs.
        notes: on the data, for the user.
        train_identity: which data that is; its rows are samples.
        validation_identity: the same of the validation data; None if there is none.
    """

    task: Task
    head: HeadKind
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
        TaskError, DataError: the task or its data cannot be loaded, or the model has no head for it.
        RecipeError: the command is for tasks of another kind.
        CheckpointError: its config is missing or damaged.
    """
    import transformers

    config = load_config(source)
    tokenizer = load_tokenizer(source)
    if tokenizer is None:
        raise TaskError(f"{source.name} has no tokenizer", remedy="Put its tokenizer files beside the weights")
    task = _task(settings, config)
    head = _head_kind(task, config, source.name)
    length = input_limit(tokenizer, config, settings.max_length)
    read = _read(settings, task)
    targets = min(getattr(settings, "max_target_length", None) or min(128, length // 2), length)
    encoded = encode(read.train.dataset, tokenizer, task, length, head=head, training=True, max_target_length=targets)
    return TaskData(
        task,
        head,
        tokenizer,
        encoded,
        read.validation.dataset if read.validation else None,
        getattr(transformers, AUTO_CLASSES[head]),
        _notes(task, encoded, read, _keeps_regression_head(settings, config)),
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
    regression = isinstance(settings, GlueSettings) and settings.regression
    return custom_task(
        {split: path for split, path in files.items() if path is not None},
        kind="regression" if regression or _keeps_regression_head(settings, config) else settings.own_kind,
        text=settings.text_column or None,
        label=settings.label_column,
        skip_bad_rows=settings.skip_bad_rows,
    )


def _keeps_regression_head(settings: TaskSettings, config: Any) -> bool:
    """Whether a regression head is kept, so that labels of own data are numbers, even where all are whole."""
    if settings.task_name is not None or not isinstance(settings, GlueSettings) or settings.new_head:
        return False
    classifies = head_kind_of_class((config.architectures or [""])[0]) == "classifier"
    return classifies and (config.problem_type == "regression" or config.num_labels == 1)


def _head_kind(task: Task, config: Any, name: str) -> HeadKind:
    """The head that the model will have: a classifier may get a new one, a language model must have its own."""
    if task.kind in ("classification", "regression"):
        return "classifier"
    return require_head(task.kind, head_kind_of_class((config.architectures or [""])[0]), name)


@dataclass(frozen=True)
class _Read:
    """Training data, of which there were more samples before some were drawn, and validation data."""

    train: Split
    validation: Split | None
    drawn: int
    total: int


def _read(settings: TaskSettings, task: Task) -> _Read:
    skip, mixed = settings.skip_bad_rows, not task.joined  # a running text keeps its order, or it would be none
    train = read_split(task, "train", settings.train_file, skip_bad_rows=skip)
    dataset = train.dataset
    if settings.max_train_samples is not None:
        dataset = _draw(dataset, settings.max_train_samples, settings.seed, mixed=mixed)
    drawn, total, validation = _count(dataset), _count(train.dataset), None
    if settings.validation_share is not None:
        dataset, held_out = _hold_out(dataset, settings.validation_share, settings.seed, mixed=mixed)
        held_out = held_out.select(range(min(settings.max_eval_samples or len(held_out), len(held_out))))
        validation = Split(held_out, replace(train.identity, rows=len(held_out), limited=True))
    elif not settings.validates_on_nothing:
        name = settings.validation_split
        validation = read_split(task, name, settings.validation_file, settings.max_eval_samples, skip_bad_rows=skip)
    trained = _count(dataset)
    identity = replace(train.identity, rows=trained, limited=trained < total)
    return _Read(replace(train, dataset=dataset, identity=identity), validation, drawn, total)


def _notes(task: Task, train: Encoded, read: _Read, keeps_regression: bool) -> tuple[str, ...]:
    notes = []
    if keeps_regression:
        notes.append("The checkpoint has a regression head, so labels are numbers to predict, and not classes")
    what = f"{task.name}: {len(train.dataset):,} training samples"
    if read.drawn < read.total:
        unit = "lines" if task.joined else "rows"
        if task.kind == "generation":
            unit = "pairs of a source and a reference"
        what += f" ({'the first ' if task.joined else ''}{read.drawn:,} of {read.total:,} {unit})"
    notes.append(f"{what}, {len(read.validation.dataset):,} to validate on" if read.validation else what)
    if read.validation is None:
        notes.append("There is no validation data: the last state is taken as the best")
    notes += [*read.train.notes, *(read.validation.notes if read.validation else ())]
    if train.truncated:
        notes.append(f"Training data: {train}")
    if train.cut_targets:
        notes.append(f"Training data: {train.cut_targets:,} targets were longer than --max-target-length and were cut")
    return tuple(notes)


def _count(dataset: Dataset) -> int:
    """Samples of canonical training data: pairs of a source and a reference, or rows."""
    if "references" not in dataset.column_names:
        return len(dataset)
    return sum(map(len, dataset["references"]))


def _draw(dataset: Dataset, number: int, seed: int, *, mixed: bool) -> Dataset:
    """N samples, or all if there are no more: any of them if `mixed`, else the first, as of a running text."""
    if number >= _count(dataset):
        return dataset
    pairs = "references" in dataset.column_names
    samples = _pairs(dataset) if pairs else dataset
    drawn = (samples.shuffle(seed=seed) if mixed else samples).select(range(number))
    return _by_source(drawn) if pairs else drawn


def _hold_out(dataset: Dataset, share: float, seed: int, *, mixed: bool) -> tuple[Dataset, Dataset]:
    """What is left to train on, and the share to validate on: drawn if `mixed`, else the end, as of a running text."""
    if math.ceil(share * len(dataset)) >= len(dataset):
        raise DataError(
            f"There are {len(dataset)} training samples, and a validation_share of {share} leaves none to train on",
            remedy="Give more training data, a smaller share, or a --validation-file",
        )
    parts = dataset.train_test_split(test_size=share, seed=seed, shuffle=mixed)
    return parts["train"], parts["test"]


def _pairs(dataset: Dataset) -> Dataset:
    found = [(source, [text]) for source, texts in zip(dataset["source"], dataset["references"], strict=True)
             for text in texts]  # fmt: skip
    return _generation(dataset, found)


def _by_source(pairs: Dataset) -> Dataset:
    grouped: dict[str, list[str]] = {}
    for source, texts in zip(pairs["source"], pairs["references"], strict=True):
        grouped.setdefault(source, []).extend(texts)
    return _generation(pairs, list(grouped.items()))


def _generation(like: Dataset, rows: list[tuple[str, list[str]]]) -> Dataset:
    columns = {"source": [source for source, _ in rows], "references": [texts for _, texts in rows]}
    return need("datasets").Dataset.from_dict(columns, features=like.features)
