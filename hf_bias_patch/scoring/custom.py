"""The user's own files as a task: kind, columns and labels are read from the training file where they are not given."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hf_bias_patch.errors import DataError, TaskError
from hf_bias_patch.scoring.bad_rows import BadRows
from hf_bias_patch.scoring.metric_info import MEAN, TaskKind
from hf_bias_patch.scoring.rows import read_rows
from hf_bias_patch.scoring.tables import Columns, Row, is_table
from hf_bias_patch.scoring.tasks import Task, make_task

__all__ = ["custom_task"]

_NO_TEXT = {"id", "idx", "index", "row", "label", "labels", "", "unnamed: 0"}  # the last two: pandas' row numbers
_LABELS = ("label", "labels", "score", "target", "summary", "references", "reference")
_MOST = 100  # distinct labels; more are a mistake: numbers to predict, or texts
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
_METRICS: dict[TaskKind, tuple[tuple[str, ...], str]] = {
    "classification": (("accuracy",), "accuracy"),
    "regression": (("pearson", "spearman"), MEAN),
    "language_modelling": (("loss", "perplexity", "word_perplexity"), "perplexity"),
    "generation": (("rouge1", "rouge2", "rougeL", "bleu", "chrf"), "rougeL"),
}


def custom_task(
    files: Mapping[str, str | Path],
    *,
    kind: TaskKind | None = None,
    text: Sequence[str] | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
    name: str = "custom",
    skip_bad_rows: bool = False,
    **fields: Any,
) -> Task:
    """A task of local files, in the shape of those that come with the package.

    Args:
        files: split → file; `train` is read, or the first where there is none.
        kind: by default regression where a label is a fraction, else classification.
        text: columns of the input; by default all that hold text, but for the label and numbers of rows.
        label: column of the label or reference; by default `label`, or the last column for generation.
        labels: their names, in the order of their numbers; by default those in the file, sorted.
        name: of the task.
        skip_bad_rows: leave out rows that cannot be read.
        fields: any other field of `Task`, such as `metrics`, `main_metric`, `prompt`.

    Raises:
        DataError: no file is given, it is empty, or a column is missing.
        TaskError: the columns or fields do not make a task.
    """
    if not files:
        raise DataError("No file was given", remedy="Give at least a training or validation file")
    path = Path(files.get("train") or next(iter(files.values())))
    named = (*(text or ()), *([label.partition(".")[0]] if label else []))
    columns = Columns({column: frozenset({column}) for column in named})
    rows = (row for _, row in read_rows(path, columns, BadRows(skip_bad_rows)))
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} has no rows")
    if kind != "language_modelling":
        label = _label_column(list(first), label, kind, path)
        kind, labels = _kind_and_labels(chain([first], rows), label, kind, labels, path)
    text = text or _text_columns(first, label, kind, path)
    metrics, main = _METRICS[kind]
    if kind == "classification" and len(labels or ()) == 2:
        metrics = (*metrics, "f1", "matthews")
    return make_task(
        **{
            "name": name,
            "kind": kind,
            "about": f"own data: {path.name}",
            "files": {split: str(place) for split, place in files.items()},
            "text": tuple(text),
            "label": None if kind == "language_modelling" else label,
            "labels": tuple(labels or ()) if kind == "classification" else (),
            "metrics": metrics,
            "main_metric": main,
            "grouped": kind == "generation",
            "joined": kind == "language_modelling" and path.suffix.lower() == ".txt" and not is_table(path, columns),
            **fields,
        }
    )


def _label_column(columns: list[str], label: str | None, kind: TaskKind | None, path: Path) -> str:
    known = [label] if label else [name for name in _LABELS if name in columns]
    if not known and kind == "generation" and len(columns) > 1:
        return columns[-1]
    if not known or known[0].partition(".")[0] not in columns:
        raise DataError(
            f"{path}: there is no column {label or 'label'!r}; it has {', '.join(map(repr, columns))}",
            remedy="Name the column of the label",
        )
    return known[0]


def _kind_and_labels(
    rows: Iterable[Row], label: str, kind: TaskKind | None, labels: Sequence[str] | None, path: Path
) -> tuple[TaskKind, Sequence[str] | None]:
    """What is not given, from the labels in the file; rows without one are named when the split is read."""
    if kind == "generation":
        return kind, labels
    values = list(dict.fromkeys(row[label] for row in rows if row.get(label) not in (None, "")))
    kind = kind or ("regression" if any(_fraction(value) for value in values) else "classification")
    return kind, labels or _label_names(values, label, path) if kind == "classification" else labels


def _text_columns(row: Row, label: str | None, kind: TaskKind, path: Path) -> list[str]:
    known = [name for name in row if name != label and name.lower() not in _NO_TEXT and isinstance(row[name], str)]
    most = 2 if kind in ("classification", "regression") else 1
    if kind == "language_modelling" and "text" in known:
        return ["text"]
    if not 1 <= len(known) <= most:
        raise TaskError(
            f"{path} has {len(known)} columns that may be the input ({', '.join(known) or 'none'}), "
            f"and a {kind} task has {' or '.join('12'[:most])}",
            remedy="Name the columns of the input",
        )
    return known


def _fraction(value: Any) -> bool:
    try:
        return not float(value).is_integer() or isinstance(value, float)
    except (TypeError, ValueError):
        return False


def _label_names(values: list[Any], label: str, path: Path) -> list[str]:
    names = {str(value).strip() for value in values}
    if all(_NUMBER.fullmatch(name) for name in names) and (commas := sorted(name for name in names if "," in name)):
        raise DataError(
            f"{path}, column {label!r} holds numbers with a decimal comma, such as {commas[0]}",
            why="They cannot be told from the names of classes",
            remedy="Write them with a point",
        )
    if not 2 <= len(names) <= _MOST:
        shown = ", ".join(islice(sorted(names), 3))
        raise DataError(
            f"{path}, column {label!r} holds {len(names)} different labels ({shown}, …), and may hold 2 to {_MOST}",
            remedy="Name the column of the label, or the kind of the task",
        )
    return sorted(names, key=lambda name: (_order(name), name))


def _order(name: str) -> float:
    """Numbers in the order of numbers, before everything else."""
    try:
        return float(name)
    except ValueError:
        return math.inf
