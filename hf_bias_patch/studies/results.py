"""Writes a study's results as JSON, CSV and parquet, and reads them back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hf_bias_patch.errors import ExtraError, SourceError
from hf_bias_patch.studies.downstream.contrasts import contrasts
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.store import KINDS

__all__ = ["csv_of", "read_results", "tables_of", "write_available", "write_parquet", "write_results"]


def tables_of(found: Study) -> dict[str, list[dict[str, Any]]]:
    """Each experiment that was made as a table of flat records, by name."""
    tables: dict[str, Sequence[Any]] = {
        "perturbation": [row.plain() for row in found.rows],
        "folds": found.folds,
        "steps": found.steps,
        "lessons": found.lessons,
        "drift": found.drifts,
        "scores": found.scores,
        "contrasts": contrasts(found.scores),
    }
    return {
        name: [row if isinstance(row, dict) else asdict(row) for row in rows] for name, rows in tables.items() if rows
    }


def write_available(writers: Iterable[Callable[[], list[str]]]) -> tuple[list[str], list[str]]:
    """Call functions that write files and return their names; one whose library is missing is left out.

    Returns:
        The names of all files; and what was left out, with the library that it needs.
    """
    files, missing = [], []
    for write in writers:
        try:
            files += write()
        except ExtraError as error:
            missing.append(str(error))
    return files, missing


def write_results(found: Study, folder: Path) -> list[str]:
    """Write JSON and CSV; returns the names of the files."""
    environment = json.loads((folder / "environment.json").read_text("utf-8"))
    settings = {**asdict(found.settings), **found.settings.identity()}  # texts by their hash
    whole = {**asdict(found), "settings": settings, "environment": environment}
    (folder / "results.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", "utf-8")
    tables = tables_of(found)
    for name, records in tables.items():
        (folder / f"{name}.csv").write_text(csv_of(records), "utf-8", newline="")
    return ["results.json", *(f"{name}.csv" for name in tables)]


def write_parquet(found: Study, folder: Path) -> list[str]:
    """Write parquet; returns the names of the files.

    Raises:
        ExtraError: pyarrow is missing.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ExtraError("Parquet needs pyarrow", remedy="pip install 'hf_bias_patch[study]'") from None
    tables = tables_of(found)
    for name, records in tables.items():
        pq.write_table(pa.Table.from_pylist(records), folder / f"{name}.parquet")
    return [f"{name}.parquet" for name in tables]


def read_results(folder: Path) -> Study:
    """Read a study that `write_results` wrote; it has the hash of its texts in place of them.

    Raises:
        SourceError: there is no whole study in the folder.
    """
    path = folder / "results.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        settings = {**found["settings"], "texts": (found["settings"]["texts"],)}
        lists = {name: tuple(kind(**row) for row in found[name]) for name, kind in KINDS.items()}
        known = {field.name: found[field.name] for field in fields(Study)}
        words = {name: tuple(found[name]) for name in ("left_out", "notes")}
        return Study(**known | lists | words | {"settings": StudySettings(**settings)})
    except FileNotFoundError:
        raise SourceError(
            f"{folder} holds no study: there is no results.json in it",
            remedy="`hf-bias-patch study MODEL --output DIR` makes one",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path} is not of a study, or of another version: {type(error).__name__}: {error}",
            remedy="Make the study again, with --overwrite",
        ) from None


def csv_of(records: Sequence[Mapping[str, Any]]) -> str:
    """Flat records as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for record in records for name in record)))
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
