"""Scores of a checkpoint on a task as it is, without training, and files with its predictions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.data import Split, has_labels, read_split
from hf_bias_patch.scoring.generation import GenerationFields
from hf_bias_patch.scoring.labels import decide
from hf_bias_patch.scoring.loading import load_scorable, scored
from hf_bias_patch.scoring.rows import SPLIT_NAMES
from hf_bias_patch.scoring.score import Scores, ScoringOptions, answers, score
from hf_bias_patch.scoring.submission import is_submitted, write_predictions
from hf_bias_patch.scoring.tasks import Task, load_task
from hf_bias_patch.scoring.windows import EACH, Masked

__all__ = ["EvaluateSettings", "Evaluation", "evaluate", "evaluations_as_json", "split_of_file"]

_UNLABELLED = "Labels are hidden or missing, so there are predictions and no scores"

Count = Annotated[int, Field(gt=0)]


def _share(value: Any) -> Any:
    try:
        return value if value == EACH else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value} is not a share of the tokens: write 0.15, or each") from None


class _OwnSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    model_name_or_path: str = Field(description="A folder, embedded:bert|gpt2|bart, or a Hub id.")
    task_name: str = Field(description="A task, such as sst2 (a wrong name lists all), or a YAML file of one.")
    split: str | None = Field(
        None, description="A split of the task; by default the one that --files is named after, else validation."
    )
    files: Path | None = Field(None, description="Read this file, or a folder of files, instead of the Hub.")
    max_eval_samples: Count | None = Field(
        None, description="Evaluate on the first N rows only; of generation, on N sources with all their references."
    )
    skip_bad_rows: bool = Field(False, description="Leave out and list rows that cannot be read.")
    predict: Path | None = Field(
        None,
        description="Write predictions into this folder; without --files and --split, for the splits that the GLUE "
        "server takes.",
    )
    batch_tokens: Count = Field(4096, description="Tokens in a batch, padding included.")
    max_length: Annotated[int, Field(ge=4)] | None = Field(
        None, description="Longest input, in tokens; by default the model's limit."
    )
    stride: Count | None = Field(
        None, description="Causal language modelling: tokens that each window scores; by default half a window."
    )
    masked: Annotated[Masked, BeforeValidator(_share)] = Field(
        0.15,
        description="Masked language models: share of the tokens masked at once; or `each`, to mask them one by one.",
    )
    device: str | None = Field(None, description="Device, such as cpu or cuda; by default a GPU if there is one.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Dtype of the computation.")


class EvaluateSettings(GenerationFields, _OwnSettings):
    """What is evaluated, on what, how. Each field's description is its help text."""

    def splits(self, task: Task) -> tuple[str, ...]:
        """The names of the splits to evaluate on."""
        if self.split is not None:
            return (self.split,)
        if self.files is not None and self.files.is_file():
            return (split_of_file(task, self.files),)
        return tuple(task.submission) if self.predict and task.submission else ("validation",)

    @property
    def options(self) -> ScoringOptions:
        """How to evaluate."""
        return ScoringOptions(self.batch_tokens, self.max_length, self.stride, self.masked, self.decode)


@dataclass(frozen=True)
class Evaluation:
    """What a model gave on one split of a task.

    Attributes:
        task, split: which.
        data: the rows, which data they are, and what was left out.
        scores: None where the labels are not known.
        truncated: what became of long texts, in a sentence; empty if none was cut.
        predictions: the file that they were written to; None if they were not asked for.
    """

    task: Task
    split: str
    data: Split
    scores: Scores | None
    truncated: str
    predictions: Path | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know."""
        return (*(self.scores.notes if self.scores else ()), *self.data.notes)

    def plain(self) -> dict[str, Any]:
        """As JSON values; JSON has no infinity, which a perplexity can be."""
        plain: dict[str, Any] = {"split": self.split, **(self.scores.plain() if self.scores else {})}
        plain |= {"data": self.data.identity.plain(), "notes": list(self.notes)}
        if self.scores:
            plain["metrics"] = {n: v if math.isfinite(v) else str(v) for n, v in self.scores.metrics.items()}
        return plain | ({"predictions": str(self.predictions)} if self.predictions else {})


def evaluate(
    settings: EvaluateSettings, on_event: Callable[[str], object] = lambda text: None
) -> tuple[Evaluation, ...]:
    """Score a checkpoint, a variant or a peft adapter on a task, without training it.

    Args:
        settings: what is evaluated.
        on_event: is told what is done now.

    Returns:
        One for each split: a single one, but for predictions for the GLUE server.

    Raises:
        TaskError: there is no such task, the model has no head for it, its answers are not finite, or predictions are
            asked for that would hold nothing, or not all that the GLUE server wants.
        DataError: the data cannot be read.
        SourceError, CheckpointError: the model cannot be loaded.
        TargetError: predictions cannot be written.
    """
    task = load_task(settings.task_name)
    _refuse(settings, task)
    # All data first: it takes seconds and may be refused, where a large model takes minutes to load.
    read = {split: _read(settings, task, split) for split in settings.splits(task)}
    on_event(f"loading {settings.model_name_or_path}")
    model, tokenizer = load_scorable(
        settings.model_name_or_path, task.kind, device=settings.device, dtype=settings.dtype
    )
    found = []
    for split, data in read.items():
        on_event(f"{task.name}, {split}: {len(data.dataset):,} rows")
        given = answers(model, tokenizer, task, data.dataset, settings.options)
        known = task.kind == "language_modelling" or {"label", "references"} & set(data.dataset.column_names)
        scores = score(task, given, data.dataset, settings.options) if known else None
        written = None
        if settings.predict is not None:
            decided = scores.predictions if scores else decide(task, list(given.predictions.values()))
            written = write_predictions(task, split, decided, settings.predict)
        cut = str(given.encoded) if given.encoded.truncated else ""
        found.append(Evaluation(task, split, data, scores, cut, written))
    return tuple(found)


def evaluations_as_json(settings: EvaluateSettings, found: Sequence[Evaluation]) -> Any:
    """What `evaluate --json` prints and `card --results` takes: JSON values that tell the model by its weights' sha256.

    Returns:
        A mapping; a list of them of several splits.
    """
    model = scored(settings.model_name_or_path)
    plain = [{"model": model, **each.plain()} for each in found]
    return plain[0] if len(plain) == 1 else plain


def split_of_file(task: Task, file: Path) -> str:
    """The split that a file is named after: `dev.tsv` is `validation`, mnli's `dev_mismatched.tsv` is
    `validation_mismatched`. Where its name says nothing, or two things, `validation`, or the only split of the task.
    """
    words = [word.removesuffix("set") for word in re.split(r"[^a-z]+", file.stem.lower())]
    named = [split for split, names in SPLIT_NAMES.items() if not set(names).isdisjoint(words)]
    if len(named) == 1:
        parts = [f"{named[0]}_{word}" for word in words if f"{named[0]}_{word}" in task.splits]
        if parts or named[0] in task.splits or not task.splits:
            return parts[0] if len(parts) == 1 else named[0]
    return next(iter(task.splits)) if task.splits and "validation" not in task.splits else "validation"


def _refuse(settings: EvaluateSettings, task: Task) -> None:
    if settings.predict is None:
        return
    if task.kind == "language_modelling":
        raise TaskError(
            f"{task.name} has no predictions to write",
            why="Language modelling measures a loss, and predicts no labels or texts",
        )
    sent = [split for split in settings.splits(task) if is_submitted(task, split)]
    if sent and settings.skip_bad_rows:
        raise TaskError(
            f"--skip-bad-rows would leave rows of {task.name}, {sent[0]}, without a prediction",
            why="The GLUE server wants one of every row",
            remedy="Correct the rows, or predict another split: --split validation",
        )


def _read(settings: EvaluateSettings, task: Task, split: str) -> Split:
    """A split; without labels where predictions are asked for and the labels are hidden or missing."""
    predicts, limit = settings.predict is not None, settings.max_eval_samples
    labels = not predicts or _labels_are_known(settings.files, task, split)
    found = read_split(task, split, settings.files, limit, labels, settings.skip_bad_rows)
    notes = list(found.notes)
    if predicts and not {"label", "references"} & set(found.dataset.column_names):
        notes.append(_UNLABELLED)
    if predicts and found.identity.skipped:
        notes.append("The index of a prediction counts the rows that were read")
    if predicts and found.identity.limited and is_submitted(task, split):
        notes.append("The GLUE server wants a prediction of every row, and these are only the first")
    return replace(found, notes=tuple(notes))


def _labels_are_known(files: Path | None, task: Task, split: str) -> bool:
    """A user's file may have labels or not; on the Hub, the splits that the GLUE server takes have none."""
    return not is_submitted(task, split) if files is None else has_labels(task, split, files)
