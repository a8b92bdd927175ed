"""Which rows an evaluation is asked for: the splits, the file they are in, and whether their labels are wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hf_bias_patch.errors import TaskError
from hf_bias_patch.scoring.data import Split, has_labels, read_split
from hf_bias_patch.scoring.rows import SPLIT_NAMES
from hf_bias_patch.scoring.submission import is_submitted
from hf_bias_patch.scoring.tasks import Task

__all__ = ["Asked", "read_asked", "split_of_file"]

UNLABELLED = "Labels are hidden or missing, so there are predictions and no scores"


@dataclass(frozen=True)
class Asked:
    """What an evaluation is asked for.

    Attributes:
        task: what is asked.
        split: of the task; by default what `file` is called after, else `validation`, or where predictions are asked
            for all the splits that the GLUE server takes.
        file: a file or folder to read instead of the Hub.
        limit: only the first so many rows.
        predicts: whether predictions are to be written.
        skip_bad_rows: whether rows that cannot be read are left out.
    """

    task: Task
    split: str | None = None
    file: Path | None = None
    limit: int | None = None
    predicts: bool = False
    skip_bad_rows: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        if self.split is not None:
            return (self.split,)
        if self.file is not None and self.file.is_file():
            return (split_of_file(self.task, self.file),)
        return tuple(self.task.submission) if self.predicts and self.task.submission else ("validation",)


def read_asked(asked: Asked) -> dict[str, Split]:
    """The splits by name. Without labels where predictions are asked for, and the labels are hidden or missing.

    Raises:
        TaskError: predictions are asked for that would hold nothing, or not all that the GLUE server wants.
        DataError: as of `read_split`.
    """
    _refuse(asked.task, asked.splits, asked)
    return {split: _read(asked, split) for split in asked.splits}


def split_of_file(task: Task, file: Path) -> str:
    """What a file is called after: `dev.tsv` is `validation`, `dev_mismatched.tsv` of mnli `validation_mismatched`.

    Where its name says nothing, or two things, it is the task's `validation`, or the only split it has.
    """
    words = [word.removesuffix("set") for word in re.split(r"[^a-z]+", file.stem.lower())]
    named = [split for split, names in SPLIT_NAMES.items() if not set(names).isdisjoint(words)]
    if len(named) == 1:
        parts = [f"{named[0]}_{word}" for word in words if f"{named[0]}_{word}" in task.splits]
        if parts or named[0] in task.splits or not task.splits:
            return parts[0] if len(parts) == 1 else named[0]
    return next(iter(task.splits)) if task.splits and "validation" not in task.splits else "validation"


def _refuse(task: Task, splits: Iterable[str], asked: Asked) -> None:
    if not asked.predicts:
        return
    if task.kind == "language_modelling":
        raise TaskError(f"{task.name} has no predictions to write", why="A language model only weighs its text")
    sent = [split for split in splits if is_submitted(task, split)]
    if sent and asked.skip_bad_rows:
        raise TaskError(
            f"--skip_bad_rows would leave rows of {task.name}, {sent[0]}, without a prediction",
            why="The GLUE server wants one of every row",
            remedy="Correct the rows, or predict another split: --split validation",
        )


def _read(asked: Asked, split: str) -> Split:
    found = read_split(asked.task, split, asked.file, asked.limit, _wants_labels(asked, split), asked.skip_bad_rows)
    notes = list(found.notes)
    if asked.predicts and not {"label", "references"} & set(found.dataset.column_names):
        notes.append(UNLABELLED)
    if asked.predicts and found.identity.skipped:
        notes.append("The index of a prediction counts the rows that were read")
    if asked.predicts and found.identity.limited and is_submitted(asked.task, split):
        notes.append("The GLUE server wants a prediction of every row, and these are only the first")
    return replace(found, notes=tuple(notes))


def _wants_labels(asked: Asked, split: str) -> bool:
    """A user's file may have labels or not; of what is on the Hub, the GLUE server's splits have none."""
    if not asked.predicts:
        return True
    if asked.file is not None:
        return has_labels(asked.task, split, asked.file)
    return not is_submitted(asked.task, split)
