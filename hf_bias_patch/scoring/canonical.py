"""From raw rows, whatever their columns are called, to the few columns that all other code reads.

classification, regression   `text` (and `text_pair`), `label`
language modelling           `text`
generation                   `source`, `references` (a list of texts)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.bad_rows import BadRows, RowError
from hf_bias_patch.scoring.tables import Row
from hf_bias_patch.scoring.tasks import Task

__all__ = ["any_label", "canonical_rows"]

HIDDEN = -1  # the label that GLUE's test splits have in place of the true one


def canonical_rows(
    task: Task, rows: Iterable[tuple[str, Row]], where: str, labels: bool, bad: BadRows
) -> Iterator[dict[str, Any]]:
    """Canonical rows in the order of the raw ones; sources with several references at the place of the first.

    Args:
        task: whose columns they have.
        rows: raw rows, each with its place, such as `line 3`.
        where: what to call their source in an error.
        labels: whether labels or references are needed; if not, they are left out.
        bad: is told of each row whose text or label is wrong.

    Raises:
        DataError: a column is missing, or a row is wrong and refused. The row is named.
    """
    made = _rows(task, rows, where, labels, bad)
    if task.kind == "language_modelling":
        return _texts(made, task.joined)
    return _grouped(made) if task.grouped and labels else made


def any_label(task: Task, rows: Iterable[tuple[str, Row]]) -> bool:
    """Whether any row has a label, or a reference, that is not hidden."""
    name = str(task.label).partition(".")[0]
    values = (_renamed(task, raw).get(name) for _, raw in rows)
    return any(value not in (None, "") and not _is_hidden(task, value) for value in values)


def _rows(
    task: Task, rows: Iterable[tuple[str, Row]], where: str, labels: bool, bad: BadRows
) -> Iterator[dict[str, Any]]:
    needed = [*task.text, *([task.label] if task.label and labels else [])]
    first = True
    for place, raw in rows:
        row = _renamed(task, raw)
        missing = [name for name in needed if name.partition(".")[0] not in row]
        if missing and first:
            raise DataError(
                f"{where}: there is no column {missing[0]!r}; it has {', '.join(map(repr, raw))}",
                why=f"The task {task.name} reads {', '.join(needed)}",
                remedy=f"Rename the column that holds it to {missing[0]!r}, or add it",
            )
        first = False  # a later row may lack a column in json files: that is the row's fault
        try:
            if missing:
                raise RowError(f"it has no {missing[0]!r}")
            made = _row(task, row, labels)
        except RowError as wrong:
            bad.meet(where, place, wrong)
        else:
            yield made


def _renamed(task: Task, raw: Row) -> Row:
    return {task.aliases.get(name, name) if task.aliases.get(name) not in raw else name: raw[name] for name in raw}


def _row(task: Task, row: Row, labels: bool) -> dict[str, Any]:
    texts = [_text(row[name], f"column {name!r}") for name in task.text]
    if task.kind == "generation":
        found = {"references": _references(row, str(task.label))} if labels else {}
        return {"source": texts[0], **found}
    made: dict[str, Any] = dict(zip(("text", "text_pair"), texts, strict=False))
    if task.label and labels:
        decide = _number if task.kind == "regression" else _label
        made["label"] = decide(task, row[task.label], f"column {task.label!r}")
    return made


def _text(value: Any, column: str) -> str:
    """A text; a list of triples as `subject | relation | object`, with ` ; ` between them."""
    if isinstance(value, (list, tuple)) and value:
        parts = [_text(item, column) for item in value]
        return (" ; " if isinstance(value[0], (list, tuple)) else " | ").join(parts)
    if not isinstance(value, str):
        raise RowError(f"{column} holds {value!r}, which is not a text")
    return value


def _references(row: Row, label: str) -> list[str]:
    name, _, inner = label.partition(".")
    value = row[name]
    if inner and isinstance(value, (Mapping, list)):
        # A list of mappings in JSON, a mapping of lists in parquet.
        items = [item.get(inner) if isinstance(item, Mapping) else None for item in value]
        value = value.get(inner) if isinstance(value, Mapping) else items
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise RowError(f"column {label!r} holds {value!r}, which is neither a text nor a list of texts")
    return list(texts)


def _label(task: Task, value: Any, column: str) -> int:
    """The number of a label, from its name or its number; the name first, for a name may look like a number."""
    if _is_hidden(task, value):
        raise RowError(
            f"{column} holds -1, which stands for a hidden label",
            "Such rows can be predicted, not scored: use the validation split, or write predictions only (--predict)",
        )
    names, said = _names(task), str(value).strip().lower()
    known = value is not None and said in names  # nothing is not the label `none`
    number = names.index(said) if known else _whole(value)
    if number is None or not 0 <= number < len(task.labels):
        labels = ", ".join(f"{i} ({name})" for i, name in enumerate(task.labels))
        raise RowError(
            f"{column} holds {value!r}, which is not a label of {task.name}", f"Labels are {labels}: correct it"
        )
    return number


def _names(task: Task) -> list[str]:
    return [name.lower() for name in task.labels]


def _is_hidden(task: Task, value: Any) -> bool:
    """Whether it is GLUE's -1, unless the task has a label of that name."""
    return _whole(value) == HIDDEN and str(value).strip() not in _names(task)


def _whole(value: Any) -> int | None:
    """An integer, also one written as `1`, `1.0` or `-1`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None


def _number(task: Task, value: Any, column: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RowError(f"{column} holds {value!r}, which is not a finite number, and {task.name} is a regression task")
    return number


def _texts(rows: Iterator[dict[str, Any]], joined: bool) -> Iterator[dict[str, Any]]:
    """Rows of a running text end in a newline, as lines do; documents of their own are never blank."""
    for row in rows:
        text = row["text"]
        if joined:
            yield {"text": text if text.endswith("\n") else f"{text}\n"}
        elif text.strip():
            yield {"text": text.strip()}


def _grouped(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row["source"], []).extend(row["references"])
    for source, references in groups.items():
        yield {"source": source, "references": list(dict.fromkeys(references))}
