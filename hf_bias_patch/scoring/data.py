"""A split of a task's data, from wherever it is, in canonical columns (`scoring/canonical.py`), and its identity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.checkpoint.hashing import sha256_file
from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.bad_rows import BadRows
from hf_bias_patch.scoring.canonical import any_label, canonical_rows
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.identity import DataIdentity
from hf_bias_patch.scoring.rows import find_file, read_rows
from hf_bias_patch.scoring.tables import Columns, Row
from hf_bias_patch.scoring.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Files", "Split", "columns_of", "has_labels", "load_split", "read_split"]

Files = str | Path | Mapping[str, str | Path]
"""A file or folder, or a mapping from split to one."""

_CHUNK = 10_000  # rows that are Python objects at a time; all others are Arrow's


@dataclass(frozen=True)
class Split:
    """A split as it was read.

    Attributes:
        dataset: canonical columns.
        identity: which rows these are.
        notes: rows that were left out, listed; empty if there are none.
    """

    dataset: Dataset
    identity: DataIdentity
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Raw:
    """Raw rows, the name of their source for errors, and their identity but for their number."""

    rows: Iterable[tuple[str, Row]]
    where: str
    identity: DataIdentity


def load_split(
    task: Task, split: str, files: Files | None = None, limit: int | None = None, labels: bool = True
) -> Dataset:
    """A split of a task as a data set in memory, its rows in the order of their source. Arguments: as of `read_split`.

    Columns: `text` (and `text_pair`) and `label` (an int, or a float for regression); `text` for language modelling;
    `source` and `references` (a list of texts) for generation.
    """
    return read_split(task, split, files, limit, labels).dataset


def read_split(
    task: Task,
    split: str,
    files: Files | None = None,
    limit: int | None = None,
    labels: bool = True,
    skip_bad_rows: bool = False,
) -> Split:
    """A split of a task, and which data it is.

    Args:
        task: what is asked.
        split: one of the task's splits, such as `validation`; any name where `files` has it.
        files: a local file or folder to read instead of the Hub; see `scoring/rows.py` for the formats.
        limit: read only the first N rows (N sources, where several references belong to one).
        labels: whether they are needed; if not, `label` or `references` is left out.
        skip_bad_rows: leave out and list rows that cannot be read, instead of refusing all.

    Raises:
        DataError: no such split, file or column; a wrong label; a split without rows; the Hub cannot be reached, within
            seconds.
    """
    if limit is not None and limit < 1:
        raise DataError(f"The limit of rows is {limit}", remedy="Give 1 or more")
    bad = BadRows(skip_bad_rows)
    raw = _raw(task, split, files, labels, bad)
    found = canonical_rows(task, raw.rows, raw.where, labels, bad)
    dataset = _dataset(task, islice(found, limit), labels)
    if not len(dataset):
        left = f"; {bad.notes[0]}, the first at {bad.notes[1].strip()}" if bad.count else ""
        raise DataError(
            f"{raw.where} has no rows{left}", remedy=f"{task.name} needs at least one for its split {split}"
        )
    identity = replace(raw.identity, rows=len(dataset), skipped=bad.count)
    notes = (f"{raw.identity.name}: {bad.notes[0]}", *bad.notes[1:]) if bad.count else ()
    return Split(dataset, replace(identity, limited=limit is not None and _goes_on(found)), notes)


def has_labels(task: Task, split: str, files: Files) -> bool:
    """Whether a user's file has labels (or references) that are not all hidden. Errors: as of `read_split`."""
    return any_label(task, _raw(task, split, files, False, BadRows(skip=True)).rows)


def columns_of(task: Task, labels: bool = True) -> Columns:
    """The columns that a file of a task should have, with the names that they have in the original files."""
    names = [name.partition(".")[0] for name in (*task.text, *([task.label] if task.label and labels else []))]
    also = {name: {alias for alias, column in task.aliases.items() if column == name} for name in names}
    wanted = {name: frozenset({name, *also[name]}) for name in names}
    return Columns(wanted, task.headerless, f"The task {task.name}")


def _goes_on(rows: Iterator[Any]) -> bool:
    try:
        return next(rows, None) is not None
    except DataError:  # a row all the same
        return True


def _raw(task: Task, split: str, files: Files | None, labels: bool, bad: BadRows) -> _Raw:
    place = _place(task, split, files)
    if place is not None:
        path = find_file(place, split, *([task.splits[split]] if split in task.splits else []))
        found = read_rows(path, columns_of(task, labels), bad)
        return _Raw(found, str(path), DataIdentity("file", path.name, split, 0, sha256=sha256_file(path)))
    if split not in task.splits:
        known = ", ".join(task.splits) or "none"
        raise DataError(f"{task.name} has no split {split!r}", remedy=f"Its splits are: {known}")
    where = f"{task.name}, split {split}"
    if task.generator is not None:
        from hf_bias_patch.scoring.embedded import generate

        return _Raw(
            _numbered(generate(task.generator, split)), where, DataIdentity("generated", task.generator, split, 0)
        )
    from hf_bias_patch.scoring.hub import hub_rows

    rows, identity = hub_rows(task, split)
    return _Raw(_numbered(rows), where, identity)


def _numbered(rows: Iterable[Row]) -> Iterator[tuple[str, Row]]:
    return ((f"row {number}", row) for number, row in enumerate(rows, 1))


def _place(task: Task, split: str, files: Files | None) -> str | Path | None:
    if isinstance(files, (str, Path)):
        return files
    places: Mapping[str, str | Path] = files if files is not None else task.files
    if files is None and split not in places and (task.hub or task.generator):
        return None
    if split not in places:
        raise DataError(
            f"{task.name} has no file of the split {split!r}",
            remedy=f"It has files of: {', '.join(places) or 'none'}",
        )
    return places[split]


def _dataset(task: Task, rows: Iterator[dict[str, Any]], labels: bool) -> Dataset:
    datasets, pyarrow = need("datasets"), need("pyarrow")
    schema = _features(task, labels).arrow_schema
    chunks = [pyarrow.Table.from_pylist([], schema=schema)]
    while chunk := list(islice(rows, _CHUNK)):
        chunks.append(pyarrow.Table.from_pylist(chunk, schema=schema))
    return datasets.Dataset(pyarrow.concat_tables(chunks))


def _features(task: Task, labels: bool) -> Any:
    datasets = need("datasets")
    string = datasets.Value("string")
    if task.kind == "generation":
        return datasets.Features({"source": string} | ({"references": datasets.List(string)} if labels else {}))
    features = dict(zip(("text", "text_pair"), [string] * len(task.text), strict=False))
    if labels and task.kind == "classification":
        features["label"] = datasets.Value("int64")
    if labels and task.kind == "regression":
        features["label"] = datasets.Value("float64")
    return datasets.Features(features)
