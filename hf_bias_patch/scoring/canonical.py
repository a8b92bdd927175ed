"""From raw rows, whatever their columns are called, to the few columns that all the rest works with.

classification, regression   `text` (and `text_pair`), `label`
language modelling           `text`
generation                   `source`, `references` (a list of texts)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.tasks import Task

__all__ = ["canonical_rows"]

Row = Mapping[str, Any]
HIDDEN = -1  # the label that GLUE's test splits have in place of the true one


def canonical_rows(task: Task, rows: Iterable[Row], where: str, labels: bool = True) -> Iterator[dict[str, Any]]:
    """Canonical rows in the order of the raw ones; questions with several references where the first of them stood.

    Args:
        task: whose columns they have.
        rows: raw rows.
        where: what to call their source in an error.
        labels: whether labels or references are needed; if not, they are left out.

    Raises:
        DataError: a column is missing, or a row's text or label is not what it should be. The row is named.
    """
    made = (_row(task, row, number, where, labels) for number, row in enumerate(rows, 1))
    if task.kind == "language_modelling":
        return _texts(made, task.joined)
    return _grouped(made) if task.grouped and labels else made


def _row(task: Task, raw: Row, number: int, where: str, labels: bool) -> dict[str, Any]:
    row = {task.aliases.get(name, name) if task.aliases.get(name) not in raw else name: raw[name] for name in raw}
    needed = [*task.text, *([task.label] if task.label and labels else [])]
    if missing := [name for name in needed if name.partition(".")[0] not in row]:
        raise DataError(
            f"{where}: there is no column {missing[0]!r}; it has {', '.join(map(repr, raw))}",
            why=f"The task {task.name} reads {', '.join(needed)}",
            remedy="Rename the column",
        )
    at = f"{where}, row {number}"
    texts = [_text(row[name], f"{at}, column {name!r}") for name in task.text]
    if task.kind == "generation":
        found = {"references": _references(row, str(task.label), at)} if labels else {}
        return {"source": texts[0], **found}
    made: dict[str, Any] = dict(zip(("text", "text_pair"), texts, strict=False))
    if task.label and labels:
        decide = _number if task.kind == "regression" else _label
        made["label"] = decide(task, row[task.label], f"{at}, column {task.label!r}")
    return made


def _text(value: Any, where: str) -> str:
    """A text; a list of triples as `subject | relation | object`, with ` ; ` between them."""
    if isinstance(value, (list, tuple)) and value:
        parts = [_text(item, where) for item in value]
        return (" ; " if isinstance(value[0], (list, tuple)) else " | ").join(parts)
    if not isinstance(value, str):
        raise DataError(f"{where} holds {value!r}, which is no text")
    return value


def _references(row: Row, label: str, where: str) -> list[str]:
    name, _, inner = label.partition(".")
    value = row[name]
    if inner:
        # A list of mappings in JSON, a mapping of lists in parquet.
        value = value.get(inner) if isinstance(value, Mapping) else [item.get(inner) for item in value]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}, column {label!r} holds {value!r}, which is no text and no list of texts")
    return list(texts)


def _label(task: Task, value: Any, where: str) -> int:
    """The number of a label, from its name or its number; the name first, for a name may look like a number."""
    names, said = [name.lower() for name in task.labels], str(value).strip().lower()
    known = value is not None and said in names  # nothing is not the label `none`
    number = names.index(said) if known else _whole(value)
    if number == HIDDEN:
        raise DataError(
            f"{where} holds the label -1",
            why="That stands for a hidden label, so these rows can be predicted and not scored",
            remedy="Take the validation split, or write predictions (--predict)",
        )
    if number is None or not 0 <= number < len(task.labels):
        labels = ", ".join(f"{i} ({name})" for i, name in enumerate(task.labels))
        raise DataError(f"{where} holds {value!r}, which is no label of {task.name}", remedy=f"Labels are {labels}")
    return number


def _whole(value: Any) -> int | None:
    """An integer, also one written as `1`, `1.0` or `-1`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None


def _number(task: Task, value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where} holds {value!r}, which is no finite number")
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
