"""A study's results as files: JSON with all of its provenance, CSV and parquet of each experiment; and back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hf_bias_patch.errors import ExtraError, SourceError
from hf_bias_patch.studies.records import Study
from hf_bias_patch.studies.settings import StudySettings
from hf_bias_patch.studies.store import KINDS

__all__ = ["read_results", "write_parquet", "write_results"]


def write_results(found: Study, folder: Path) -> list[str]:
    """Write JSON and CSV; returns the names of the files."""
    environment = json.loads((folder / "environment.json").read_text("utf-8"))
    settings = {**asdict(found.settings), **found.settings.identity()}  # texts by their hash
    whole = {**asdict(found), "settings": settings, "environment": environment}
    (folder / "results.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", "utf-8")
    tables = found.records()
    for name, records in tables.items():
        (folder / f"{name}.csv").write_text(_csv(records), "utf-8", newline="")
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
    tables = found.records()
    for name, records in tables.items():
        pq.write_table(pa.Table.from_pylist(records), folder / f"{name}.parquet")
    return [f"{name}.parquet" for name in tables]


def read_results(folder: Path) -> Study:
    """A study as `write_results` wrote it; in place of its texts their hash.

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
            remedy="`hf-bias-patch study MODEL --out DIR` makes one",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path} is not of a study, or of another version: {type(error).__name__}: {error}",
            remedy="Make the study again, with --overwrite",
        ) from None


def _csv(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for record in records for name in record)))
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
