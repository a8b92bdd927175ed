"""A split of a task's data, wherever it comes from, in canonical columns (`scoring/canonical.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_bias_patch.errors import DataError
from hf_bias_patch.scoring.canonical import canonical_rows
from hf_bias_patch.scoring.extra import need
from hf_bias_patch.scoring.rows import Row, find_file, read_rows
from hf_bias_patch.scoring.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Files", "load_split"]

Files = str | Path | Mapping[str, str | Path]
"""A file or folder, or a mapping from split to one."""

_CHUNK = 10_000  # rows that are Python objects at a time; the rest is Arrow's


def load_split(
    task: Task, split: str, files: Files | None = None, limit: int | None = None, labels: bool = True
) -> Dataset:
    """A split of a task as a data set in memory, its rows in the order of their source.

    Columns: `text` (and `text_pair`) and `label` (an int, or a float for regression); `text` for language modelling;
    `source` and `references` (a list of texts) for generation.

    Args:
        task: what is asked.
        split: one of the task's splits, such as `validation`; any name where `files` has it.
        files: a local file or folder to read instead of the Hub; see `scoring/rows.py` for the formats.
        limit: only the first so many rows (questions, where several references make one).
        labels: whether they are needed. If not, `label` or `references` is left out.

    Raises:
        DataError: no such split, file or column; a wrong label; a split without rows; the Hub cannot be reached, within
            seconds.
    """
    if limit is not None and limit < 1:
        raise DataError(f"The limit of rows is {limit}", remedy="Ask for 1 or more")
    rows, where = _raw(task, split, files)
    found = islice(canonical_rows(task, rows, where, labels), limit)
    dataset = _dataset(task, found, labels)
    if not len(dataset):
        raise DataError(f"{where} holds no rows", remedy=f"{task.name} needs at least one for its split {split}")
    return dataset


def _raw(task: Task, split: str, files: Files | None) -> tuple[Iterable[Row], str]:
    """Raw rows, and what to call their source in an error."""
    place = _place(task, split, files)
    if place is not None:
        path = find_file(place, split)
        wanted = {*task.text, *([task.label] if task.label else []), *task.aliases}
        return read_rows(path, wanted, task.headerless), str(path)
    if split not in task.splits:
        known = ", ".join(task.splits) or "none"
        raise DataError(f"{task.name} has no split {split!r}", remedy=f"Its splits are: {known}")
    where = f"{task.name}, split {split}"
    if task.generator is not None:
        from hf_bias_patch.scoring.embedded import generate

        return generate(task.generator, split), where
    from hf_bias_patch.scoring.hub import hub_rows

    return hub_rows(task, split), where


def _place(task: Task, split: str, files: Files | None) -> str | Path | None:
    if isinstance(files, (str, Path)):
        return files
    places: Mapping[str, str | Path] = files if files is not None else task.files
    if files is None and split not in places and (task.hub or task.generator):
        return None
    if split not in places:
        raise DataError(
            f"{task.name} was given no file of the split {split!r}",
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
