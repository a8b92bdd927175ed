"""Studies of several models side by side: read, compared and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hf_bias_patch.errors import ArgumentError, TargetError
from hf_bias_patch.studies.figures.study_figures import comparison
from hf_bias_patch.studies.figures.to_matplotlib import write_pictures
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.report.comparison import write_comparison_page
from hf_bias_patch.studies.results import csv_of, read_results, write_available
from hf_bias_patch.studies.summaries.comparison import (
    ComparisonRow,
    comparison_rows,
    comparison_scores,
    model_names,
    sentences,
)

__all__ = ["StudyComparison", "compare_studies"]

_TABLE, _SCORES = "comparison.csv", "comparison-scores.csv"
_FILES = (_TABLE, "comparison.html", "comparison.png", "comparison.svg", _SCORES)


@dataclass(frozen=True)
class StudyComparison:
    """Studies side by side.

    Attributes:
        studies: by a unique name of each model.
        table: what each bias does, a row for each model and kind of attention.
        scores: scores on tasks without each bias, as flat records.
        summary: sentences.
        files: names of the files that were written.
        missing: of each kind of file that was not written, which library it needs.
    """

    studies: dict[str, Study]
    table: list[ComparisonRow]
    scores: list[dict[str, Any]]
    summary: list[str]
    files: list[str]
    missing: list[str]


def compare_studies(
    folders: Sequence[str | Path], out: str | Path | None = None, *, overwrite: bool = False
) -> StudyComparison:
    """Put studies of several models side by side.

    Args:
        folders: of the studies, two or more.
        out: folder for the table, a page and a figure; None writes nothing.
        overwrite: replace a comparison that is there.

    Raises:
        ArgumentError: fewer than two folders, or one of them twice.
        SourceError: one of them holds no study.
        TargetError: `out` holds a comparison, or cannot be written to.
    """
    paths = [Path(folder) for folder in folders]
    read = _read(paths)
    studies = dict(zip(model_names(read, paths), read, strict=True))
    table, scores = comparison_rows(studies), comparison_scores(studies)
    found = StudyComparison(studies, table, scores, sentences(studies, table), [], [])
    if out is not None:
        files, missing = _write(found, Path(out), overwrite)
        found.files.extend(files)
        found.missing.extend(missing)
    return found


def _read(folders: Sequence[Path]) -> list[Study]:
    """The studies in some folders."""
    if len(folders) < 2:
        raise ArgumentError("A comparison needs two studies or more", remedy="Name the folders of two studies")
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (there := folder.resolve()) in seen:
            raise ArgumentError(f"{folder} is the same folder as {seen[there]}", remedy="Name each study once")
        seen[there] = folder
    return [read_results(folder) for folder in folders]


def _write(found: StudyComparison, out: Path, overwrite: bool) -> tuple[list[str], list[str]]:
    there = [name for name in _FILES if (out / name).exists()]
    if there and not overwrite:
        raise TargetError(f"{out / there[0]} exists", "Nothing was written", "Name another folder, or add --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / _TABLE).write_text(csv_of([asdict(row) for row in found.table]), "utf-8", newline="")
        if found.scores:
            (out / _SCORES).write_text(csv_of(found.scores), "utf-8", newline="")
    except OSError as error:
        raise TargetError(f"{out} cannot be made or written to: {error}", remedy="Name another folder") from None
    page = partial(write_comparison_page, found.table, found.scores, found.summary, out)
    files, missing = write_available([page, partial(write_pictures, [comparison(found.table)], out)])
    return [_TABLE, *([_SCORES] if found.scores else []), *files], missing
